// Part of metal_shim.h: barriers, shuffles, reductions and votes, each a meeting of a simdgroup's lanes.
#pragma once
namespace metal {
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
}  // namespace metal
