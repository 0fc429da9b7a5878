// What would cost a decode step dispatches and passes over activations: residual + RMSNorm, a gate x another row, RoPE, the largest logits.
#include "vectors.h"

// Sum over a threadgroup of whole simdgroups; every thread gets it.
inline float group_sum(float x, threadgroup float* s, uint sg, uint groups, uint lane) {
  x = simd_sum(x);
  if (lane == 0) s[sg] = x;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  float sum = 0.0f;
  for (uint i = 0; i < groups; i++) sum += s[i];
  return sum;
}

struct NormParams {
  uint width;
  uint add;  // whether delta is added to x, and the sum kept
  float eps;
};

// out = weight sum / rms(sum) with sum = x + delta, or x alone. Threadgroup: a row.
template <class T>
kernel void add_rms_norm(device const T* x [[buffer(0)]],
                         device const T* delta [[buffer(1)]],
                         device const T* weight [[buffer(2)]],
                         device T* sum [[buffer(3)]],
                         device T* out [[buffer(4)]],
                         constant NormParams& p [[buffer(5)]],
                         uint row [[threadgroup_position_in_grid]],
                         uint sg [[simdgroup_index_in_threadgroup]],
                         uint groups [[simdgroups_per_threadgroup]],
                         uint lane [[thread_index_in_simdgroup]],
                         uint tid [[thread_index_in_threadgroup]]) {
  threadgroup float s_sum[32];
  const ulong start = ulong(row) * p.width;
  float square = 0.0f;
  for (uint i = tid; i < p.width; i += groups * 32) {
    float r = load_float(x + start + i);
    if (p.add) {
      store_float(sum + start + i, r + load_float(delta + start + i));
      r = load_float(sum + start + i);
    }
    square = fma(r, r, square);
  }
  const float scale = rsqrt(group_sum(square, s_sum, sg, groups, lane) / float(p.width) + p.eps);
  for (uint i = tid; i < p.width; i += groups * 32) {
    const float r = p.add ? load_float(sum + start + i) : load_float(x + start + i);
    store_float(out + start + i, r * scale * load_float(weight + i));
  }
}

struct GateParams {
  uint count;
  uint silu;  // silu of the gate, else its sigmoid
};

// out = silu(gate) x, or sigmoid(gate) x.
template <class T>
kernel void gate_mul(device const T* gate [[buffer(0)]],
                     device const T* x [[buffer(1)]],
                     device T* out [[buffer(2)]],
                     constant GateParams& p [[buffer(3)]],
                     uint i [[thread_position_in_grid]]) {
  if (i >= p.count) return;
  const float g = load_float(gate + i);
  store_float(out + i, (p.silu ? g : 1.0f) / (1.0f + exp(-g)) * load_float(x + i));
}

struct RopeParams {
  uint tokens;
  uint heads;     // of q
  uint kv_heads;  // of k
  uint head_dim;
  uint pairs;     // that turn
};

// Turns q [tokens][heads][head_dim] and k [tokens][kv_heads][head_dim], pairs (i, i + pairs), by cos and sin [tokens][pairs]; elements
// past the pairs are copied. A thread two elements.
template <class T>
kernel void rope(device const float* cosines [[buffer(0)]],
                 device const float* sines [[buffer(1)]],
                 device const T* q [[buffer(2)]],
                 device const T* k [[buffer(3)]],
                 device T* q_out [[buffer(4)]],
                 device T* k_out [[buffer(5)]],
                 constant RopeParams& p [[buffer(6)]],
                 uint i [[thread_position_in_grid]]) {
  const uint all = p.heads + p.kv_heads, pairs = p.head_dim / 2, pair = i % pairs, head = i / pairs % all, token = i / pairs / all;
  if (token >= p.tokens) return;
  const bool of_q = head < p.heads;
  const ulong start = (of_q ? ulong(token) * p.heads + head : ulong(token) * p.kv_heads + head - p.heads) * p.head_dim;
  device const T* x = (of_q ? q : k) + start;
  device T* out = (of_q ? q_out : k_out) + start;
  const bool turns = pair < p.pairs;
  const uint first = turns ? pair : 2 * pair, second = turns ? pair + p.pairs : 2 * pair + 1;
  const float c = turns ? cosines[token * p.pairs + pair] : 1.0f, s = turns ? sines[token * p.pairs + pair] : 0.0f;
  const float a = load_float(x + first), b = load_float(x + second);
  store_float(out + first, turns ? a * c - b * s : a);
  store_float(out + second, turns ? b * c + a * s : b);
}

struct TopParams {
  uint width;  // candidates of a row
  uint count;  // wanted
  uint slice;  // candidates of a threadgroup: at most 16 a thread
};

constant constexpr uint kPerThread = 16;
constant constexpr uint kNowhere = 0xffffffffu;

