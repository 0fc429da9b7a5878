// The same MSL text compiled by nvcc. Kernels become __device__ functions; mslgen emits one __global__ wrapper each.
#pragma once
#include <cuda_fp16.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#define MSL_HD __device__ __forceinline__
#define MSL_HALF_CLASS 1
#define MSL_EXP(x) ::__expf(x)
#define MSL_EXP2(x) ::exp2f(x)
#define MSL_LOG(x) ::__logf(x)
#define MSL_LOG2(x) ::__log2f(x)
#define MSL_RSQRT(x) ::rsqrtf(x)
#define MSL_POPC(x) (uint) __popc(x)
#define MSL_CLZ(x) (uint) __clz(x)
#define MSL_CTZ(x) (uint)(__ffs(x) - 1)
#ifdef M_PI_F
#undef M_PI_F
#endif
namespace metal {
__device__ __forceinline__ float msl_h2f(unsigned short b) { return __half2float(__ushort_as_half(b)); }
__device__ __forceinline__ unsigned short msl_f2h(float f) { return __half_as_ushort(__float2half_rn(f)); }
}  // namespace metal
#include "msl_common.h"
#define MSL_KERNEL __device__ __forceinline__
#define MSL_DEVICE
#define MSL_CONSTANT const
#define MSL_THREADGROUP
#define MSL_THREAD
#define MSL_FN __device__
#define MSL_CONSTVAR static __device__ const
// A constant of the compilation: -DMSL_FC_<index>=value. A kernel that depends on none is given none.
#ifndef MSL_FC_0
#define MSL_FC_0 0
#endif
#ifndef MSL_FC_1
#define MSL_FC_1 0
#endif
#ifndef MSL_FC_2
#define MSL_FC_2 0
#endif
#ifndef MSL_FC_4
#define MSL_FC_4 0
#endif
#ifndef MSL_FC_5
#define MSL_FC_5 0
#endif
#ifndef MSL_FC_6
#define MSL_FC_6 0
#endif
#ifndef MSL_FC_7
#define MSL_FC_7 0
#endif
#ifndef MSL_FC_8
#define MSL_FC_8 0
#endif
// Numbers that are divided by.
#ifndef MSL_FC_9
#define MSL_FC_9 1
#endif
#ifndef MSL_FC_10
#define MSL_FC_10 1
#endif
#define MSL_FCVAR static constexpr
#define MSL_FCINIT(i) = MSL_FC_##i
#define MSL_FCDEF(n)
#define MSL_TGVAR __shared__
#define MSL_TG_TOUCH(n)
#define MSL_TGARG(i) \
  metal::msl_ptr { msl_dyn + A.tgoff[i] }
