// Products of one or two rows of x with the transpose of a weight, as matrix times vector: no 8x8 products, whose
// columns would mostly be empty. Bits are other ones than those of `product`; those of a row are the same alone and
// beside another.
//
// A simdgroup has R rows of the weight. Four lanes read a block of each, as four lanes of an 8x8 product do, eight
// times four lanes read eight blocks of a row side by side, and x is read once for the R rows. A lane sums its elements
// down k in f32; lanes are added by `simd_sum`, and partitions of k, which whole passes of eight blocks make up, in
// order.
#include "products/output.h"
#include "products/weights_grid.h"
#include "products/weights_mlx.h"

enum MatvecSize : uint {
  kMatvecSimdgroups = 8,  // the most of a threadgroup
  kBlocksAtOnce = 8,
};

// The products of four neighbours, added to t in order. even: elements 0 and 2, odd: 1 and 3.
INLINE float dot4(half2 even, half2 odd, float4 x, float t) {
  t = fma(float(even.x), x.x, t);
  t = fma(float(odd.x), x.y, t);
  t = fma(float(even.y), x.z, t);
  return fma(float(odd.y), x.w, t);
}
INLINE float sum4(float4 x) { return x.x + x.y + x.z + x.w; }

// A lane's sums for each of R rows of the weight and C of x.
template <int C, int R>
struct LaneSums {
  float acc[R][C];
};

// Adds the products of a group. x: the lane's elements of it; from: those of the rows' blocks and steps.
template <typename W, int C, int R>
INLINE void add_group(thread LaneSums<C, R>& z,
                      thread const typename W::Block* block,
                      thread const typename W::Step* step,
                      device const float* x,
                      constant ProductParams& p,
                      uint i,
                      uint g) {
  float4 low[C], high[C];
  UNROLL for (int j = 0; j < C; j++) {
    device const float4* from = (device const float4*)(x + ulong(min(uint(j), p.rows - 1)) * (p.groups * 32));
    low[j] = from[0];
    high[j] = from[W::kSplit ? 4 : 1];
  }
  UNROLL for (int r = 0; r < R; r++) {
    const Codes codes = W::codes(block[r], step[r], i, g);
    const float scale = W::scale(block[r], step[r], i, g, 0);
    const float other = W::kScales == 2 ? W::scale(block[r], step[r], i, g, 1) : scale;
    UNROLL for (int j = 0; j < C; j++) {
      float t = dot4(codes.a[0], codes.a[1], low[j], 0.0f);
      if (W::kScales == 2) {
        z.acc[r][j] = fma(scale, t, z.acc[r][j]);
        t = 0.0f;
      }
      z.acc[r][j] = fma(other, dot4(codes.a[2], codes.a[3], high[j], t), z.acc[r][j]);
      if (W::kMins && W::kScales == 2) {
        z.acc[r][j] = fma(-W::min(block[r], step[r], i, g, 0), sum4(low[j]), z.acc[r][j]);
        z.acc[r][j] = fma(-W::min(block[r], step[r], i, g, 1), sum4(high[j]), z.acc[r][j]);
      } else if (W::kMins) {
        z.acc[r][j] = fma(-W::min(block[r], step[r], i, g, 0), sum4(low[j]) + sum4(high[j]), z.acc[r][j]);
      }
    }
  }
}

// The rows of a weight that a simdgroup multiplies, and what belongs to their weights.
template <int R>
struct WeightRows {
  device const uchar* from[R];
  float unit[R];
};

// The sums of a lane over the blocks that it has of a partition.
template <typename W, int C, int R>
INLINE LaneSums<C, R> lane_sums(
    thread const WeightRows<R>& weight, device const float* x, constant ProductParams& p, uint partition, uint lane) {
  LaneSums<C, R> z;
  UNROLL for (int r = 0; r < R; r++) { UNROLL for (int j = 0; j < C; j++) z.acc[r][j] = 0.0f; }
  // As many steps of R rows are asked for at once as registers have room for.
  constexpr uint kAhead = sizeof(typename W::Step) <= 8 ? W::kSteps : W::kSteps / 2;
  constexpr uint kGroupsOfBlock = W::kLen / 32;
  const uint steps = p.groups / W::kGroups, blocks = (p.groups + kGroupsOfBlock - 1) / kGroupsOfBlock;
  const uint passes = (blocks + kBlocksAtOnce - 1) / kBlocksAtOnce, c = lane % 4;
  const uint begin = passes * partition >> p.partition_shift, end = passes * (partition + 1) >> p.partition_shift;
  for (uint pass = begin; pass < end; pass++) {
    const uint b = pass * kBlocksAtOnce + lane / 4;
    if (b >= blocks) break;
    const uint count = W::kLen == 256 ? uint(W::kSteps) : min(uint(W::kSteps), steps - b * W::kSteps);
    device const uchar* from[R];
    typename W::Block block[R];
    UNROLL for (int r = 0; r < R; r++) {
      from[r] = weight.from[r] + b * W::kBytes;
      block[r] = W::block(from[r], c, weight.unit[r]);
    }
    device const float* x_at = x + b * W::kLen + (W::kSplit ? 4 : 8) * c;
    for (uint first = 0; first < count; first += kAhead) {
      typename W::Step step[kAhead][R];
      UNROLL for (uint a = 0; a < kAhead; a++) {
        UNROLL for (int r = 0; r < R; r++) step[a][r] = W::step(from[r], min(first + a, count - 1), c);
      }
      UNROLL for (uint a = 0; a < kAhead; a++) {
        const uint i = first + a;
        if (W::kLen != 256 && i >= count) break;  // blocks of 256 elements are whole
        UNROLL for (uint g = 0; g < W::kGroups; g++) {
          add_group<W, C, R>(z, block, step[a], x_at + (i * W::kGroups + g) * 32, p, i, g);
        }
      }
    }
  }
  return z;
}

