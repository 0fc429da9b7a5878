// Part of metal_shim.h.
#pragma once
namespace metal {
// simdgroup_matrix 8x8: 2 elements a lane. The layout is Apple-private; this one is only seen through
// thread_elements().
template <class T, int R, int C>
struct simdgroup_matrix {
  static_assert(R == 8 && C == 8, "8x8 only");
  T e[2];
  simdgroup_matrix() = default;
  explicit simdgroup_matrix(T v) { e[0] = e[1] = v; }
  vec<T, 2>& thread_elements() { return *(vec<T, 2>*)e; }
};
using simdgroup_float8x8 = simdgroup_matrix<float, 8, 8>;
using simdgroup_half8x8 = simdgroup_matrix<half, 8, 8>;
using simdgroup_bfloat8x8 = simdgroup_matrix<bfloat, 8, 8>;
MSL_HD uint msl_fm() {
  uint l = ::mslrt::lane();
  return ((l / 4) & 4) + (l / 2) % 4;
}
MSL_HD uint msl_fn() {
  uint l = ::mslrt::lane();
  return ((l / 4) & 2) * 2 + (l % 2) * 2;
}
template <class T, int R, int C>
inline simdgroup_matrix<T, R, C> make_filled_simdgroup_matrix(T v) {
  return simdgroup_matrix<T, R, C>(v);
}
template <class T, class P>
inline void simdgroup_load(simdgroup_matrix<T, 8, 8>& m, const P* p, ulong ld = 8, vec<ulong, 2> o = vec<ulong, 2>(0ul),
                           bool tr = false, SITE) {
  ::mslrt::converge(HERE("simdgroup_load"));
  for (uint k = 0; k < 2; k++) {
    uint r = msl_fm(), c = msl_fn() + k;
    m.e[k] = tr ? T(p[(o.y + c) * ld + o.x + r]) : T(p[(o.y + r) * ld + o.x + c]);
  }
}
template <class T, class P>
inline void simdgroup_store(const simdgroup_matrix<T, 8, 8>& m, P* p, ulong ld = 8,
                            vec<ulong, 2> o = vec<ulong, 2>(0ul), bool tr = false, SITE) {
  ::mslrt::converge(HERE("simdgroup_store"));
  for (uint k = 0; k < 2; k++) {
    uint r = msl_fm(), c = msl_fn() + k;
    if (tr)
      p[(o.y + c) * ld + o.x + r] = P(m.e[k]);
    else
      p[(o.y + r) * ld + o.x + c] = P(m.e[k]);
  }
}
// a b + c of a simdgroup, once all lanes have met, from six floats of each: its elements of a, b and c. Each element adds
// its eight products to c's in order of k.
MSL_NI inline void msl_mma_all(::mslrt::Rv& r) {
  float a[8][8], b[8][8], d[8][8];
  for (uint l = 0; l < 32; l++) {
    const float* s = (const float*)r.slots[l];
    const uint m = ((l / 4) & 4) + (l / 2) % 4, n = ((l / 4) & 2) * 2 + (l % 2) * 2;
    for (uint k = 0; k < 2; k++) {
      a[m][n + k] = s[k];
      b[m][n + k] = s[2 + k];
      d[m][n + k] = s[4 + k];
    }
  }
  for (uint m = 0; m < 8; m++) {
    for (uint k = 0; k < 8; k++) {
      for (uint n = 0; n < 8; n++) d[m][n] += a[m][k] * b[k][n];
    }
  }
  memcpy(r.result, d, sizeof d);
}
template <class D, class A, class B, class CC>
MSL_NI void msl_mma(D& d, const A& a, const B& b, const CC& c, const char* file, int line) {
  float v[6] = {(float)a.e[0], (float)a.e[1], (float)b.e[0], (float)b.e[1], (float)c.e[0], (float)c.e[1]};
  ::mslrt::Rv r = ::mslrt::rendezvous(v, sizeof v, {"simdgroup_multiply_accumulate", file, line}, msl_mma_all);
  const float* all = (const float*)r.result;
  for (uint k = 0; k < 2; k++) d.e[k] = decltype(d.e[k] + d.e[k])(all[8 * msl_fm() + msl_fn() + k]);
}
template <class D, class A, class B, class CC>
inline void simdgroup_multiply_accumulate(simdgroup_matrix<D, 8, 8>& d, const simdgroup_matrix<A, 8, 8>& a,
                                          const simdgroup_matrix<B, 8, 8>& b, const simdgroup_matrix<CC, 8, 8>& c,
                                          SITE) {
  msl_mma(d, a, b, c, file, line);
}
template <class D, class A, class B>
inline void simdgroup_multiply(simdgroup_matrix<D, 8, 8>& d, const simdgroup_matrix<A, 8, 8>& a,
                               const simdgroup_matrix<B, 8, 8>& b, SITE) {
  simdgroup_matrix<D, 8, 8> z(D(0));
  msl_mma(d, a, b, z, file, line);
}
}  // namespace metal
