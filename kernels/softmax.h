// 8 query columns of a simdgroup against steps of 8 U tokens: S^T = K Q^T, O^T = V^T P^T, tokens being rows. A lane's two scores are of
// one token and two columns, its two outputs of one dim and the same columns, so that the score tile, once exponentiated, is the right
// operand of the second product as it lies. Nothing of a column depends on another column.
#pragma once
#include "columns.h"
#include "decode.h"
#include "matrix.h"

// What a lane's two columns see: positions below `end`, and not below `first` but for the tile's sinks.
struct Sight {
  uint2 row, head;  // of the tile, of the kv head
  uint2 first, end;
  uint sinks;
  inline bool at(uint k, uint t) const { return t < end[k] && (!kWindowed || t >= first[k] || t < sinks); }
};
inline Sight sight_of(Tile tile, uint column, constant AttendParams& p) {
  Sight s;
  s.sinks = tile.sinks;
  UNROLL for (uint k = 0; k < 2; k++) {
    const uint row = (column + k) / p.group, end = tile.position + row + 1;
    s.row[k] = row;
    s.head[k] = (column + k) % p.group;
    s.end[k] = row < tile.rows ? end : 0u;
    s.first[k] = kWindowed && end > p.window ? end - p.window : 0u;
  }
  return s;
}

// 1 over the scale of V that P is relative to when none was seen, and by how much another may exceed it before it is moved: P stays
// below 2^kGrowth kSlack, which half holds.
constant constexpr float kUnseen = 1.0e30f;
constant constexpr float kSlack = 2.0f;

// The parabola's left operand: columns 1, u, u^2, 1, u, u^2, 0, 0 for u from the middle of 32 tokens, exact in half. A lane's pair of
// columns is a u^2 + b u + c.
struct Powers {
  half2 a, b, c;
  inline half2 at(float u) const {
    const half2 x = half2(half(u));
    return fma(fma(a, x, b), x, c);
  }
};
inline Powers powers_of(Place l) {
  const half2 none = half2(half(0)), left = half2(half(1), half(0)), right = half2(half(0), half(1));
  Powers p;
  p.a = l.c == 1 ? left : l.c == 2 ? right : none;
  p.b = l.c == 0 ? right : l.c == 2 ? left : none;
  p.c = l.c == 0 ? left : l.c == 1 ? right : none;
  return p;
}

template <int D>
struct Columns {
  static constant constexpr int J = D / 8;
  simdgroup_half8x8 q[J];
  simdgroup_float8x8 acc[J];
  float2 m, sum, vinv;  // weights are relative to m, P to V's scale times 1 / vinv, both close to the largest yet seen
  Sight sight;

