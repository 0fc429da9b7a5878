// Part of msl_common.h: math on float, half, bfloat, and element-wise on vectors.
#pragma once
namespace metal {
#define F1(name, impl)                                       \
  MSL_HD float name(float x) { return impl; }                \
  MSL_HD half name(half h) {                                 \
    float x = (float)h;                                      \
    return half(impl);                                       \
  }                                                          \
  MSL_HD bfloat name(bfloat h) {                             \
    float x = (float)h;                                      \
    return bfloat(impl);                                     \
  }                                                          \
  template <class A, class = msl_enable<vt<A>::v>>           \
  MSL_HD vec<typename vt<A>::E, vt<A>::n> name(const A& a) { \
    vec<typename vt<A>::E, vt<A>::n> v = a, r;               \
    for (int i = 0; i < vt<A>::n; i++) r[i] = name(v[i]);    \
    return r;                                                \
  }
namespace precise {
F1(exp, ::expf(x))
F1(exp2, ::exp2f(x)) F1(log, ::logf(x)) F1(log2, ::log2f(x)) F1(rsqrt, 1.0f / ::sqrtf(x)) F1(sqrt, ::sqrtf(x))
    F1(tanh, ::tanhf(x)) F1(sin, ::sinf(x)) F1(cos, ::cosf(x)) F1(recip, 1.0f / x) MSL_HD
    float divide(float a, float b) {
  return a / b;
}
MSL_HD float pow(float a, float b) { return ::powf(a, b); }
}  // namespace precise
F1(exp, MSL_EXP(x))
F1(exp2, MSL_EXP2(x)) F1(log, MSL_LOG(x)) F1(log2, MSL_LOG2(x)) F1(rsqrt, MSL_RSQRT(x)) F1(sqrt, ::sqrtf(x))
    F1(tanh, ::tanhf(x)) F1(sin, ::sinf(x)) F1(cos, ::cosf(x)) F1(floor, ::floorf(x)) F1(ceil, ::ceilf(x))
        F1(rint, ::rintf(x)) F1(round, ::roundf(x)) F1(trunc, ::truncf(x)) F1(fabs, ::fabsf(x)) F1(abs, ::fabsf(x))
            F1(sign, (x > 0   ? 1.0f
                      : x < 0 ? -1.0f
                              : 0.0f)) F1(fract, x - ::floorf(x)) F1(saturate, ::fminf(::fmaxf(x, 0.0f), 1.0f))
                F1(erf, ::erff(x)) namespace fast {
  using metal::cos;
  using metal::exp;
  using metal::exp2;
  using metal::log;
  using metal::log2;
  using metal::rsqrt;
  using metal::sin;
  using metal::sqrt;
  using metal::tanh;
  MSL_HD float divide(float a, float b) { return a / b; }
  MSL_HD float pow(float a, float b) { return ::powf(a, b); }
}
MSL_HD float pow(float a, float b) { return ::powf(a, b); }
MSL_HD float fma(float a, float b, float c) { return ::fmaf(a, b, c); }
MSL_HD half fma(half a, half b, half c) { return half(::fmaf((float)a, (float)b, (float)c)); }
template <class T, int N>
MSL_HD vec<T, N> fma(const vec<T, N>& a, const vec<T, N>& b, const vec<T, N>& c) {
  vec<T, N> r;
  for (int i = 0; i < N; i++) r[i] = fma(a[i], b[i], c[i]);
  return r;
}
MSL_HD bool isnan(float x) { return x != x; }
MSL_HD bool isinf(float x) { return ::fabsf(x) == INFINITY; }
MSL_HD bool isfinite(float x) { return ::fabsf(x) < INFINITY; }
MSL_HD int abs(int x) { return x < 0 ? -x : x; }
template <class T, class = msl_enable<msl_is_scalar<T>::value>>
MSL_HD T min(T a, T b) {
  return b < a ? b : a;
}
template <class T, class = msl_enable<msl_is_scalar<T>::value>>
MSL_HD T max(T a, T b) {
  return a < b ? b : a;
}
MSL_HD float min(float a, float b) { return ::fminf(a, b); }
MSL_HD float max(float a, float b) { return ::fmaxf(a, b); }
template <class T, class = msl_enable<msl_is_flt<T>::value>>
MSL_HD T fmin(T a, T b) {
  return b < a ? b : a;
}
template <class T, class = msl_enable<msl_is_flt<T>::value>>
MSL_HD T fmax(T a, T b) {
  return a < b ? b : a;
}
template <class T, class = msl_enable<msl_is_scalar<T>::value>>
MSL_HD T clamp(T x, T a, T b) {
  return min(max(x, a), b);
}
template <class T, int N>
MSL_HD vec<T, N> min(const vec<T, N>& a, const vec<T, N>& b) {
  vec<T, N> r;
  for (int i = 0; i < N; i++) r[i] = min(a[i], b[i]);
  return r;
}
template <class T, int N>
MSL_HD vec<T, N> max(const vec<T, N>& a, const vec<T, N>& b) {
  vec<T, N> r;
  for (int i = 0; i < N; i++) r[i] = max(a[i], b[i]);
  return r;
}
template <class T, int N>
MSL_HD vec<T, N> clamp(const vec<T, N>& x, const vec<T, N>& a, const vec<T, N>& b) {
  return min(max(x, a), b);
}
template <class T, class B>
MSL_HD T select(T a, T b, B c) {
  return c ? b : a;
}
template <class T, int N>
MSL_HD vec<T, N> select(const vec<T, N>& a, const vec<T, N>& b, const vec<bool, N>& c) {
  vec<T, N> r;
  for (int i = 0; i < N; i++) r[i] = c[i] ? b[i] : a[i];
  return r;
}
template <class A, class B, class = typename vb<A, B>::V>
MSL_HD typename vt<A>::E dot(const A& a_, const B& b_) {
  vec<typename vt<A>::E, vt<A>::n> a = a_, b = b_;
  typename vt<A>::E s = a[0] * b[0];
  for (int i = 1; i < vt<A>::n; i++) s = s + a[i] * b[i];
  return s;
}
MSL_HD uint popcount(uint x) { return MSL_POPC(x); }
MSL_HD uint clz(uint x) { return x ? MSL_CLZ(x) : 32; }
MSL_HD uint ctz(uint x) { return x ? MSL_CTZ(x) : 32; }
MSL_HD uint reverse_bits(uint x) {
  uint r = 0;
  for (int i = 0; i < 32; i++) r |= ((x >> i) & 1u) << (31 - i);
  return r;
}
MSL_HD uint extract_bits(uint x, uint o, uint n) { return n ? (x >> o) & (n == 32 ? ~0u : (1u << n) - 1u) : 0; }
MSL_HD uint insert_bits(uint b, uint v, uint o, uint n) {
  uint m = (n == 32 ? ~0u : (1u << n) - 1u) << o;
  return (b & ~m) | ((v << o) & m);
}
MSL_HD uint mulhi(uint a, uint b) { return (uint)(((uint64_t)a * b) >> 32); }
MSL_HD vec<float, 4> unpack_unorm4x8_to_float(uint u) {
  return vec<float, 4>((u & 255) / 255.0f, (u >> 8 & 255) / 255.0f, (u >> 16 & 255) / 255.0f, (u >> 24) / 255.0f);
}
template <class T>
struct numeric_limits;
#define NL(T, lo, hi)                                 \
  template <>                                         \
  struct numeric_limits<T> {                          \
    MSL_HD static constexpr T max() { return hi; }    \
    MSL_HD static constexpr T lowest() { return lo; } \
    MSL_HD static constexpr T min() { return lo; }    \
  };
NL(int, (-2147483647 - 1), 2147483647)
NL(uint, 0u, 4294967295u) NL(ushort, 0, 65535) NL(uchar, 0, 255)
#undef NL
    template <>
    struct numeric_limits<float> {
  MSL_HD static constexpr float max() { return 3.402823466e38f; }
  MSL_HD static constexpr float lowest() { return -3.402823466e38f; }
  MSL_HD static constexpr float infinity() { return __builtin_huge_valf(); }
};
#ifndef M_PI_F
#define M_PI_F 3.14159265358979323846f
#endif
#ifndef FLT_MAX
#define FLT_MAX 3.402823466e38f
#endif
}  // namespace metal
