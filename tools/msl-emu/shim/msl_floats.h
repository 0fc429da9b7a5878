// Part of msl_common.h: 16-bit floats stored as bits, computing in float and rounding every result.
#pragma once
namespace metal {
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
}  // namespace metal