  inline void clear() {
    m = float2(kStart);
    sum = float2(0.0f);
    vinv = float2(kUnseen);
    UNROLL for (int j = 0; j < J; j++) acc[j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
  }
  inline void load(device const uint* queries, Place l) {
    device const uint4* from = (device const uint4*)queries + (l.r * 4 + l.c) * J / 4;
    if (J % 4 == 0) {
      UNROLL for (int j = 0; j < J / 4; j++) {
        const uint4 x = from[j];
        UNROLL for (int i = 0; i < 4; i++) q[j * 4 + i] = tile_of(as_type<half2>(x[i]));
      }
    } else {
      UNROLL for (int j = 0; j < J; j++) q[j] = tile_of(as_type<half2>(queries[(l.r * 4 + l.c) * J + j]));
    }
  }

  // Scores to logits, base 2. f: of each tile's scores.
  template <int U>
  static inline void scale(thread simdgroup_float8x8* s, thread const float* f) {
    UNROLL for (int u = 0; u < U; u++) {
      elements(s[u])[0] *= f[u];
      elements(s[u])[1] *= f[u];
    }
  }
  // Adds what the logits of U tiles lack. offset: of the first tile from the partition's start, in 8 tokens.
  template <int U>
  inline void missing(thread simdgroup_float8x8* s, device const float* follow, device const uint* fast, device const float2* turns, uint offset, Powers powers, Place l) {
    const float4 a = ((device const float4*)follow)[l.r * 4 + l.c];
    const float2 t = turns[offset * 8 + l.r];
    const float2 of_cos = float2(a.x * t.x + a.z * t.y, a.y * t.x + a.w * t.y), of_sin = float2(a.z * t.x - a.x * t.y, a.w * t.x - a.y * t.y);
    const half2 c = half2(of_cos), d = half2(of_sin);
    const simdgroup_half8x8 cos_high = tile_of(c), cos_low = tile_of(half2(of_cos - float2(c)));
    const simdgroup_half8x8 sin_high = tile_of(d), sin_low = tile_of(half2(of_sin - float2(d)));
    // Rows 0 to 2 of the parabola's operand: high parts of its coefficients; 3 to 5: low parts.
    const uint k = l.r % 3;
    float2 y = float2(0.0f);
    if (l.r < 6) y = ((device const float2*)(follow + kFastFloats + offset / 4 * 24 + k * 8))[l.c];
    const half2 high = half2(y);
    const simdgroup_half8x8 parabola = tile_of(l.r < 3 ? high : half2(y - float2(high)));
    const float first = float(offset % 4 * 8 + l.r) - 15.5f;
    UNROLL for (int u = 0; u < U; u += 2) {
      const uint4 f = ((device const uint4*)fast)[u * 32 + l.r * 4 + l.c], g = ((device const uint4*)fast)[u * 32 + 32 + l.r * 4 + l.c];
      const simdgroup_half8x8 c0 = tile_of(as_type<half2>(f.x)), c1 = tile_of(as_type<half2>(f.y));
      const simdgroup_half8x8 s0 = tile_of(as_type<half2>(f.z)), s1 = tile_of(as_type<half2>(f.w));
      mma_2x2(s[u], s[u + 1], c0, c1, cos_high, s0, s1, sin_high);
      mma_2x2(s[u], s[u + 1], c0, c1, cos_low, s0, s1, sin_low);
      mma_2x2(s[u], s[u + 1], tile_of(as_type<half2>(g.x)), tile_of(as_type<half2>(g.y)), cos_high, tile_of(as_type<half2>(g.z)), tile_of(as_type<half2>(g.w)),
              sin_high);
      mma_2x1(s[u], s[u + 1], tile_of(powers.at(first + float(8 * u))), tile_of(powers.at(first + float(8 * u + 8))), parabola);
    }
  }
  // Logits of U tiles to weights, in `w`; t: position of the lane's row in tile 0. Masked: whether some column does not see some token;
  // where all do, both give the same.
  template <int U, bool Masked>
  inline void weigh(thread simdgroup_float8x8* s, thread const float* vs, uint t, Place l, thread simdgroup_half8x8* w) {
    float2 e[U], top = m, vtop = float2(0.0f);
    UNROLL for (int u = 0; u < U; u++) {
      const bool a = !Masked || sight.at(0, t + 8 * u), b = !Masked || sight.at(1, t + 8 * u);
      const float2 y = elements(s[u]);
      e[u] = float2(a ? y.x : kNone, b ? y.y : kNone);
      top = float2(max(top.x, e[u].x), max(top.y, e[u].y));
      if (is_scaled(kValueFormat)) vtop = float2(a ? max(vtop.x, vs[u]) : vtop.x, b ? max(vtop.y, vs[u]) : vtop.y);
    }
    vtop = vtop * vinv;
    if (simd_any(top.x > m.x + kGrowth || top.y > m.y + kGrowth || (is_scaled(kValueFormat) && (vtop.x > kSlack || vtop.y > kSlack)))) {
      top = float2(row_max(top.x, l), row_max(top.y, l));
      top = float2(top.x > m.x + kGrowth ? top.x : m.x, top.y > m.y + kGrowth ? top.y : m.y);
      float2 f = float2(fast::exp2(m.x - top.x), fast::exp2(m.y - top.y));
      m = top;
      sum *= f;
      if (is_scaled(kValueFormat)) {
        vtop = float2(row_max(vtop.x, l), row_max(vtop.y, l));
        const float2 g = float2(vtop.x > kSlack ? 1.0f / vtop.x : 1.0f, vtop.y > kSlack ? 1.0f / vtop.y : 1.0f);
        vinv *= g;
        f *= g;
      }
      UNROLL for (int j = 0; j < J; j++) {
        elements(acc[j])[0] *= f.x;
        elements(acc[j])[1] *= f.y;
      }
    }
    UNROLL for (int u = 0; u < U; u++) {
      float2 x = float2(fast::exp2(e[u].x - m.x), fast::exp2(e[u].y - m.y));
      sum += x;
      if (is_scaled(kValueFormat)) {
        const float2 p = x * (vinv * vs[u]);
        x = Masked ? float2(x.x > 0.0f ? p.x : 0.0f, x.y > 0.0f ? p.y : 0.0f) : p;  // a slot never written has any scale
      }
      w[u] = tile_of(half2(x));
    }
  }
  // Multiplies acc at the end.
  inline float2 back() const {
    return is_scaled(kValueFormat) ? float2(unit_of(kValueFormat) / vinv.x, unit_of(kValueFormat) / vinv.y) : float2(unit_of(kValueFormat));
  }
};