#define MSL_V3(n) \
  metal::msl_v3 { metal::msl_##n() }
#define MSL_V1(n) metal::msl_##n()
namespace metal {
// Buffers by index, offsets of dynamic threadgroup memory, and the one struct in the constant address space, which is read as such here too.
struct msl_args {
  void* b[31];
  uint tgoff[4];
  alignas(8) unsigned char constants[128];
};
struct msl_ptr {
  void* p;
  template <class T>
  MSL_HD operator T*() const {
    return (T*)p;
  }
};
struct msl_ref {
  const void* p;
  template <class T>
  MSL_HD operator T&() const {
    return *(T*)p;
  }
};
struct msl_v3 {
  uint3 p;
  MSL_HD operator uint() const { return p.x; }
  MSL_HD operator ushort() const { return p.x; }
  MSL_HD operator vec<uint, 2>() const { return vec<uint, 2>(p.x, p.y); }
  MSL_HD operator vec<uint, 3>() const { return p; }
};
MSL_HD uint3 msl_thread_position_in_threadgroup() { return uint3(threadIdx.x, threadIdx.y, threadIdx.z); }
MSL_HD uint3 msl_threadgroup_position_in_grid() { return uint3(blockIdx.x, blockIdx.y, blockIdx.z); }
MSL_HD uint3 msl_threads_per_threadgroup() { return uint3(blockDim.x, blockDim.y, blockDim.z); }
MSL_HD uint3 msl_threadgroups_per_grid() { return uint3(gridDim.x, gridDim.y, gridDim.z); }
MSL_HD uint3 msl_thread_position_in_grid() {
  return msl_threadgroup_position_in_grid() * msl_threads_per_threadgroup() + msl_thread_position_in_threadgroup();
}
MSL_HD uint3 msl_threads_per_grid() { return msl_threads_per_threadgroup() * msl_threadgroups_per_grid(); }
MSL_HD uint msl_thread_index_in_threadgroup() {
  return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
}
// Read from lane 0, so that the compiler knows it to be the same in all, as Metal's does.
MSL_HD uint msl_simdgroup_index_in_threadgroup() { return __shfl_sync(0xffffffffu, msl_thread_index_in_threadgroup() / 32, 0); }
MSL_HD uint msl_thread_index_in_simdgroup() { return msl_thread_index_in_threadgroup() % 32; }
MSL_HD uint msl_simdgroups_per_threadgroup() { return (blockDim.x * blockDim.y * blockDim.z + 31) / 32; }
MSL_HD uint msl_threads_per_simdgroup() { return 32; }
MSL_HD void threadgroup_barrier(mem_flags) { __syncthreads(); }
MSL_HD void simdgroup_barrier(mem_flags) { __syncwarp(); }
#define FULL 0xffffffffu
// any trivially copyable T, 32 bits at a time
#define SHUF(name, intr, argt)                                                \
  template <class T>                                                          \
  MSL_HD T name(T v, argt a) {                                                \
    constexpr int W = (sizeof(T) + 3) / 4;                                    \
    uint w[W] = {};                                                           \
    memcpy(w, &v, sizeof(T));                                                 \
    _Pragma("unroll") for (int i = 0; i < W; i++) w[i] = intr(FULL, w[i], a); \
    T o;                                                                      \
    memcpy(&o, w, sizeof(T));                                                 \
    return o;                                                                 \
  }
SHUF(simd_shuffle, __shfl_sync, ushort)
SHUF(simd_shuffle_xor, __shfl_xor_sync, ushort) SHUF(simd_shuffle_down, __shfl_down_sync, ushort)
    SHUF(simd_shuffle_up, __shfl_up_sync, ushort) SHUF(simd_broadcast, __shfl_sync, ushort) // The instruction takes the low five bits of the lane.
MSL_HD uint look_up(uint table, uint i) { return __shfl_sync(FULL, table, i); }
MSL_HD uint shift_pair(uint high, uint low, uint n) { return __funnelshift_r(low, high, n); }
MSL_HD uint bytes_below(uint high, uint low, bool odd) { return __byte_perm(low, high, odd ? 0x7351 : 0x7250); }
MSL_HD uint pair_bytes(uint high, uint low, bool odd) { return __byte_perm(low, high, odd ? 0x7351 : 0x6240); }
MSL_HD uint select_bits(uint mask, uint a, uint b) {
  uint d;
  asm("lop3.b32 %0, %1, %2, %3, 0xca;" : "=r"(d) : "r"(mask), "r"(a), "r"(b));
  return d;
}
MSL_HD uint two_bytes(uint x) { return __byte_perm(x, 0, 0x4140); }
template <class T>
    MSL_HD T simd_broadcast_first(T v) {
  return simd_shuffle(v, 0);
}
#define RED(n, e)                                    \
  template <class T>                                 \
  MSL_HD T n(T a) {                                  \
    _Pragma("unroll") for (int s = 16; s; s >>= 1) { \
      T b = simd_shuffle_xor(a, (ushort)s);          \
      a = T(e);                                      \
    }                                                \
    return a;                                        \
  }
RED(simd_sum, a + b)
RED(simd_product, a* b) RED(simd_max, (a < b ? b : a)) RED(simd_min, (b < a ? b : a)) RED(simd_and, a& b)
    RED(simd_or, a | b) RED(simd_xor, a ^ b) MSL_HD bool simd_any(bool b) {
  return __any_sync(FULL, b);
}
MSL_HD bool simd_all(bool b) { return __all_sync(FULL, b); }
template <class T>
MSL_HD T simd_prefix_inclusive_sum(T v) {
  uint l = msl_thread_index_in_simdgroup();
  for (int s = 1; s < 32; s <<= 1) {
    T o = simd_shuffle_up(v, (ushort)s);
    if (l >= s) v = T(v + o);
  }
  return v;
}
template <class T>
MSL_HD T simd_prefix_exclusive_sum(T v) {
  T s = simd_shuffle_up(simd_prefix_inclusive_sum(v), (ushort)1);
  return msl_thread_index_in_simdgroup() ? s : T(0);
}
#define ATOM(n, f)                         \
  template <class P, class T>              \
  MSL_HD auto n(P* p, T o, memory_order) { \
    return f(&p->v, (decltype(p->v))o);    \
  }
ATOM(atomic_fetch_add_explicit, atomicAdd)
ATOM(atomic_fetch_max_explicit, atomicMax) ATOM(atomic_fetch_min_explicit, atomicMin)
    ATOM(atomic_fetch_or_explicit, atomicOr) ATOM(atomic_fetch_and_explicit, atomicAnd)
        ATOM(atomic_exchange_explicit, atomicExch) template <class P>
        MSL_HD auto atomic_load_explicit(P* p, memory_order) {
  return *(volatile decltype(p->v)*)&p->v;
}
template <class P, class T>
MSL_HD void atomic_store_explicit(P* p, T o, memory_order) {
  atomicExch(&p->v, (decltype(p->v))o);
}
// half2 arithmetic on the packed unit; the _rn forms are never contracted
MSL_HD __half2 msl_to2(const vec<half, 2>& a) {
  __half2 r;
  memcpy(&r, &a, 4);
  return r;
}
MSL_HD vec<half, 2> msl_of2(__half2 a) {
  vec<half, 2> r;
  memcpy(&r, &a, 4);
  return r;
}
MSL_HD vec<half, 2> operator+(const vec<half, 2>& a, const vec<half, 2>& b) {
  return msl_of2(__hadd2_rn(msl_to2(a), msl_to2(b)));
}
MSL_HD vec<half, 2> operator-(const vec<half, 2>& a, const vec<half, 2>& b) {
  return msl_of2(__hsub2_rn(msl_to2(a), msl_to2(b)));
}
MSL_HD vec<half, 2> operator*(const vec<half, 2>& a, const vec<half, 2>& b) {
  return msl_of2(__hmul2_rn(msl_to2(a), msl_to2(b)));
}
MSL_HD vec<half, 2> fma(const vec<half, 2>& a, const vec<half, 2>& b, const vec<half, 2>& c) {
  return msl_of2(__hfma2(msl_to2(a), msl_to2(b), msl_to2(c)));
}
// simdgroup_matrix: a lane holds elements (l / 4, l % 4 * 2 + {0, 1}), mma.sync's layout of A and C (Apple's differs:
// kernels that use thread_elements() must find it). B wants pairs along k: `t`, made on first use (movmatrix) or at
// load. What the kernels use alone: products are `mma_2x1`, `mma_2x2` and `product_2x2`.
template <class T, int R, int C>
struct simdgroup_matrix {
  T e[2];
  simdgroup_matrix() = default;
  MSL_HD explicit simdgroup_matrix(T v) { e[0] = e[1] = v; }
  MSL_HD vec<T, 2>& thread_elements() { return *(vec<T, 2>*)e; }
};
template <>
struct simdgroup_matrix<half, 8, 8> {
  vec<half, 2> e;
  mutable uint t;
  mutable bool has_t;
  simdgroup_matrix() = default;
  MSL_HD explicit simdgroup_matrix(half v) {
    e = vec<half, 2>(v, v);
    has_t = false;
  }
  MSL_HD vec<half, 2>& thread_elements() {
    has_t = false;
    return e;
  }
  MSL_HD uint bits() const {
    uint u;
    memcpy(&u, &e, 4);
    return u;
  }
  MSL_HD uint trans() const {
    if (!has_t) {
      asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(t) : "r"(bits()));
      has_t = true;
    }
    return t;
  }
};
using simdgroup_float8x8 = simdgroup_matrix<float, 8, 8>;
using simdgroup_half8x8 = simdgroup_matrix<half, 8, 8>;
MSL_HD uint msl_fm() { return msl_thread_index_in_simdgroup() / 4; }
MSL_HD uint msl_fn() { return msl_thread_index_in_simdgroup() % 4 * 2; }
template <class T, int R, int C>
MSL_HD simdgroup_matrix<T, R, C> make_filled_simdgroup_matrix(T v) {
  return simdgroup_matrix<T, R, C>(v);
}
template <class P>
MSL_HD void simdgroup_load(simdgroup_matrix<half, 8, 8>& m, const P* p, ulong ld = 8, ulong2 o = ulong2(0),
                           bool tr = false) {
  vec<half, 2> x[2];
  for (uint w = 0; w < 2; w++)
    for (uint k = 0; k < 2; k++) {
      uint r = msl_fm(), c = msl_fn() + k;
      x[w][k] = tr != (w == 1) ? half(p[(o.y + c) * ld + o.x + r]) : half(p[(o.y + r) * ld + o.x + c]);
    }
  m.e = x[0];
  memcpy(&m.t, &x[1], 4);
  m.has_t = true;
}
// d0 += a b, d1 += c b
MSL_HD void mma_2x1(simdgroup_float8x8& d0, simdgroup_float8x8& d1, const simdgroup_half8x8& a,
                    const simdgroup_half8x8& c, const simdgroup_half8x8& b) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
      : "+f"(d0.e[0]), "+f"(d0.e[1]), "+f"(d1.e[0]), "+f"(d1.e[1])
      : "r"(a.bits()), "r"(c.bits()), "r"(b.trans()));
}
// d0 += a0 b0 + a1 b1, d1 += c0 b0 + c1 b1: four MSL products in one full instruction (kernels spell it as four calls
// elsewhere)
MSL_HD void mma_2x2(simdgroup_float8x8& d0, simdgroup_float8x8& d1, const simdgroup_half8x8& a0,
                    const simdgroup_half8x8& c0, const simdgroup_half8x8& b0, const simdgroup_half8x8& a1,
                    const simdgroup_half8x8& c1, const simdgroup_half8x8& b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d0.e[0]), "+f"(d0.e[1]), "+f"(d1.e[0]), "+f"(d1.e[1])
      : "r"(a0.bits()), "r"(c0.bits()), "r"(a1.bits()), "r"(c1.bits()), "r"(b0.trans()), "r"(b1.trans()));
}
// d0 = a0 b0 + a1 b1, d1 = c0 b0 + c1 b1
MSL_HD void product_2x2(simdgroup_float8x8& d0, simdgroup_float8x8& d1, const simdgroup_half8x8& a0,
                        const simdgroup_half8x8& c0, const simdgroup_half8x8& b0, const simdgroup_half8x8& a1,
                        const simdgroup_half8x8& c1, const simdgroup_half8x8& b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%10,%10,%10};"
      : "=f"(d0.e[0]), "=f"(d0.e[1]), "=f"(d1.e[0]), "=f"(d1.e[1])
      : "r"(a0.bits()), "r"(c0.bits()), "r"(a1.bits()), "r"(c1.bits()), "r"(b0.trans()), "r"(b1.trans()), "f"(0.0f));
}
}  // namespace metal
