// RUN-mode shim: MSL source -> C++17 for the CPU emulator (clang-19).
#pragma once
#include <cstdint>
#include <cstring>
#include <cstddef>
#include <cmath>
#include "msl_runtime.h"
#define MSL_NI __attribute__((noinline, no_sanitize("thread")))
#define MSL_HD inline __attribute__((always_inline))
#define MSL_HALF_CLASS 0
#define MSL_EXP(x) ::expf(x)
#define MSL_EXP2(x) ::exp2f(x)
#define MSL_LOG(x) ::logf(x)
#define MSL_LOG2(x) ::log2f(x)
#define MSL_RSQRT(x) (1.0f / ::sqrtf(x))
#define MSL_POPC(x) (uint) __builtin_popcount(x)
#define MSL_CLZ(x) (uint) __builtin_clz(x)
#define MSL_CTZ(x) (uint) __builtin_ctz(x)
namespace metal {
using half = _Float16;
}
#include "msl_common.h"
#undef signbit
#define MSL_KERNEL
#define MSL_DEVICE
#define MSL_CONSTANT const
#define MSL_THREADGROUP
#define MSL_THREAD
#define MSL_FN inline
#define MSL_CONSTVAR static const
#define MSL_FCVAR static
#define MSL_FCINIT(i)
#define MSL_FCDEF(n) static bool msl_fcdef_##n = false;
#define is_function_constant_defined(n) msl_fcdef_##n
#define MSL_TGVAR static
#define MSL_TG_TOUCH(n) ::mslrt::tg_touch((void*)&n, sizeof(n), #n);
#define MSL_PTR(i) \
  ::metal::msl_ptr { ::mslrt::arg(i) }
#define MSL_REF(i) \
  ::metal::msl_ref { ::mslrt::arg(i) }
#define MSL_TGARG(i) \
  ::metal::msl_ptr { ::mslrt::tgarg(i) }
#define MSL_V3(n) \
  ::metal::msl_v3 { c.n }
