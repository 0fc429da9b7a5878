// Products of rows of x with the transpose of a weight.
//
// Sums have one order for any number of rows. k is cut into partitions of whole 256 elements. Within a partition, four
// 8x8 products sum a group of 32 elements; where the halves of a group have scales of their own, two products sum each
// half. Such a sum is multiplied by its scale and added to the partition's, and partitions are added in order. So the
// bits of a row are the same alone, in a batch, and in a prompt.
#include "common/order.h"
#include "products/operand.h"
#include "products/output.h"
#include "products/weights_grid.h"
#include "products/weights_mlx.h"

// A simdgroup's rows: two 8x8 matrices of one weight or, where the second gates, one of each.
enum ProductSize : uint {
  kTileRows = 16,
  kMostPartitions = 8,
  kTiles = 4,  // tiles of a threadgroup where x has many rows
};

// What a simdgroup multiplies: for a lane its rows of both matrices, beside what belongs to their weights.
struct Tile16 {
  device const uchar* w[2];
  device const float* bias[2];
  float unit[2];
  bool biased[2];
  device float* out;
  uint n;
  uint row;  // the first matrix's first
};

// With few rows of x a block's loads are all asked for before the first is used. With many there are enough products
// to wait behind, and a loop over steps of two groups or more, unrolled, would not fit a cache of instructions.
#ifdef MSL_EMULATOR
#define UNROLL_STEPS
#else
#define UNROLL_STEPS _Pragma("unroll(O < 4 || W::kGroups == 1 ? 4 : 1)")
#endif

// The sums of one partition: rows of the weight, columns 8 o .. of x.
template <int O>
struct Sums {
  float2 acc[2][O];
};

// The sums of partition `partition`; x and sums: the first octet's.
template <typename W, int O>
INLINE Sums<O> product_sums(thread const Tile16& tile,
                            device const uint4* x,
                            device const float* sums,
                            constant ProductParams& p,
                            uint partition,
                            LanePlace l) {
  Sums<O> z;
  UNROLL for (int o = 0; o < O; o++) z.acc[0][o] = z.acc[1][o] = float2(0.0f);
  constexpr uint per_unit = 256 / W::kLen, kHalves = W::kScales == 2 ? 2 : 1, kAhead = O < 4 ? W::kSteps : 1;
  const uint units = (p.groups + 7) / 8, steps = p.groups / W::kGroups;
  const uint begin = (units * partition >> p.partition_shift) * per_unit;
  const uint end = min((units * (partition + 1) >> p.partition_shift) * per_unit, (steps + W::kSteps - 1) / W::kSteps);
  device const uint2* x_at = (device const uint2*)x + operand_place<W::kSplit>(l);
  device const float* sums_at = sums + 4 * l.c;
  for (uint b = begin; b < end; b++) {
    device const uchar *from0 = tile.w[0] + b * W::kBytes, *from1 = tile.w[1] + b * W::kBytes;
    device const uint2* of_block = x_at + ulong(b) * (W::kLen / kGroup) * kGroupWords;
    device const float* sums_of_block = sums_at + b * (W::kLen / kGroup) * kGroupSums;
    const uint last = W::kLen == 256 ? W::kSteps - 1 : min(uint(W::kSteps), steps - b * W::kSteps) - 1;
    const typename W::Block b0 = W::block(from0, l.c, tile.unit[0]), b1 = W::block(from1, l.c, tile.unit[1]);
    typename W::Step ahead0[kAhead], ahead1[kAhead];
    UNROLL for (uint i = 0; i < kAhead; i++) {
      ahead0[i] = W::step(from0, min(i, last), l.c);
      ahead1[i] = W::step(from1, min(i, last), l.c);
    }
    UNROLL_STEPS for (uint i = 0; i < W::kSteps; i++) {
      if (i > last) break;
      if (kAhead == 1 && i > 0) {
        ahead0[0] = W::step(from0, i, l.c);
        ahead1[0] = W::step(from1, i, l.c);
      }
      const typename W::Step s0 = ahead0[kAhead == 1 ? 0 : i], s1 = ahead1[kAhead == 1 ? 0 : i];
      UNROLL for (uint g = 0; g < W::kGroups; g++) {
        const Codes c0 = W::codes(b0, s0, i, g), c1 = W::codes(b1, s1, i, g);
        float2 scales[kHalves], mins[kHalves];  // of both matrices' rows
        UNROLL for (uint h = 0; h < kHalves; h++) {
          scales[h] = float2(W::scale(b0, s0, i, g, h), W::scale(b1, s1, i, g, h));
          mins[h] = float2(W::min(b0, s0, i, g, h), W::min(b1, s1, i, g, h));
        }
        UNROLL for (int o = 0; o < O; o++) {
          const uint at = o * p.groups + i * W::kGroups + g;
          const uint4 words = operand_at<W::kSplit>(of_block + at * kGroupWords);
          device const float* of_x = sums_of_block + at * kGroupSums;
          const float4 down_sum = *(device const float4*)of_x;
          simdgroup_half8x8 m[4];
          UNROLL for (int j = 0; j < 4; j++) m[j] = tile_of(as_type<half2>(words[j]));
          simdgroup_float8x8 t[kHalves][2];
          simdgroup_half8x8 a[4], c[4];
          UNROLL for (int j = 0; j < 4; j++) {
            a[j] = tile_of(c0.a[j]);
            c[j] = tile_of(c1.a[j]);
          }
          product_2x2(t[0][0], t[0][1], a[0], c[0], m[0], a[1], c[1], m[1]);
          if (kHalves == 2) {
            product_2x2(t[kHalves - 1][0], t[kHalves - 1][1], a[2], c[2], m[2], a[3], c[3], m[3]);
          } else {
            mma_2x2(t[0][0], t[0][1], a[2], c[2], m[2], a[3], c[3], m[3]);
          }
          UNROLL for (uint h = 0; h < kHalves; h++) {
            z.acc[0][o] = fma(scales[h].x * down_sum.xy, elements(t[h][0]), z.acc[0][o]);
            z.acc[1][o] = fma(scales[h].y * down_sum.xy, elements(t[h][1]), z.acc[1][o]);
            if (W::kMins) {
              float2 sum = down_sum.zw;
              if (kHalves == 2) {
                const float2 first = *(device const float2*)(of_x + 16 - 2 * l.c);
                sum = h == 0 ? first : sum - first;
              }
              z.acc[0][o] = fma(float2(-mins[h].x), sum, z.acc[0][o]);
              z.acc[1][o] = fma(float2(-mins[h].y), sum, z.acc[1][o]);
            }
          }
        }
      }
    }
  }
  return z;
}

