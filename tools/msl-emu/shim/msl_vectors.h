// Part of msl_common.h: vectors with swizzles.
#pragma once
namespace metal {
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
        MSL_HD To as_type(From f) {
  static_assert(sizeof(To) == sizeof(From), "as_type: sizes differ");
  To t;
  memcpy(&t, &f, sizeof(To));
  return t;
}
}  // namespace metal
