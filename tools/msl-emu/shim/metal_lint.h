// LINT mode (clang -fsyntax-only): declarations only. Address spaces are real and native ext_vector types are used,
// so passing a device pointer to a thread/threadgroup/constant parameter, or dropping the qualifier, is an error.
#pragma once
typedef __SIZE_TYPE__ size_t;
typedef __PTRDIFF_TYPE__ ptrdiff_t;
#define MSL_AS(n) __attribute__((address_space(n)))
#define MSL_DEVICE MSL_AS(1)
#define MSL_CONSTANT MSL_AS(2) const
#define MSL_THREADGROUP MSL_AS(3)
#define MSL_THREAD
#define MSL_KERNEL
#define MSL_FN
#define MSL_CONSTVAR static MSL_AS(2) const
#define MSL_FCVAR extern MSL_AS(2) const
#define MSL_FCINIT(i)
#define MSL_FCDEF(n)
#define is_function_constant_defined(n) (sizeof(n) > 0)
#define MSL_TGVAR static MSL_AS(3)
#define MSL_TG_TOUCH(n) msl_tg_bytes(sizeof(n));
#define MSL_CTOR(T) metal::msl_make<T>
#define INFINITY (__builtin_huge_valf())
#define NAN (__builtin_nanf(""))
#define M_PI_F 3.14159265358979323846f
#define FLT_MAX 3.402823466e38f
namespace metal {
typedef unsigned int uint;
typedef unsigned short ushort;
typedef unsigned char uchar;
typedef unsigned long ulong;
typedef signed char int8_t;
typedef uchar uint8_t;
typedef short int16_t;
typedef ushort uint16_t;
typedef int int32_t;
typedef uint uint32_t;
typedef long int64_t;
typedef ulong uint64_t;
typedef _Float16 half;
typedef __bf16 bfloat;
template <class T, int N>
using vec = T __attribute__((ext_vector_type(N)));
#define VT(n, T)                                                                   \
  typedef vec<T, 2> n##2;                                                          \
  typedef vec<T, 3> n##3;                                                          \
  typedef vec<T, 4> n##4;                                                          \
  typedef T packed_##n##3 __attribute__((ext_vector_type(3), aligned(sizeof(T)))); \
  typedef T packed_##n##2 __attribute__((ext_vector_type(2), aligned(sizeof(T)))); \
  typedef T packed_##n##4 __attribute__((ext_vector_type(4), aligned(sizeof(T))));
VT(float, float)
VT(half, half) VT(bfloat, bfloat) VT(int, int) VT(uint, uint) VT(short, short) VT(ushort, ushort) VT(char, char)
    VT(uchar, uchar) VT(long, long) VT(ulong, ulong) typedef vec<bool, 2> bool2;
typedef vec<bool, 3> bool3;
typedef vec<bool, 4> bool4;
template <class T, class... A>
T msl_make(A...);
void msl_tg_bytes(size_t);
template <class To, class From>
To as_type(From);
template <class T>
struct msl_sc {
  static constexpr bool v = false;
};
template <>
struct msl_sc<float> {
  static constexpr bool v = true;
};
template <>
struct msl_sc<half> {
  static constexpr bool v = true;
};
template <>
struct msl_sc<bfloat> {
  static constexpr bool v = true;
};
#define F1(n)               \
  float n(float);           \
  half n(half);             \
  bfloat n(bfloat);         \
  template <class T, int N> \
  vec<T, N> n(vec<T, N>);
#define FS                                                                                               \
  F1(exp) F1(exp2) F1(log) F1(log2) F1(rsqrt) F1(sqrt) F1(tanh) F1(sin) F1(cos) float pow(float, float); \
  float divide(float, float);
FS namespace fast { FS }
namespace precise {
FS
}
F1(floor) F1(ceil) F1(rint) F1(round) F1(trunc) F1(fabs) F1(sign) F1(fract) F1(saturate) F1(erf) F1(abs) int abs(int);
#define F2T(n)              \
  float n(float, float);    \
  half n(half, half);       \
  int n(int, int);          \
  uint n(uint, uint);       \
  short n(short, short);    \
  ushort n(ushort, ushort); \
  uchar n(uchar, uchar);    \
  char n(char, char);       \
  ulong n(ulong, ulong);    \
  long n(long, long);       \
  template <class T, int N> \
  vec<T, N> n(vec<T, N>, vec<T, N>);
F2T(min) F2T(max) float fmin(float, float);
float fmax(float, float);
float fma(float, float, float);
half fma(half, half, half);
template <class T, int N>
vec<T, N> fma(vec<T, N>, vec<T, N>, vec<T, N>);
#define F3T(n)                  \
  float n(float, float, float); \
  half n(half, half, half);     \
  int n(int, int, int);         \
  uint n(uint, uint, uint);     \
  template <class T, int N>     \
  vec<T, N> n(vec<T, N>, vec<T, N>, vec<T, N>);
F3T(clamp)
template <class T, class B>
T select(T, T, B);
template <class T, int N>
T dot(vec<T, N>, vec<T, N>);
bool isnan(float);
bool isinf(float);
bool isfinite(float);
uint popcount(uint);
uint clz(uint);
uint ctz(uint);
uint reverse_bits(uint);
uint extract_bits(uint, uint, uint);
uint insert_bits(uint, uint, uint, uint);
uint mulhi(uint, uint);
template <class T>
struct numeric_limits {
  static constexpr T max();
  static constexpr T lowest();
  static constexpr T infinity();
};
enum class mem_flags : uint { mem_none = 0, mem_device = 1, mem_threadgroup = 2 };
constexpr mem_flags operator|(mem_flags, mem_flags);
enum memory_order { memory_order_relaxed };
void threadgroup_barrier(mem_flags);
void simdgroup_barrier(mem_flags);
#define SH(n)        \
  template <class T> \
  T n(T, ushort);
SH(simd_shuffle)
SH(simd_shuffle_xor) SH(simd_shuffle_down) SH(simd_shuffle_up) SH(simd_broadcast)
#define SR(n)        \
  template <class T> \
  T n(T);
    SR(simd_sum) SR(simd_product) SR(simd_max) SR(simd_min) SR(simd_and) SR(simd_or) SR(simd_xor)
        SR(simd_prefix_exclusive_sum) SR(simd_prefix_inclusive_sum) SR(simd_broadcast_first) bool simd_any(bool);
bool simd_all(bool);
template <class T>
struct _atomic {
  T v;
  _atomic() = delete;
};
template <class T>
using atomic = _atomic<T>;
typedef _atomic<uint> atomic_uint;
typedef _atomic<int> atomic_int;
typedef _atomic<float> atomic_float;
#define AT(n, S)     \
  template <class T> \
  T n(S _atomic<T>*, T, memory_order);
#define AT2(n) AT(n, MSL_DEVICE volatile) AT(n, MSL_THREADGROUP volatile)
AT2(atomic_fetch_add_explicit)
AT2(atomic_fetch_sub_explicit) AT2(atomic_fetch_max_explicit) AT2(atomic_fetch_min_explicit)
    AT2(atomic_fetch_or_explicit) AT2(atomic_fetch_and_explicit) AT2(atomic_exchange_explicit) template <class T>
    T atomic_load_explicit(MSL_DEVICE const volatile _atomic<T>*, memory_order);
template <class T>
void atomic_store_explicit(MSL_DEVICE volatile _atomic<T>*, T, memory_order);
template <class T, int R, int C>
struct simdgroup_matrix {
  simdgroup_matrix();
  explicit simdgroup_matrix(T);
  vec<T, 2>& thread_elements();
};
typedef simdgroup_matrix<float, 8, 8> simdgroup_float8x8;
typedef simdgroup_matrix<half, 8, 8> simdgroup_half8x8;
typedef simdgroup_matrix<bfloat, 8, 8> simdgroup_bfloat8x8;
template <class T, int R, int C>
simdgroup_matrix<T, R, C> make_filled_simdgroup_matrix(T);
#define ML(S)                                                                                       \
  template <class T>                                                                                \
  void simdgroup_load(simdgroup_matrix<T, 8, 8>&, S const T*, ulong = 8, ulong2 = 0, bool = false); \
  template <class T>                                                                                \
  void simdgroup_store(simdgroup_matrix<T, 8, 8>, S T*, ulong = 8, ulong2 = 0, bool = false);
ML(MSL_DEVICE)
ML(MSL_THREADGROUP) template <class D, class A, class B, class C>
void simdgroup_multiply_accumulate(simdgroup_matrix<D, 8, 8>&, simdgroup_matrix<A, 8, 8>, simdgroup_matrix<B, 8, 8>,
                                   simdgroup_matrix<C, 8, 8>);
template <class D, class A, class B>
void simdgroup_multiply(simdgroup_matrix<D, 8, 8>&, simdgroup_matrix<A, 8, 8>, simdgroup_matrix<B, 8, 8>);
}  // namespace metal
// not in MSL
#pragma GCC poison double virtual throw try catch goto typeid dynamic_cast new delete thread_local wchar_t asm