// Stores elements of the products at one place of both matrices.
INLINE void store_product(thread const Tile16& tile,
                          device const float* residual,
                          constant ProductParams& p,
                          uint r,
                          uint column,
                          float2 sums) {
  if (column >= p.rows) return;
  const ulong from = ulong(column) * tile.n;
  float y[2];
  UNROLL for (uint m = 0; m < 2; m++) {
    const uint row = min(tile.row + r + (p.form == kGated ? 0 : 8 * m), tile.n - 1);
    y[m] = product_of(sums[m], tile.unit[m], tile.biased[m], tile.bias[m], row);
    if (p.form == kOnto) y[m] += residual[from + row];
  }
  const uint row = tile.row + r;
  if (p.form == kGated) {
    if (row < tile.n) tile.out[from + row] = gated_by(y[0], y[1]);
    return;
  }
  if (row < tile.n) tile.out[from + row] = y[0];
  if (row + 8 < tile.n) tile.out[from + row + 8] = y[1];
}

// A threadgroup multiplies 8 O rows of x. Where these are at most 32, it has one tile of 16 rows of weights, and each
// of its simdgroups has a partition. Where they are 64, it has 4 tiles, and a simdgroup goes through all partitions of
// one, so that a weight is decoded once for the 64 rows.
template <typename W, int O>
KERNEL(256)
product(device const uint4* x [[buffer(0)]],
        device const float* sums [[buffer(1)]],
        device const uchar* weight0 [[buffer(2)]],
        device const uchar* weight1 [[buffer(3)]],
        device const uchar* weight2 [[buffer(4)]],
        device const float* bias0 [[buffer(5)]],
        device const float* bias1 [[buffer(6)]],
        device const float* bias2 [[buffer(7)]],
        device const float* residual [[buffer(8)]],
        device float* out0 [[buffer(9)]],
        device float* out1 [[buffer(10)]],
        device float* out2 [[buffer(11)]],
        device const uint* experts [[buffer(12)]],  // of each 8 O rows of x
        constant ProductParams& p [[buffer(13)]],
        uint2 at [[threadgroup_position_in_grid]],
        uint sg [[simdgroup_index_in_threadgroup]],
        uint lane [[thread_index_in_simdgroup]],
        uint tid [[thread_index_in_threadgroup]]) {
  const uint expert = p.by_expert ? experts[at.y] : 0;
  if (expert == kNowhere) return;
  constexpr bool many = O == 8;
  // Totals of many rows, each of which only its lane reads, since registers have the sums of a partition; or those sums
  // of all partitions.
  threadgroup float2 s_sums[many ? kTiles * 2 * O * 32 : kMostPartitions * 64];
  threadgroup half s_index[kMostPartitions][64];
  const uint e = first_element(s_index[sg], lane);
  const LanePlace l = {e / 8, e % 8 / 2};
  const uint partitions = 1u << p.partition_shift;

  const TilePlace place = tile_place<kTileRows>(p, many ? at.x * kTiles + sg : at.x);
  if (!place.is_there) return;
  const uint which = place.which;
  Tile16 tile;
  tile.n = place.n;
  tile.out = which == 0 ? out0 : which == 1 ? out1 : out2;
  tile.row = place.row;
  UNROLL for (uint m = 0; m < 2; m++) {
    const uint of = p.form == kGated ? m : which;
    const uint row = min(tile.row + l.r + (p.form == kGated ? 0 : 8 * m), tile.n - 1);
    tile.w[m] = (of == 0 ? weight0 : of == 1 ? weight1 : weight2) + (ulong(expert) * tile.n + row) * p.row_bytes;
    tile.bias[m] = of == 0 ? bias0 : of == 1 ? bias1 : bias2;
    tile.unit[m] = of == 0 ? p.unit0 : of == 1 ? p.unit1 : p.unit2;
    tile.biased[m] = (p.biased >> of & 1u) == 1;
  }

  const ulong octet = ulong(at.y) * O * p.groups;
  device const uint4* from = x + octet * kGroupPlaces;
  device const float* of_x = sums + octet * kGroupSums;
  if (many) {
    threadgroup float2* total = s_sums + sg * 2 * O * 32 + lane;
    for (uint j = 0; j < partitions; j++) {
      const Sums<O> z = product_sums<W, O>(tile, from, of_x, p, j, l);
      UNROLL for (int e = 0; e < 2 * O; e++) {
        const float2 before = j == 0 ? float2(0.0f) : total[32 * e];
        total[32 * e] = before + z.acc[e % 2][e / 2];
      }
    }
    UNROLL for (int o = 0; o < O; o++) {
      const float2 first = total[32 * (2 * o)], second = total[32 * (2 * o + 1)];
      const uint column = (at.y * O + o) * 8 + 2 * l.c;
      store_product(tile, residual, p, l.r, column, float2(first.x, second.x));
      store_product(tile, residual, p, l.r, column + 1, float2(first.y, second.y));
    }
    return;
  }
  const Sums<O> z = product_sums<W, O>(tile, from, of_x, p, sg, l);
  UNROLL for (int o = 0; o < O; o++) {
    if (o > 0) threadgroup_barrier(mem_flags::mem_threadgroup);
    // Both matrices' elements beside each other, rows of the weight first.
    s_sums[sg * 64 + 2 * l.c * 8 + l.r] = float2(z.acc[0][o].x, z.acc[1][o].x);
    s_sums[sg * 64 + (2 * l.c + 1) * 8 + l.r] = float2(z.acc[0][o].y, z.acc[1][o].y);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint element = tid; element < 64; element += 32 * partitions) {
      float2 sum = s_sums[element];
      for (uint j = 1; j < partitions; j++) sum += s_sums[j * 64 + element];
      store_product(tile, residual, p, element % 8, (at.y * O + o) * 8 + element / 8, sum);
    }
  }
}