#define MSL_V1(n) c.n
namespace metal {
struct msl_ptr {
  void* p;
  template <class T>
  operator T*() const {
    return (T*)p;
  }
};
struct msl_ref {
  void* p;
  template <class T>
  operator T&() const {
    return *(T*)p;
  }
};
struct msl_v3 {
  const uint32_t* p;
  operator uint() const { return p[0]; }
  operator ushort() const { return (ushort)p[0]; }
  operator vec<uint, 2>() const { return {p[0], p[1]}; }
  operator vec<uint, 3>() const { return {p[0], p[1], p[2]}; }
  operator vec<ushort, 2>() const { return {p[0], p[1]}; }
  operator vec<ushort, 3>() const { return {p[0], p[1], p[2]}; }
};

#define SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define HERE(w) \
  ::mslrt::Site { w, file, line }
MSL_NI inline void threadgroup_barrier(mem_flags f, SITE) { ::mslrt::barrier((uint)f, HERE("threadgroup_barrier")); }
MSL_NI inline void simdgroup_barrier(mem_flags f, SITE) { ::mslrt::sg_barrier((uint)f, HERE("simdgroup_barrier")); }

template <class T>
MSL_NI T msl_shuf(T v, uint src, const char* w, const char* file, int line, bool keep) {
  static_assert(sizeof(T) <= 64, "");
  ::mslrt::Rv r = ::mslrt::rendezvous(&v, sizeof(T), {w, file, line}, nullptr);
  if (src >= 32) {
    if (keep) return v;
    ::mslrt::fail_lane(r.site, "shuffle source lane is 32 or more (undefined on Metal)");
  }
  if (!(r.mask >> src & 1)) ::mslrt::fail_lane(r.site, "shuffle reads an inactive lane");
  T o;
  memcpy(&o, r.slots[src], sizeof(T));
  return o;
}
template <class T>
inline T simd_shuffle(T v, ushort l, SITE) {
  return msl_shuf(v, l, "simd_shuffle", file, line, false);
}
template <class T>
inline T simd_shuffle_xor(T v, ushort m, SITE) {
  return msl_shuf(v, ::mslrt::lane() ^ m, "simd_shuffle_xor", file, line, false);
}
// past the edge: Metal leaves the value of shuffle_down/up unchanged only for the *_and_fill forms; here the own value
// comes back
template <class T>
inline T simd_shuffle_down(T v, ushort d, SITE) {
  return msl_shuf(v, ::mslrt::lane() + d, "simd_shuffle_down", file, line, true);
}
template <class T>
inline T simd_shuffle_up(T v, ushort d, SITE) {
  uint l = ::mslrt::lane();
  return msl_shuf(v, l >= d ? l - d : 99, "simd_shuffle_up", file, line, true);
}
template <class T>
inline T simd_broadcast(T v, ushort l, SITE) {
  return msl_shuf(v, l, "simd_broadcast", file, line, false);
}
template <class T>
inline T simd_broadcast_first(T v, SITE) {
  return msl_shuf(v, __builtin_ctz(::mslrt::active()), "simd_broadcast_first", file, line, false);
}
template <class T, class O>
MSL_NI void msl_reduce(::mslrt::Rv& r) {  // butterfly order, as a shuffle tree would
  T x[32];
  bool on[32];
  for (int i = 0; i < 32; i++) {
    on[i] = r.mask >> i & 1;
    if (on[i]) memcpy(&x[i], r.slots[i], sizeof(T));
  }
  for (int s = 16; s; s >>= 1)
    for (int i = 0; i < s; i++) {
      if (on[i] && on[i + s])
        x[i] = O::f(x[i], x[i + s]);
      else if (on[i + s]) {
        x[i] = x[i + s];
        on[i] = true;
      }
    }
  memcpy(r.result, &x[0], sizeof(T));
}
template <class T, class O>
MSL_NI T msl_red(T v, const char* w, const char* file, int line) {
  ::mslrt::Rv r = ::mslrt::rendezvous(&v, sizeof(T), {w, file, line}, &msl_reduce<T, O>);
  T o;
  memcpy(&o, r.result, sizeof(T));
  return o;
}
struct OpSum {
  template <class T>
  static T f(T a, T b) {
    return T(a + b);
  }
};
struct OpMul {
  template <class T>
  static T f(T a, T b) {
    return T(a * b);
  }
};
struct OpMax {
  template <class T>
  static T f(T a, T b) {
    return a < b ? b : a;
  }
};
struct OpMin {
  template <class T>
  static T f(T a, T b) {
    return b < a ? b : a;
  }
};
struct OpAnd {
  template <class T>
  static T f(T a, T b) {
    return T(a & b);
  }
};
struct OpOr {
  template <class T>
  static T f(T a, T b) {
    return T(a | b);
  }
};
struct OpXor {
  template <class T>
  static T f(T a, T b) {
    return T(a ^ b);
  }
};
#define RED(n, O)                            \
  template <class T>                         \
  inline T n(T v, SITE) {                    \
    return msl_red<T, O>(v, #n, file, line); \
  }
RED(simd_sum, OpSum)
RED(simd_product, OpMul) RED(simd_max, OpMax) RED(simd_min, OpMin) RED(simd_and, OpAnd) RED(simd_or, OpOr)
    RED(simd_xor, OpXor) inline bool simd_any(bool b, SITE) {
  return msl_red<uint, OpOr>(b, "simd_any", file, line);
}
inline bool simd_all(bool b, SITE) { return msl_red<uint, OpAnd>(b, "simd_all", file, line); }
template <class T>
MSL_NI T msl_scan(T v, bool incl, const char* w, const char* file, int line) {
  ::mslrt::Rv r = ::mslrt::rendezvous(&v, sizeof(T), {w, file, line}, nullptr);
  T s = T(0);
  uint me = ::mslrt::lane();
  for (uint i = 0; i < me + (incl ? 1 : 0); i++)
    if (r.mask >> i & 1) {
      T x;
      memcpy(&x, r.slots[i], sizeof(T));
      s = T(s + x);
    }
  return s;
}
template <class T>
inline T simd_prefix_exclusive_sum(T v, SITE) {
  return msl_scan(v, false, "simd_prefix_exclusive_sum", file, line);
}
template <class T>
inline T simd_prefix_inclusive_sum(T v, SITE) {
  return msl_scan(v, true, "simd_prefix_inclusive_sum", file, line);
}
struct simd_vote {
  uint64_t m;
  explicit operator uint64_t() const { return m; }
  bool any() const { return m; }
};
inline simd_vote simd_ballot(bool b, SITE) {
  uint v = (uint)b << ::mslrt::lane();
  return {msl_red<uint, OpOr>(v, "simd_ballot", file, line)};
}
inline bool simd_is_first() { return ::mslrt::lane() == (uint)__builtin_ctz(::mslrt::active()); }

// atomics: fibers never pre-empt, so a plain read-modify-write is atomic; the checker is told so
#define ATOM(n, expr)                           \
  template <class P, class T>                   \
  MSL_NI auto n(P* p, T o_, memory_order) {     \
    auto a = p->v;                              \
    ::mslrt::check_atomic((void*)p, sizeof(a)); \
    decltype(a) o = (decltype(a))o_;            \
    p->v = (expr);                              \
    return a;                                   \
  }
ATOM(atomic_fetch_add_explicit, a + o)
ATOM(atomic_fetch_sub_explicit, a - o) ATOM(atomic_fetch_max_explicit, a < o ? o : a)
    ATOM(atomic_fetch_min_explicit, o < a ? o : a) ATOM(atomic_fetch_or_explicit, a | o)
        ATOM(atomic_fetch_and_explicit, a& o) ATOM(atomic_fetch_xor_explicit, a ^ o)
            ATOM(atomic_exchange_explicit, (a, o)) template <class P>
            MSL_NI auto atomic_load_explicit(P* p, memory_order) {
  ::mslrt::check_atomic((void*)p, sizeof(p->v));
  auto r = p->v;
  return r;
}
template <class P, class T>
MSL_NI void atomic_store_explicit(P* p, T o, memory_order) {
  ::mslrt::check_atomic((void*)p, sizeof(p->v));
  p->v = o;
}
template <class P, class T>
MSL_NI bool atomic_compare_exchange_weak_explicit(P* p, T* e, T o, memory_order, memory_order) {
  ::mslrt::check_atomic((void*)p, sizeof(p->v));
  if (p->v == *e) {
    p->v = o;
    return true;
  }
  *e = p->v;
  return false;
}

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
template <class D, class A, class B, class CC>
MSL_NI void msl_mma(D& d, const A& a, const B& b, const CC& c, const char* file, int line) {
  float v[4] = {(float)a.e[0], (float)a.e[1], (float)b.e[0], (float)b.e[1]};
  ::mslrt::Rv r = ::mslrt::rendezvous(v, sizeof v, {"simdgroup_multiply_accumulate", file, line}, nullptr);
  float MA[8][8], MB[8][8];
  for (uint l = 0; l < 32; l++) {
    const float* s = (const float*)r.slots[l];
    uint m = ((l / 4) & 4) + (l / 2) % 4, n = ((l / 4) & 2) * 2 + (l % 2) * 2;
    MA[m][n] = s[0];
    MA[m][n + 1] = s[1];
    MB[m][n] = s[2];
    MB[m][n + 1] = s[3];
  }
  uint m = msl_fm(), n = msl_fn();
  for (int k = 0; k < 2; k++) {
    float s = (float)c.e[k];
    for (int i = 0; i < 8; i++) s += MA[m][i] * MB[i][n + k];
    d.e[k] = decltype(d.e[k] + d.e[k])(s);
  }
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