// The larger of two candidates; of equal ones the lower index.
inline bool beats(float a, uint i, float b, uint j) { return a > b || (a == b && i < j); }

// The `count` largest of each slice of a row, in order. Threadgroup (slice, row). A second launch over the slices' winners, whose
// indices are then `from`, gives those of the row. NaN counts as the lowest value.
template <class T, bool First>
inline void largest(device const T* values, device const uint* from, device float* top, device uint* index, constant TopParams& p, threadgroup float* s_value,
                    threadgroup uint* s_index, uint2 tg, uint slices, uint sg, uint groups, uint lane, uint tid) {
  float x[kPerThread];
  uint at[kPerThread];
  const uint threads = groups * 32, begin = tg.x * p.slice, end = min(begin + p.slice, p.width);
  for (uint k = 0; k < kPerThread; k++) {
    const uint i = begin + k * threads + tid;
    const bool live = i < end;
    const float v = live ? load_float(values + ulong(tg.y) * p.width + i) : kNone;
    const bool nan = (as_type<uint>(v) & 0x7fffffffu) > 0x7f800000u;
    x[k] = nan ? kNone : clamp(v, kNone, -kNone);
    at[k] = live ? First ? i : from[ulong(tg.y) * p.width + i] : kNowhere;
  }
  for (uint n = 0; n < p.count; n++) {
    float best = kNone;
    uint where = kNowhere;
    for (uint k = 0; k < kPerThread; k++) {
      if (beats(x[k], at[k], best, where)) {
        best = x[k];
        where = at[k];
      }
    }
    for (ushort s = 16; s > 0; s >>= 1) {
      const float other = simd_shuffle_xor(best, s);
      const uint there = simd_shuffle_xor(where, s);
      if (beats(other, there, best, where)) {
        best = other;
        where = there;
      }
    }
    if (lane == 0) {
      s_value[sg] = best;
      s_index[sg] = where;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint g = 0; g < groups; g++) {
      if (beats(s_value[g], s_index[g], best, where)) {
        best = s_value[g];
        where = s_index[g];
      }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint k = 0; k < kPerThread; k++) {
      if (at[k] == where) {
        x[k] = kNone;
        at[k] = kNowhere;
      }
    }
    if (tid == 0) {
      const ulong to = (ulong(tg.y) * slices + tg.x) * p.count + n;
      top[to] = best;
      index[to] = where;
    }
  }
}
template <class T>
kernel void top_slices(device const T* logits [[buffer(0)]],
                       device float* top [[buffer(1)]],
                       device uint* index [[buffer(2)]],
                       constant TopParams& p [[buffer(3)]],
                       uint2 tg [[threadgroup_position_in_grid]],
                       uint2 grid [[threadgroups_per_grid]],
                       uint sg [[simdgroup_index_in_threadgroup]],
                       uint groups [[simdgroups_per_threadgroup]],
                       uint lane [[thread_index_in_simdgroup]],
                       uint tid [[thread_index_in_threadgroup]]) {
  threadgroup float s_value[32];
  threadgroup uint s_index[32];
  largest<T, true>(logits, (device const uint*)logits, top, index, p, s_value, s_index, tg, grid.x, sg, groups, lane, tid);
}
kernel void top_rows(device const float* values [[buffer(0)]],
                     device const uint* from [[buffer(1)]],
                     device float* top [[buffer(2)]],
                     device uint* index [[buffer(3)]],
                     constant TopParams& p [[buffer(4)]],
                     uint2 tg [[threadgroup_position_in_grid]],
                     uint2 grid [[threadgroups_per_grid]],
                     uint sg [[simdgroup_index_in_threadgroup]],
                     uint groups [[simdgroups_per_threadgroup]],
                     uint lane [[thread_index_in_simdgroup]],
                     uint tid [[thread_index_in_threadgroup]]) {
  threadgroup float s_value[32];
  threadgroup uint s_index[32];
  largest<float, false>(values, from, top, index, p, s_value, s_index, tg, grid.x, sg, groups, lane, tid);
}
#define HELPERS(T, NAME)                                                                                       \
  template [[host_name("add_rms_norm_" NAME)]] [[kernel]] decltype(add_rms_norm<T>) add_rms_norm<T>;           \
  template [[host_name("gate_mul_" NAME)]] [[kernel]] decltype(gate_mul<T>) gate_mul<T>;                       \
  template [[host_name("rope_" NAME)]] [[kernel]] decltype(rope<T>) rope<T>;                                   \
  template [[host_name("top_slices_" NAME)]] [[kernel]] decltype(top_slices<T>) top_slices<T>;
HELPERS(float, "f32")
HELPERS(half, "f16")
HELPERS(Bf16, "bf16")