#define PRODUCT_OF(NAME, W, O) \
  template [[host_name("product_" NAME "_o" #O)]] [[kernel]] decltype(product<W, O>) product<W, O>;
#define PRODUCT(NAME, W) PRODUCT_OF(NAME, W, 1) PRODUCT_OF(NAME, W, 2) PRODUCT_OF(NAME, W, 4) PRODUCT_OF(NAME, W, 8)
#ifdef WEIGHT_TYPE  // the only one, and its name
PRODUCT(WEIGHT_NAME, WEIGHT_TYPE)
#else
PRODUCT("f16", F16)
PRODUCT("bf16", BF16)
PRODUCT("q8_0", Q8_0)
PRODUCT("q4_0", Q4_0)
PRODUCT("q4_1", Q4_1)
PRODUCT("q5_0", Q5_0)
PRODUCT("q5_1", Q5_1)
PRODUCT("q2_k", Q2_K)
PRODUCT("q3_k", Q3_K)
PRODUCT("q4_k", Q4_K)
PRODUCT("q5_k", Q5_K)
PRODUCT("q6_k", Q6_K)
PRODUCT("iq4_nl", IQ4_NL)
PRODUCT("iq4_xs", IQ4_XS)
PRODUCT("mxfp4", MXFP4)
PRODUCT("iq3_s", IQ3_S)
PRODUCT("iq3_xxs", IQ3_XXS)
PRODUCT("iq2_s", IQ2_S)
PRODUCT("iq2_xs", IQ2_XS)
PRODUCT("iq2_xxs", IQ2_XXS)
PRODUCT("tq2_0", TQ2_0)
PRODUCT("tq1_0", TQ1_0)
PRODUCT("nvfp4", NVFP4)
AFFINE_KERNELS(PRODUCT, 2)
AFFINE_KERNELS(PRODUCT, 3)
AFFINE_KERNELS(PRODUCT, 4)
AFFINE_KERNELS(PRODUCT, 5)
AFFINE_KERNELS(PRODUCT, 6)
AFFINE_KERNELS(PRODUCT, 8)
#endif
