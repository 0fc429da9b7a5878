// 8 query columns of a simdgroup against 8 U tokens an iteration: S^T = K Q^T, O^T = V^T P^T, tokens being rows. A
// lane's two scores are of one token and two columns, its two outputs of one dim and the same columns, so that the
// score tile, once exponentiated, is the right operand of the second product as it lies. Nothing of a column depends on
// another column.
#pragma once
#include "attend/columns.h"
#include "attend/decode.h"
#include "attend/matrix.h"

// What a lane's two columns see: positions from `first` to below `end`.
struct Sight {
  uint2 first, end;
  INLINE bool at(uint k, uint t) const { return t < end[k] && (!kWindowed || t >= first[k]); }
};
INLINE Sight sight_of(Tile tile, uint column, constant AttendParams& p) {
  Sight s;
  UNROLL for (uint k = 0; k < 2; k++) {
    const uint row = (column + k) / kGqaGroup, end = tile.position + row + 1;
    s.end[k] = row < tile.rows ? end : 0u;
    s.first[k] = kWindowed && end > p.window ? end - p.window : 0u;
  }
  return s;
}

// 1 over the scale of V that P is relative to when none was seen, and by how much another may exceed it before it is
// moved: P stays below 2^kGrowth kSlack, which half holds.
constant constexpr float kUnseen = 1.0e30f;
constant constexpr float kSlack = 2.0f;

template <int D>
struct Columns {
  static constant constexpr int J = D / 8;
  simdgroup_half8x8 q[J];
  simdgroup_float8x8 acc[J];
  float2 m, sum, vinv;  // weights are relative to m, P to V's scale times 1 / vinv, both close to the largest yet seen

  INLINE void clear() {
    m = float2(kStart);
    sum = float2(0.0f);
    vinv = float2(kUnseen);
    UNROLL for (int j = 0; j < J; j++) acc[j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
  }
  INLINE void load(device const uint* queries, Place l) {
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
  static INLINE void scale(thread simdgroup_float8x8* s, thread const float* f) {
    UNROLL for (int u = 0; u < U; u++) {
      elements(s[u])[0] *= f[u];
      elements(s[u])[1] *= f[u];
    }
  }
  // What of an iteration may move m or vinv: the largest logit and scale of V that a lane's columns see.
  struct Top {
    float2 logit, scale;
  };
  // The largest of U 8-token groups; logits that are not seen become kNone. t: position of the lane's row in tile 0.
  // Masked: whether some column does not see some token; where all do, both give the same, and `sight` does not count.
  template <int U, bool Masked>
  INLINE Top top_of(thread simdgroup_float8x8* s, thread const float* vs, Sight sight, uint t) const {
    Top top;
    top.logit = m;
    top.scale = float2(0.0f);
    UNROLL for (int u = 0; u < U; u++) {
      const bool a = !Masked || sight.at(0, t + 8 * u), b = !Masked || sight.at(1, t + 8 * u);
      thread float2& e = elements(s[u]);
      e = float2(a ? e.x : kNone, b ? e.y : kNone);
      top.logit = float2(max(top.logit.x, e.x), max(top.logit.y, e.y));
      if (is_scaled(kValueFormat))
        top.scale = float2(a ? max(top.scale.x, vs[u]) : top.scale.x, b ? max(top.scale.y, vs[u]) : top.scale.y);
    }
    top.scale *= vinv;
    return top;
  }
  INLINE bool moves(Top top) const {
    return top.logit.x > m.x + kGrowth || top.logit.y > m.y + kGrowth ||
           (is_scaled(kValueFormat) && (top.scale.x > kSlack || top.scale.y > kSlack));
  }
  // Moves m and vinv to `top`. Columns that need not move stay as they are.
  INLINE void move(Top top, Place l) {
    float2 to = float2(row_max(top.logit.x, l), row_max(top.logit.y, l));
    to = float2(to.x > m.x + kGrowth ? to.x : m.x, to.y > m.y + kGrowth ? to.y : m.y);
    float2 f = float2(fast::exp2(m.x - to.x), fast::exp2(m.y - to.y));
    m = to;
    sum *= f;
    if (is_scaled(kValueFormat)) {
      const float2 scale = float2(row_max(top.scale.x, l), row_max(top.scale.y, l));
      const float2 g = float2(scale.x > kSlack ? 1.0f / scale.x : 1.0f, scale.y > kSlack ? 1.0f / scale.y : 1.0f);
      vinv *= g;
      f *= g;
    }
    UNROLL for (int j = 0; j < J; j++) {
      elements(acc[j])[0] *= f.x;
      elements(acc[j])[1] *= f.y;
    }
  }
  // Logits to weights, in `w`.
  template <int U, bool Masked>
  INLINE void weigh(thread simdgroup_float8x8* s, thread const float* vs, thread simdgroup_half8x8* w) {
    UNROLL for (int u = 0; u < U; u++) {
      const float2 e = elements(s[u]);
      float2 x = float2(fast::exp2(e.x - m.x), fast::exp2(e.y - m.y));
      sum += x;
      if (is_scaled(kValueFormat)) {
        const float2 p = x * (vinv * vs[u]);
        x = Masked ? float2(x.x > 0.0f ? p.x : 0.0f, x.y > 0.0f ? p.y : 0.0f)
                   : p;  // a slot never written has any scale
      }
      w[u] = tile_of(half2(x));
    }
  }
  // Multiplies acc at the end.
  INLINE float2 back() const {
    return is_scaled(kValueFormat) ? float2(unit_of(kValueFormat) / vinv.x, unit_of(kValueFormat) / vinv.y)
                                   : float2(unit_of(kValueFormat));
  }
};

// Logits of C column octets from `octet` on, of an iteration at `base`, to weights. All move together, if one does.
template <int U, bool Masked, int D, int C>
INLINE void weigh_masked(thread Columns<D> (&x)[C],
                         thread simdgroup_float8x8 (&s)[C][U],
                         thread const float* vs,
                         Tile tile,
                         uint octet,
                         uint base,
                         constant AttendParams& p,
                         Place l,
                         thread simdgroup_half8x8 (&w)[C][U]) {
  typename Columns<D>::Top top[C];
  bool moves = false;
  UNROLL for (int b = 0; b < C; b++) {
    top[b] = x[b].template top_of<U, Masked>(s[b], vs, Masked ? sight_of(tile, (octet + b) * 8 + 2 * l.c, p) : Sight(),
                                             base + l.r);
    moves = moves || x[b].moves(top[b]);
  }
  if (simd_any(moves)) {
    UNROLL for (int b = 0; b < C; b++) x[b].move(top[b], l);
  }
  UNROLL for (int b = 0; b < C; b++) x[b].template weigh<U, Masked>(s[b], vs, w[b]);
}
template <int U, int D, int C>
INLINE void weigh_octets(thread Columns<D> (&x)[C],
                         thread simdgroup_float8x8 (&s)[C][U],
                         thread const float* vs,
                         Tile tile,
                         uint octet,
                         uint base,
                         constant AttendParams& p,
                         Place l,
                         thread simdgroup_half8x8 (&w)[C][U]) {
  if (all_see(tile, base, 8 * U, p)) {
    weigh_masked<U, false>(x, s, vs, tile, octet, base, p, l, w);
  } else {
    weigh_masked<U, true>(x, s, vs, tile, octet, base, p, l, w);
  }
}
