// Part of metal_shim.h.
#pragma once
namespace metal {
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
}  // namespace metal