// Threadgroup: tiles of R rows of the weights or, where one gates, of half as many of either, each with a simdgroup a
// partition of k; `simdgroups` in all.
template <typename W, int C, int R>
KERNEL(256)
matvec(device const float* x [[buffer(0)]],
       device const uchar* weight0 [[buffer(1)]],
       device const uchar* weight1 [[buffer(2)]],
       device const uchar* weight2 [[buffer(3)]],
       device const float* bias0 [[buffer(4)]],
       device const float* bias1 [[buffer(5)]],
       device const float* bias2 [[buffer(6)]],
       device const float* residual [[buffer(7)]],
       device float* out0 [[buffer(8)]],
       device float* out1 [[buffer(9)]],
       device float* out2 [[buffer(10)]],
       constant ProductParams& p [[buffer(11)]],
       uint at [[threadgroup_position_in_grid]],
       uint sg [[simdgroup_index_in_threadgroup]],
       uint simdgroups [[simdgroups_per_threadgroup]],
       uint lane [[thread_index_in_simdgroup]]) {
  threadgroup float s_sums[kMatvecSimdgroups][R * C];
  const bool gated = p.form == kGated;
  const uint partitions = 1u << p.partition_shift, partition = sg & (partitions - 1);
  const TilePlace tile = tile_place<R>(p, at * (simdgroups >> p.partition_shift) + (sg >> p.partition_shift));
  // A simdgroup without a tile multiplies too, since all must meet below.
  const uint which = tile.which, n = tile.n, first = tile.row;
  WeightRows<R> weight;
  UNROLL for (int r = 0; r < R; r++) {
    const uint of = gated ? r / (R / 2) : which, row = min(first + (gated ? r % (R / 2) : r), n - 1);
    weight.from[r] = (of == 0 ? weight0 : of == 1 ? weight1 : weight2) + ulong(row) * p.row_bytes;
    weight.unit[r] = of == 0 ? p.unit0 : of == 1 ? p.unit1 : p.unit2;
  }
  const LaneSums<C, R> z = lane_sums<W, C, R>(weight, x, p, partition, lane);
  UNROLL for (int r = 0; r < R; r++) {
    UNROLL for (int j = 0; j < C; j++) {
      const float sum = simd_sum(z.acc[r][j]);
      if (lane == 0) s_sums[sg][r * C + j] = sum;
    }
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  const uint r = lane / C, column = lane % C, row = first + r;
  if (!tile.is_there || partition != 0 || r >= tile.rows || row >= n || column >= p.rows) return;
  float y[2];
  UNROLL for (uint m = 0; m < 2; m++) {
    const uint of = gated ? m : which, place = lane + (gated ? R / 2 * C * m : 0);
    float sum = s_sums[sg][place];
    for (uint j = 1; j < partitions; j++) sum += s_sums[sg + j][place];
    const float unit = of == 0 ? p.unit0 : of == 1 ? p.unit1 : p.unit2;
    device const float* bias = of == 0 ? bias0 : of == 1 ? bias1 : bias2;
    y[m] = product_of(sum, unit, (p.biased >> of & 1u) == 1, bias, row);
  }
  const ulong to = ulong(column) * n + row;
  device float* out = which == 0 ? out0 : which == 1 ? out1 : out2;
  out[to] = gated ? gated_by(y[0], y[1]) : p.form == kOnto ? y[0] + residual[to] : y[0];
}

#define MATVEC_OF(NAME, W, C, R) \
  template [[host_name("matvec_" NAME "_x" #C)]] [[kernel]] decltype(matvec<W, C, R>) matvec<W, C, R>;
// With two rows of x registers have room for fewer of the weight.
#define MATVEC(NAME, W) MATVEC_OF(NAME, W, 1, 4) MATVEC_OF(NAME, W, 2, 2)
#ifdef WEIGHT_TYPE  // the only one, and its name
MATVEC(WEIGHT_NAME, WEIGHT_TYPE)
#else
MATVEC("f16", F16)
MATVEC("bf16", BF16)
MATVEC("q8_0", Q8_0)
MATVEC("q4_0", Q4_0)
MATVEC("q4_1", Q4_1)
MATVEC("q5_0", Q5_0)
MATVEC("q5_1", Q5_1)
MATVEC("q2_k", Q2_K)
MATVEC("q3_k", Q3_K)
MATVEC("q4_k", Q4_K)
MATVEC("q5_k", Q5_K)
MATVEC("q6_k", Q6_K)
MATVEC("iq4_nl", IQ4_NL)
MATVEC("iq4_xs", IQ4_XS)
MATVEC("mxfp4", MXFP4)
MATVEC("iq3_s", IQ3_S)
MATVEC("iq3_xxs", IQ3_XXS)
MATVEC("iq2_s", IQ2_S)
MATVEC("iq2_xs", IQ2_XS)
MATVEC("iq2_xxs", IQ2_XXS)
MATVEC("tq2_0", TQ2_0)
MATVEC("tq1_0", TQ1_0)
MATVEC("nvfp4", NVFP4)
AFFINE_KERNELS(MATVEC, 2)
AFFINE_KERNELS(MATVEC, 3)
AFFINE_KERNELS(MATVEC, 4)
AFFINE_KERNELS(MATVEC, 5)
AFFINE_KERNELS(MATVEC, 6)
AFFINE_KERNELS(MATVEC, 8)
#endif
