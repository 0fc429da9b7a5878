// The experts of each row of a mixture, and the rows of each expert.
#include "common/order.h"

struct RouteParams {
  uint rows;
  uint experts;
  uint choices;     // experts of a row, at most 32
  uint normalized;  // whether the weights of a row's experts are scaled to a sum of 1
};

// The experts with the largest logits of each row, of equal ones those of the lower number, and their weights, a
// softmax; in the order of their numbers. Threadgroup: 4 rows, a simdgroup each.
KERNEL(128)
route(device const float* logits [[buffer(0)]],
      device uint* chosen [[buffer(1)]],    // [rows][choices]
      device float* weights [[buffer(2)]],  // [rows][choices]
      constant RouteParams& p [[buffer(3)]],
      uint at [[threadgroup_position_in_grid]],
      uint sg [[simdgroup_index_in_threadgroup]],
      uint lane [[thread_index_in_simdgroup]]) {
  const uint row = at * 4 + sg;
  if (row >= p.rows) return;
  device const float* x = logits + ulong(row) * p.experts;
  // The choice before this one, after which a candidate must come; lane n keeps choice n.
  Candidate last = {-kNone, 0}, choice = {kNone, 0};
  for (uint n = 0; n < p.choices; n++) {
    Candidate best = {kNone, kNowhere};
    for (uint i = lane; i < p.experts; i += 32) {
      const float v = ordered(x[i]);
      if ((n == 0 || beats(last.value, last.index, v, i)) && beats(v, i, best.value, best.index)) best = {v, i};
    }
    last = largest_of_lanes(best);
    if (lane == n) choice = last;
  }
  const float most = simd_shuffle(choice.value, 0);
  const float share = lane < p.choices ? exp(choice.value - most) : 0.0f;
  float all = share;
  if (!p.normalized) {
    all = 0.0f;
    for (uint i = lane; i < p.experts; i += 32) all += exp(ordered(x[i]) - most);
  }
  const float weight = share / simd_sum(all);
  uint place = 0;
  for (uint i = 0; i < p.choices; i++) place += simd_shuffle(choice.index, i) < choice.index ? 1 : 0;
  if (lane >= p.choices) return;
  chosen[ulong(row) * p.choices + place] = choice.index;
  weights[ulong(row) * p.choices + place] = weight;
}

struct GroupParams {
  uint rows;
  uint choices;
  uint staged;      // rows whose choices are in threadgroup memory at once
  uint tile_shift;  // log2 of the places of a tile
  uint tiles;       // as many as any choice of experts takes
};

enum GroupSize : uint { kStaged = 1024, kMostExperts = 1024 };

// Sorts routed rows, which are a row and one of its experts each, by expert. An expert has whole tiles of places: those
// that are left have row kNowhere, and tiles that are left have expert kNowhere. `places`: where each routed row is.
// One threadgroup; a thread has an expert.
KERNEL(1024)
group_by_expert(device const uint* chosen [[buffer(0)]],
                device uint* expert_of_tile [[buffer(1)]],
                device uint* row_of_place [[buffer(2)]],
                device uint* places [[buffer(3)]],
                constant GroupParams& p [[buffer(4)]],
                uint tid [[thread_index_in_threadgroup]],
                uint groups [[simdgroups_per_threadgroup]]) {
  threadgroup uint s_chosen[kStaged], s_tiles[kMostExperts];
  const uint threads = groups * 32;
  uint count = 0, first = 0, tiles = 0, place = 0;
  // Once to count, once to place.
  for (uint placing = 0; placing < 2; placing++) {
    for (uint row = 0; row < p.rows; row += p.staged) {
      const uint routed = min(p.staged, p.rows - row) * p.choices;
      threadgroup_barrier(mem_flags::mem_threadgroup);
      for (uint i = tid; i < routed; i += threads) s_chosen[i] = chosen[ulong(row) * p.choices + i];
      threadgroup_barrier(mem_flags::mem_threadgroup);
      if (placing == 0) {
        for (uint i = 0; i < routed; i++) count += s_chosen[i] == tid ? 1 : 0;
        continue;
      }
      for (uint i = 0, r = row; i < routed; i += p.choices, r++) {
        for (uint n = 0; n < p.choices; n++) {
          if (s_chosen[i + n] != tid) continue;
          row_of_place[place] = r;
          places[ulong(row) * p.choices + i + n] = place;
          place++;
        }
      }
    }
    if (placing == 1) break;
    tiles = (count + (1u << p.tile_shift) - 1) >> p.tile_shift;
    s_tiles[tid] = tiles;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint i = 0; i < tid; i++) first += s_tiles[i];
    place = first << p.tile_shift;
  }
  for (uint i = 0; i < tiles; i++) expert_of_tile[first + i] = tid;
  for (; place < (first + tiles) << p.tile_shift; place++) row_of_place[place] = kNowhere;
  uint all = 0;
  for (uint i = 0; i < threads; i++) all += s_tiles[i];
  for (uint i = all + tid; i < p.tiles; i += threads) expert_of_tile[i] = kNowhere;
}
