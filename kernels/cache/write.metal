// Cache writes: subtract the mean, apply RoPE, scale by pair, rotate, quantise, pack, store by slot. One simdgroup a
// (token, kv head, K or V).
#include "cache/viterbi.h"
#include "common/vectors.h"

struct WriteParams {
  uint tokens;
  uint pairs;  // RoPE pairs of a head
  float norm;  // 1 / sqrt(D)
};

// The largest magnitude's half scale and int8 codes of z[start ..].
INLINE half quantize_int8(threadgroup const float* z, threadgroup ushort* codes, uint count, uint lane) {
  float top = 0.0f;
  for (uint i = lane; i < count; i += 32) top = max(top, abs(z[i]));
  const half scale = half(min(simd_max(top) / 127.0f, kLimit));
  const float inverse = scale > half(0) ? 1.0f / float(scale) : 0.0f;
  for (uint i = lane; i < count; i += 32)
    codes[i] = ushort(uint(int(clamp(rint(z[i] * inverse), -127.0f, 127.0f))) & 0xffu);
  return scale;
}
// Scale and minimum, and unsigned codes.
INLINE half2
quantize_affine(threadgroup const float* z, threadgroup ushort* codes, uint count, float levels, uint lane) {
  float low = 3.4e38f, high = -3.4e38f;
  for (uint i = lane; i < count; i += 32) {
    low = min(low, z[i]);
    high = max(high, z[i]);
  }
  const half minimum = half(clamp(simd_min(low), -kLimit, kLimit));
  const half scale = half(clamp((simd_max(high) - float(minimum)) / levels, 0.0f, kLimit));
  const float inverse = scale > half(0) ? 1.0f / float(scale) : 0.0f;
  for (uint i = lane; i < count; i += 32)
    codes[i] = ushort(clamp(rint((z[i] - float(minimum)) * inverse), 0.0f, levels));
  return half2(scale, minimum);
}
// The nearest codebook values of z over its rms; the scale restores the norm.
INLINE half quantize_codebook(uint f, threadgroup const float* z, threadgroup ushort* codes, uint count, uint lane) {
  float square = 0.0f;
  for (uint i = lane; i < count; i += 32) square = fma(z[i], z[i], square);
  square = simd_sum(square);
  const bool zero = square <= 1e-30f;
  const float inverse = zero ? 0.0f : sqrt(float(count) / square);
  const uint n = magnitudes(f);
  float sum = 0.0f;
  for (uint i = lane; i < count; i += 32) {
    const float a = abs(z[i]) * inverse;
    uint code = 0;
    for (uint j = 1; j < n; j++) code += a > 0.5f * (magnitude(f, j - 1) + magnitude(f, j)) ? 1u : 0u;
    const float c = magnitude(f, code);
    sum = fma(c, c, sum);
    const bool negative = !zero && z[i] < 0.0f;
    codes[i] = ushort(is_ascending(f) ? negative ? n - 1 - code : n + code : negative ? n + code : code);
  }
  return zero ? half(0) : half(min(sqrt(square / simd_sum(sum)), kLimit));
}

