// What products by expert read, and the sum of what they give.
#include "common/order.h"
#include "products/operand.h"

struct PackRoutedParams {
  uint width;
  uint groups;       // of 32 elements in a row
  uint octet_shift;  // log2 of the octets of a tile
  uint gathered;     // whether place i has the row of x that `row_of_place` names, else row i of x
};

// The operand of routed rows, which are sorted by expert (route.metal), with zeros where a place is empty. Threadgroup:
// 4 groups of an octet, a simdgroup each.
KERNEL(128)
pack_routed(device const float* x [[buffer(0)]],
            device const uint* expert_of_tile [[buffer(1)]],
            device const uint* row_of_place [[buffer(2)]],
            device uint4* operand [[buffer(3)]],
            device float* sums [[buffer(4)]],
            constant PackRoutedParams& p [[buffer(5)]],
            uint2 at [[threadgroup_position_in_grid]],
            uint sg [[simdgroup_index_in_threadgroup]],
            uint lane [[thread_index_in_simdgroup]]) {
  const uint group = at.x * 4 + sg;
  if (group >= p.groups || expert_of_tile[at.y >> p.octet_shift] == kNowhere) return;
  const uint place = at.y * 8 + lane / 4, row = row_of_place[place], first = group * kGroup + lane % 4 * 8;
  device const float* from = x + ulong(p.gathered ? row : place) * p.width;
  Eight eight;
  UNROLL for (uint i = 0; i < 8; i++) eight.z[i] = row != kNowhere && first + i < p.width ? from[first + i] : 0.0f;
  store_group(operand, sums, ulong(at.y) * p.groups + group, eight, lane);
}

struct SumExpertsParams {
  uint width;
  uint choices;
};

// out = the sum of what a row's experts gave, each times its weight, in the order of the experts' numbers. Threadgroup:
// 256 elements of a row.
KERNEL(256)
sum_experts(device const float* x [[buffer(0)]],  // by place
            device const float* weights [[buffer(1)]],
            device const uint* places [[buffer(2)]],
            device float* out [[buffer(3)]],
            constant SumExpertsParams& p [[buffer(4)]],
            uint2 at [[threadgroup_position_in_grid]],
            uint tid [[thread_index_in_threadgroup]]) {
  const uint i = at.x * 256 + tid;
  if (i >= p.width) return;
  const ulong first = ulong(at.y) * p.choices;
  float sum = 0.0f;
  for (uint n = 0; n < p.choices; n++) {
    sum = fma(weights[first + n], x[ulong(places[first + n]) * p.width + i], sum);
  }
  out[ulong(at.y) * p.width + i] = sum;
}
