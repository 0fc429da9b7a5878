// Types and functions of <metal_stdlib> shared by the CPU emulator and the CUDA shim.
// The including file defines MSL_HD (function qualifiers), metal::half, and includes <cstdint>,<cstring>.
// Everything lives in namespace metal; user text is compiled inside metal::user.
#pragma once
namespace metal {
using uint = unsigned int;
using ushort = unsigned short;
using uchar = unsigned char;
using ulong = unsigned long;
using int8_t = ::int8_t;
using uint8_t = ::uint8_t;
using int16_t = ::int16_t;
using uint16_t = ::uint16_t;
using int32_t = ::int32_t;
using uint32_t = ::uint32_t;
using int64_t = ::int64_t;
using uint64_t = ::uint64_t;

MSL_HD uint msl_f2u(float f) {
  uint u;
  memcpy(&u, &f, 4);
  return u;
}
MSL_HD float msl_u2f(uint u) {
  float f;
  memcpy(&f, &u, 4);
  return f;
}

// ---- a 16-bit float stored as bits, computing in float and rounding every result ----
#define MSL_SMALL_FLOAT(NAME, TO, FROM)                            \
  struct NAME {                                                    \
    ushort bits;                                                   \
    NAME() = default;                                              \
    template <class T, class = msl_enable<msl_is_arith<T>::value>> \
    MSL_HD NAME(T v) : bits(FROM((float)v)) {}                     \
    MSL_HD operator float() const { return TO(bits); }             \
  };
template <bool B, class T = void>
struct msl_enable_t {};
template <class T>
struct msl_enable_t<true, T> {
  using type = T;
};
template <bool B, class T = void>
using msl_enable = typename msl_enable_t<B, T>::type;
template <class T>
struct msl_is_arith {
  static constexpr bool value = false;
};
template <class T>
struct msl_is_flt {
  static constexpr bool value = false;
};
#define A_(T)                           \
  template <>                           \
  struct msl_is_arith<T> {              \
    static constexpr bool value = true; \
  };
A_(bool)
A_(char) A_(signed char) A_(unsigned char) A_(short) A_(unsigned short) A_(int) A_(unsigned) A_(long) A_(unsigned long)
    A_(long long) A_(unsigned long long) A_(float) A_(double)
#if !MSL_HALF_CLASS
        A_(half) template <>
        struct msl_is_flt<half> {
  static constexpr bool value = true;
};
#endif
#undef A_
template <>
struct msl_is_flt<float> {
  static constexpr bool value = true;
};
MSL_HD ushort msl_f2bf(float f) {
  uint u = msl_f2u(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return (ushort)((u >> 16) | 0x40);
  return (ushort)((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
}
MSL_HD float msl_bf2f(ushort b) { return msl_u2f((uint)b << 16); }
MSL_SMALL_FLOAT(bfloat, msl_bf2f, msl_f2bf)
#define MSL_SF_OPS(N)                                                   \
  template <>                                                           \
  struct msl_is_flt<N> {                                                \
    static constexpr bool value = true;                                 \
  };                                                                    \
  MSL_HD N operator+(N a, N b) { return N((float)a + (float)b); }       \
  MSL_HD N operator-(N a, N b) { return N((float)a - (float)b); }       \
  MSL_HD N operator*(N a, N b) { return N((float)a * (float)b); }       \
  MSL_HD N operator/(N a, N b) { return N((float)a / (float)b); }       \
  MSL_HD N operator-(N a) {                                             \
    N r;                                                                \
    r.bits = a.bits ^ 0x8000;                                           \
    return r;                                                           \
  }                                                                     \
  MSL_SF_MIX(N, +)                                                      \
  MSL_SF_MIX(N, -) MSL_SF_MIX(N, *) MSL_SF_MIX(N, /) template <class T> \
  MSL_HD N& operator+=(N& a, T b) {                                     \
    return a = N((float)a + (float)b);                                  \
  }                                                                     \
  template <class T>                                                    \
  MSL_HD N& operator-=(N& a, T b) {                                     \
    return a = N((float)a - (float)b);                                  \
  }                                                                     \
  template <class T>                                                    \
  MSL_HD N& operator*=(N& a, T b) {                                     \
    return a = N((float)a * (float)b);                                  \
  }
#define MSL_SF_MIX(N, op)                                               \
  MSL_HD float operator op(N a, float b) { return (float)a op b; }      \
  MSL_HD float operator op(float a, N b) { return a op(float) b; }      \
  MSL_HD N operator op(N a, int b) { return N((float)a op(float) b); }  \
  MSL_HD N operator op(int a, N b) { return N((float)a op(float) b); }  \
  MSL_HD N operator op(N a, uint b) { return N((float)a op(float) b); } \
  MSL_HD N operator op(uint a, N b) { return N((float)a op(float) b); }
MSL_SF_OPS(bfloat)
#if MSL_HALF_CLASS
MSL_SMALL_FLOAT(half, msl_h2f, msl_f2h)
MSL_SF_OPS(half)
#endif
template <class T>
struct msl_is_scalar {
  static constexpr bool value = msl_is_arith<T>::value || msl_is_flt<T>::value;
};

// ---- vectors with swizzles ----
template <class T, int N>
struct vec;
template <class T, int N, int... I>
struct swz {
  T d[N];
  MSL_HD operator vec<T, (int)sizeof...(I)>() const { return vec<T, (int)sizeof...(I)>(d[I]...); }
  MSL_HD swz& operator=(const vec<T, (int)sizeof...(I)>& v) {
    int k = 0;
    int u[] = {(d[I] = v[k++], 0)...};
    (void)u;
    return *this;
  }
  MSL_HD swz& operator=(const swz& o) { return *this = (vec<T, (int)sizeof...(I)>)o; }
  swz() = default;
  swz(const swz&) = default;
};
#define SW2(T, N, X, Y, a, b) \
  swz<T, N, a, b> X##Y;       \
  swz<T, N, b, a> Y##X;
template <class T>
struct alignas(2 * sizeof(T)) vec<T, 2> {
  union {
    struct {
      T x, y;
    };
    struct {
      T r, g;
    };
    T d[2];
    SW2(T, 2, x, y, 0, 1) swz<T, 2, 0, 0> xx;
    swz<T, 2, 1, 1> yy;
  };
  vec() = default;
  MSL_HD vec(const vec& o) {
    x = o.x;
    y = o.y;
  }
  MSL_HD vec& operator=(const vec& o) {
    x = o.x;
    y = o.y;
    return *this;
  }
  template <class S, class = msl_enable<msl_is_scalar<S>::value>>
  MSL_HD vec(S v) {
    x = y = T(v);
  }
  template <class A, class B, class = msl_enable<msl_is_scalar<A>::value && msl_is_scalar<B>::value>>
  MSL_HD vec(A a, B b) {
    x = T(a);
    y = T(b);
  }
  template <class U>
  MSL_HD explicit vec(const vec<U, 2>& o) {
    x = T(o.x);
    y = T(o.y);
  }
  MSL_HD T& operator[](int i) { return d[i]; }
  MSL_HD const T& operator[](int i) const { return d[i]; }
};
template <class T>
struct alignas(4 * sizeof(T)) vec<T, 3> {
  union {
    struct {
      T x, y, z;
    };
    struct {
      T r, g, b;
    };
    T d[3];
    SW2(T, 3, x, y, 0, 1) SW2(T, 3, y, z, 1, 2) SW2(T, 3, x, z, 0, 2) swz<T, 3, 0, 1, 2> xyz;
    swz<T, 3, 2, 1, 0> zyx;
  };
  vec() = default;
  MSL_HD vec(const vec& o) {
    x = o.x;
    y = o.y;
    z = o.z;
  }
  MSL_HD vec& operator=(const vec& o) {
    x = o.x;
    y = o.y;
    z = o.z;
    return *this;
  }
  template <class S, class = msl_enable<msl_is_scalar<S>::value>>
  MSL_HD vec(S v) {
    x = y = z = T(v);
  }
  template <class A, class B, class C,
            class = msl_enable<msl_is_scalar<A>::value && msl_is_scalar<B>::value && msl_is_scalar<C>::value>>
  MSL_HD vec(A a, B b, C c) {
    x = T(a);
    y = T(b);
    z = T(c);
  }
  MSL_HD vec(const vec<T, 2>& a, T c) {
    x = a.x;
    y = a.y;
    z = c;
  }
  template <class U>
  MSL_HD explicit vec(const vec<U, 3>& o) {
    x = T(o.x);
    y = T(o.y);
    z = T(o.z);
  }
  MSL_HD T& operator[](int i) { return d[i]; }
  MSL_HD const T& operator[](int i) const { return d[i]; }
};
template <class T>
struct alignas(4 * sizeof(T)) vec<T, 4> {
  union {
    struct {
      T x, y, z, w;
    };
    struct {
      T r, g, b, a;
    };
    T d[4];
    SW2(T, 4, x, y, 0, 1)
    SW2(T, 4, z, w, 2, 3) SW2(T, 4, x, z, 0, 2) SW2(T, 4, y, w, 1, 3) SW2(T, 4, y, z, 1, 2)
        SW2(T, 4, x, w, 0, 3) swz<T, 4, 0, 1, 2> xyz;
    swz<T, 4, 1, 2, 3> yzw;
    swz<T, 4, 0, 1, 2, 3> xyzw;
    swz<T, 4, 3, 2, 1, 0> wzyx;
  };
  vec() = default;
  MSL_HD vec(const vec& o) {
    x = o.x;
    y = o.y;
    z = o.z;
    w = o.w;
  }
  MSL_HD vec& operator=(const vec& o) {
    x = o.x;
    y = o.y;
    z = o.z;
    w = o.w;
    return *this;
  }
  template <class S, class = msl_enable<msl_is_scalar<S>::value>>
  MSL_HD vec(S v) {
    x = y = z = w = T(v);
  }
  template <class A, class B, class C, class D,
            class = msl_enable<msl_is_scalar<A>::value && msl_is_scalar<B>::value && msl_is_scalar<C>::value &&
                               msl_is_scalar<D>::value>>
  MSL_HD vec(A a, B b, C c, D d_) {
    x = T(a);
    y = T(b);
    z = T(c);
    w = T(d_);
  }
  MSL_HD vec(const vec<T, 2>& p, const vec<T, 2>& q) {
    x = p.x;
    y = p.y;
    z = q.x;
    w = q.y;
  }
  MSL_HD vec(const vec<T, 3>& p, T q) {
    x = p.x;
    y = p.y;
    z = p.z;
    w = q;
  }
  template <class U>
  MSL_HD explicit vec(const vec<U, 4>& o) {
    x = T(o.x);
    y = T(o.y);
    z = T(o.z);
    w = T(o.w);
  }
  MSL_HD T& operator[](int i) { return d[i]; }
  MSL_HD const T& operator[](int i) const { return d[i]; }
};
template <class T, int N>
struct packed_vec {
  T d[N];
  packed_vec() = default;
  MSL_HD packed_vec(const vec<T, N>& v) {
    for (int i = 0; i < N; i++) d[i] = v[i];
  }
  MSL_HD operator vec<T, N>() const {
    vec<T, N> r;
    for (int i = 0; i < N; i++) r[i] = d[i];
    return r;
  }
  MSL_HD T& operator[](int i) { return d[i]; }
  MSL_HD const T& operator[](int i) const { return d[i]; }
};
// traits that see through swizzles
template <class A>
struct vt {
  static constexpr bool v = false;
  using E = A;
  static constexpr int n = 1;
};
template <class T, int N>
struct vt<vec<T, N>> {
  static constexpr bool v = true;
  using E = T;
  static constexpr int n = N;
};
template <class T, int N, int... I>
struct vt<swz<T, N, I...>> {
  static constexpr bool v = true;
  using E = T;
  static constexpr int n = sizeof...(I);
};
template <class A, class B, bool av = vt<A>::v, bool bv = vt<B>::v>
struct vb {};
template <class A, class B>
struct vb<A, B, true, true> {
  static_assert(vt<A>::n == vt<B>::n, "vector sizes differ");
  using E = typename vt<A>::E;
  static constexpr int n = vt<A>::n;
  using V = vec<E, n>;
  static_assert(sizeof(E) == sizeof(typename vt<B>::E), "mixed vector element types");
};
template <class A, class B>
struct vb<A, B, true, false> {
  static_assert(msl_is_scalar<B>::value, "bad operand");
  using E = typename vt<A>::E;
  static constexpr int n = vt<A>::n;
  using V = vec<E, n>;
};
template <class A, class B>
struct vb<A, B, false, true> {
  static_assert(msl_is_scalar<A>::value, "bad operand");
  using E = typename vt<B>::E;
  static constexpr int n = vt<B>::n;
  using V = vec<E, n>;
};
template <class V, class A>
MSL_HD V msl_lift(const A& a) {
  return V(a);
}
#define VOP(op)                                                                      \
  template <class A, class B, class R = typename vb<A, B>::V>                        \
  MSL_HD R operator op(const A& a, const B& b) {                                     \
    R x = msl_lift<R>(a), y = msl_lift<R>(b), r;                                     \
    for (int i = 0; i < vb<A, B>::n; i++) r[i] = typename vb<A, B>::E(x[i] op y[i]); \
    return r;                                                                        \
  }                                                                                  \
  template <class T, int N, class B>                                                 \
  MSL_HD vec<T, N>& operator op##=(vec<T, N>& a, const B & b) {                      \
    return a = a op b;                                                               \
  }                                                                                  \
  template <class T, int N, int... I, class B>                                       \
  MSL_HD swz<T, N, I...>& operator op##=(swz<T, N, I...>& a, const B & b) {          \
    return a = a op b;                                                               \
  }
VOP(+)
VOP(-) VOP(*) VOP(/) VOP(%) VOP(&) VOP(|) VOP(^) VOP(<<) VOP(>>)
#undef VOP
#define VCMP(op)                                                        \
  template <class A, class B, class R = typename vb<A, B>::V>           \
  MSL_HD vec<bool, vb<A, B>::n> operator op(const A & a, const B & b) { \
    R x = msl_lift<R>(a), y = msl_lift<R>(b);                           \
    vec<bool, vb<A, B>::n> r;                                           \
    for (int i = 0; i < vb<A, B>::n; i++) r[i] = x[i] op y[i];          \
    return r;                                                           \
  }
    VCMP(==) VCMP(!=) VCMP(<) VCMP(>) VCMP(<=) VCMP(>=)
#undef VCMP
        template <class T, int N>
        MSL_HD vec<T, N> operator-(const vec<T, N>& a) {
  vec<T, N> r;
  for (int i = 0; i < N; i++) r[i] = T(-a[i]);
  return r;
}
template <class T, int N>
MSL_HD vec<T, N> operator~(const vec<T, N>& a) {
  vec<T, N> r;
  for (int i = 0; i < N; i++) r[i] = T(~a[i]);
  return r;
}
template <int N>
MSL_HD bool any(const vec<bool, N>& a) {
  bool r = false;
  for (int i = 0; i < N; i++) r |= a[i];
  return r;
}
template <int N>
MSL_HD bool all(const vec<bool, N>& a) {
  bool r = true;
  for (int i = 0; i < N; i++) r &= a[i];
  return r;
}
#define VT(n, T)                          \
  using n##2 = vec<T, 2>;                 \
  using n##3 = vec<T, 3>;                 \
  using n##4 = vec<T, 4>;                 \
  using packed_##n##2 = packed_vec<T, 2>; \
  using packed_##n##3 = packed_vec<T, 3>; \
  using packed_##n##4 = packed_vec<T, 4>;
VT(float, float)
VT(half, half) VT(bfloat, bfloat) VT(int, int) VT(uint, uint) VT(short, short) VT(ushort, ushort) VT(char, char)
    VT(uchar, uchar) VT(bool, bool) VT(long, long) VT(ulong, ulong)
#undef VT
#define MSL_CTOR(T) T

        template <class To, class From>
        MSL_HD To as_type(const From& f) {
  static_assert(sizeof(To) == sizeof(From), "as_type: sizes differ");
  To t;
  memcpy(&t, &f, sizeof(To));
  return t;
}

// ---- math: float, half, bfloat and element-wise on vectors ----
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
enum memory_order { memory_order_relaxed };
enum class mem_flags : uint {
  mem_none = 0,
  mem_device = 1,
  mem_threadgroup = 2,
  mem_texture = 4,
  mem_threadgroup_imageblock = 8
};
MSL_HD constexpr mem_flags operator|(mem_flags a, mem_flags b) { return mem_flags((uint)a | (uint)b); }
template <class T>
struct _atomic {
  T v;
};
template <class T>
using atomic = _atomic<T>;
using atomic_uint = _atomic<uint>;
using atomic_int = _atomic<int>;
using atomic_float = _atomic<float>;
using atomic_bool = _atomic<bool>;
}  // namespace metal