// The bits of a plane, from codes: `shift` and `mask` pick them.
struct Picker {
  threadgroup const ushort* codes;
  uint f, shift, mask;
  // Those at a place of a lane's string of K's e, or of a token's V.
  template <int D>
  INLINE uint at(bool value, uint lane, uint place, uint e) const {
    const uint j = !is_trellis(f) ? place : shift == 0 ? chained_at<D>(f, place) : FreeBits<D>::code_at(f, place);
    return uint(codes[value ? value_dim<D>(lane, j) : key_dim<D>(lane, j, e)]) >> shift & mask;
  }
};
// n bits from `bit` on of a lane's string: of K's e, or of a token's V.
template <int D, int B>
INLINE uint string_bits(Picker x, bool value, uint lane, uint e, uint bit, uint n) {
  uint bits = 0;
  for (uint j = bit / B; j * B < bit + n; j++) {
    const uint code = x.template at<D>(value, lane, j, e), at = j * B;
    bits |= at < bit ? code >> (bit - at) : code << (at - bit);
  }
  return n < 32 ? bits & ((1u << n) - 1u) : bits;
}
// A token of K has both strings of 4 lanes, one of V one string of 8, of pairs of tokens.
template <int D, int B>
INLINE void store_plane(bool value, Picker x, device uchar* plane, uint slot, uint lane) {
  typedef Plane<D, B> Layout;
  constexpr uint words = Layout::kWords, shared = Layout::kShared, rest = Layout::kRest, each = rest > 0 ? rest : 1;
  const uint lanes = value ? 8 : 4, row = value ? slot / 2 : slot;
  for (uint i = lane; i < 8 * words; i += 32) {
    const uint own = i % lanes, e = value ? slot % 2 : i / 4 % 2, w = i / 8;
    *(device uint*)(plane + row * (lanes * 8 * words) + word_offset(2 * words, e * words + w, own, lanes)) =
        string_bits<D, B>(x, value, own, e, 32 * w, 32);
  }
  plane += (32 * words) << kBlockShift;
  for (uint i = lane; i < 8 * shared; i += 32) {
    const uint own = i % lanes, e = value ? slot % 2 : i / 4 % 2, w = i / 8;
    *(device ushort*)(plane + row * (lanes * 4 * shared) + word_offset(shared, w, own, lanes) + 2 * e) =
        ushort(string_bits<D, B>(x, value, own, e, 32 * words + 16 * w, 16));
  }
  plane += (16 * shared) << kBlockShift;
  for (uint i = lane; i < rest; i += 32) {
    uint byte = 0;
    for (uint k = 0; k < 8; k++) {
      const uint bit = 8 * i + k, string = bit / each;
      byte |=
          string_bits<D, B>(x, value, value ? string : string / 2, string % 2, 32 * words + 16 * shared + bit % each, 1)
          << k;
    }
    plane[value && rest == 8 ? row * 16 + i * 2 + slot % 2 : slot * rest + i] = uchar(byte);
  }
}

// points, memory: of `Viterbi`, where f is a trellis code. z is not kept.
template <int D>
INLINE void quantize(uint f,
                     threadgroup float* z,
                     threadgroup ushort* codes,
                     threadgroup const ushort* points,
                     threadgroup typename Viterbi<D>::Memory* memory,
                     device half* scales,
                     uint lane) {
  if (is_trellis(f)) {
    Viterbi<D> viterbi;
    viterbi.f = f;
    viterbi.lane = lane;
    viterbi.points = points;
    viterbi.memory = memory;
    const half s = viterbi.encode(z, codes);
    if (lane == 0) scales[0] = s;
  } else if (f == kF16 || f == kBf16) {
    for (uint i = lane; i < D; i += 32) codes[i] = f == kF16 ? as_type<ushort>(half(z[i])) : bf16_bits(z[i]);
  } else if (!is_grouped(f)) {
    const half s = quantize_int8(z, codes, D, lane);
    if (lane == 0) scales[0] = s;
  } else {
    for (uint g = 0; g < (D + 31) / 32; g++) {
      const uint count = min(uint(D) - 32 * g, 32u);
      threadgroup const float* x = z + 32 * g;
      if (is_affine(f)) {
        const half2 s = quantize_affine(x, codes + 32 * g, count, float((1u << code_bits(f)) - 1u), lane);
        if (lane == 0) {
          scales[2 * g] = s.x;
          scales[2 * g + 1] = s.y;
        }
      } else {
        const half s = f == kInt8 ? quantize_int8(x, codes + 32 * g, count, lane)
                                  : quantize_codebook(f, x, codes + 32 * g, count, lane);
        if (lane == 0) scales[g] = s;
      }
    }
  }
  simdgroup_barrier(mem_flags::mem_threadgroup);
}

