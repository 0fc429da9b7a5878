// 8 query columns of a simdgroup against steps of 8 U tokens: S^T = K Q^T, O^T = V^T P^T, tokens being rows. A lane's two scores are of
// one token and two columns, its two outputs of one dim and the same columns, so that the score tile, once exponentiated, is the right
// operand of the second product as it lies. Nothing of a column depends on another column.
#pragma once
#include "columns.h"
#include "decode.h"
#include "matrix.h"

// What a lane's two columns see: positions below `end`, and not below `first` but for the tile's sinks.
struct Sight {
  uint2 first, end;
  uint sinks;
  inline bool at(uint k, uint t) const { return t < end[k] && (!kWindowed || t >= first[k] || t < sinks); }
};
inline Sight sight_of(Tile tile, uint column, constant AttendParams& p) {
  Sight s;
  s.sinks = tile.sinks;
  UNROLL for (uint k = 0; k < 2; k++) {
    const uint row = (column + k) / p.group, end = tile.position + row + 1;
    s.end[k] = row < tile.rows ? end : 0u;
    s.first[k] = kWindowed && end > p.window ? end - p.window : 0u;
  }
  return s;
}

// 1 over the scale of V that P is relative to when none was seen, and by how much another may exceed it before it is moved: P stays
// below 2^kGrowth kSlack, which half holds.
constant constexpr float kUnseen = 1.0e30f;
constant constexpr float kSlack = 2.0f;

template <int D>
struct Columns {
  static constant constexpr int J = D / 8;
  simdgroup_half8x8 q[J];
  simdgroup_float8x8 acc[J];
  float2 m, sum, vinv;  // weights are relative to m, P to V's scale times 1 / vinv, both close to the largest yet seen

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
  // Logits of U tiles to weights, in `w`; t: position of the lane's row in tile 0. Masked: whether some column does not see some token;
  // where all do, both give the same, and `sight` does not count.
  template <int U, bool Masked>
  inline void weigh(thread simdgroup_float8x8* s, thread const float* vs, Sight sight, uint t, Place l, thread simdgroup_half8x8* w) {
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

// Logits of C blocks from `block` on, of a step at `base`, to weights.
template <int U, int D, int C>
inline void weigh_blocks(thread Columns<D> (&x)[C], thread simdgroup_float8x8 (&s)[C][U], thread const float* vs, Tile tile, uint block, uint base,
                         constant AttendParams& p, Place l, thread simdgroup_half8x8 (&w)[C][U]) {
  if (all_see(tile, base, 8 * U, p)) {
    UNROLL for (int b = 0; b < C; b++) x[b].template weigh<U, false>(s[b], vs, Sight(), base + l.r, l, w[b]);
  } else {
    UNROLL for (int b = 0; b < C; b++) x[b].template weigh<U, true>(s[b], vs, sight_of(tile, (block + b) * 8 + 2 * l.c, p), base + l.r, l, w[b]);
  }
}