// k, v: [tokens][kv heads][D], K before RoPE. angles: [tokens][pairs] (cos, sin), times RoPE's attention factor.
// key_constants: [kv heads][KeyConstant][D]. positions: of each token in its sequence.
template <int D>
KERNEL(128)
write(device const float* k [[buffer(0)]],
      device const float* v [[buffer(1)]],
      device const uint* slots [[buffer(2)]],
      device const float2* angles [[buffer(3)]],
      device const uint* rotation [[buffer(4)]],
      device const float* key_constants [[buffer(5)]],
      device const uint* positions [[buffer(6)]],
      device uchar* cache [[buffer(7)]],
      constant WriteParams& p [[buffer(8)]],
      uint tg [[threadgroup_position_in_grid]],
      uint sg [[simdgroup_index_in_threadgroup]],
      uint lane [[thread_index_in_simdgroup]]) {
  // As many vectors at once as threadgroup memory holds.
  constexpr uint kWriters = D <= 256 ? 4 : 2;
  threadgroup float s_z[kWriters * D];
  threadgroup ushort s_codes[kWriters * D];
  threadgroup ushort s_points[2 * kMostPoints];
  typedef typename Viterbi<D>::Memory PathMemory;
  threadgroup uint s_paths[kWriters * sizeof(PathMemory) / 4];
  if (is_trellis(kKeyFormat)) load_points(kKeyFormat, s_points, sg * 32 + lane, 32 * kWriters);
  if (is_trellis(kValueFormat)) load_points(kValueFormat, s_points + kMostPoints, sg * 32 + lane, 32 * kWriters);
  if (is_trellis(kKeyFormat) || is_trellis(kValueFormat)) threadgroup_barrier(mem_flags::mem_threadgroup);
  const uint item = tg * kWriters + sg, row = item / 2, head = row % kKvHeads, token = row / kKvHeads;
  const bool value = item % 2 == 1;
  if (token >= p.tokens) return;  // a whole simdgroup
  threadgroup float* z = s_z + sg * D;
  threadgroup ushort* codes = s_codes + sg * D;
  device const float* x = (value ? v : k) + ulong(row) * D;
  const bool centred = kKeysCentred && !value;
  device const float* constants = key_constants + head * (kKeyConstants * D);
  device const float* mean = constants + (centred && positions[token] == 0 ? kFirstMean : kSubtracted) * D;
  device const float* scale = constants + kScale * D;
  const uint pairs = value ? 0 : p.pairs;
  // A lane takes both elements of a pair, then elements that RoPE leaves alone.
  for (uint i = lane; i < pairs; i += 32) {
    const float2 taken = centred ? float2(mean[i], mean[i + pairs]) : float2(0.0f);
    float2 turned = apply_rope(float2(x[i], x[i + pairs]) - taken, angles[token * pairs + i]);
    if (centred) turned *= scale[i];
    z[i] = sanitize(turned.x);
    z[i + pairs] = sanitize(turned.y);
  }
  for (uint i = 2 * pairs + lane; i < D; i += 32) z[i] = sanitize(centred ? (x[i] - mean[i]) * scale[i] : x[i]);
  simdgroup_barrier(mem_flags::mem_threadgroup);
  const uint f = value ? kValueFormat : kKeyFormat;
  if (is_rotated(f)) rotate<D>(z, rotation, p.norm, lane);

  const uint slot = slots[token] & ((1u << kBlockShift) - 1u);
  device uchar* record = cache + (ulong(slots[token] >> kBlockShift) * kKvHeads + head) * Record<D>::bytes();
  device uchar* plane = record + (value ? Record<D>::values() : 0u);
  device uchar* scales = record + (value ? Record<D>::value_scales() : Record<D>::key_scales()) +
                         (is_scaled(f) ? scale_at(slot) : slot) * scale_bytes<D>(f);
  quantize<D>(f, z, codes, s_points + (value ? kMostPoints : 0u), (threadgroup PathMemory*)s_paths + sg,
              (device half*)scales, lane);
  const uint bits = main_bits(f);
  Picker main;
  main.codes = codes;
  main.f = f;
  main.shift = 0;
  main.mask = (1u << bits) - 1u;
  if (bits == 16) store_plane<D, 16>(value, main, plane, slot, lane);
  if (bits == 8) store_plane<D, 8>(value, main, plane, slot, lane);
  if (bits == 5) store_plane<D, 5>(value, main, plane, slot, lane);
  if (bits == 4) store_plane<D, 4>(value, main, plane, slot, lane);
  if (bits == 2) store_plane<D, 2>(value, main, plane, slot, lane);
  if (has_top_plane(f)) {
    main.shift = bits;
    main.mask = 1;
    store_plane<D, 1>(value, main, plane + main_plane<D>(f), slot, lane);
  }
}
#define WRITE(D) template [[host_name("write_d" #D)]] [[kernel]] decltype(write<D>) write<D>;
FOR_HEAD_DIMS(WRITE)
