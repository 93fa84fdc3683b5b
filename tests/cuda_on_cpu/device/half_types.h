// half_types.h -- 16-bit floats in software, rounded to nearest even.
//
// No operators and no implicit conversions: torch compiles extensions with -D__CUDA_NO_HALF_CONVERSIONS__ and its
// three companions, so product code has to convert explicitly.
#pragma once

#include <cmath>

#include "language.h"
#include "math_functions.h"

struct __nv_bfloat16 {
  uint16_t bits;
};
struct __half {
  uint16_t bits;
};
struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};
struct alignas(4) __half2 {
  __half x, y;
};
typedef __half half;
typedef __half2 half2;
typedef __nv_bfloat16 nv_bfloat16;
typedef __nv_bfloat162 nv_bfloat162;

static inline __nv_bfloat16 __float2bfloat16(float value) {
  const unsigned v = __float_as_uint(value);
  if (value != value) return {0x7fff};
  return {(uint16_t)((v + 0x7fffu + ((v >> 16) & 1u)) >> 16)};
}
static inline float __bfloat162float(__nv_bfloat16 value) { return __uint_as_float((unsigned)value.bits << 16); }

static inline float __half2float(__half value) {
  const unsigned sign = (unsigned)(value.bits & 0x8000u) << 16;
  const unsigned exponent = (value.bits >> 10) & 31u, mantissa = value.bits & 1023u;
  if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | (mantissa ? 0x400000u | (mantissa << 13) : 0u));
  if (exponent) return __uint_as_float(sign | ((exponent + 112u) << 23) | (mantissa << 13));
  const float subnormal = (float)mantissa * 0x1p-24f;
  return sign ? -subnormal : subnormal;
}
static inline __half __float2half(float value) {
  const unsigned v = __float_as_uint(value), sign = (v >> 16) & 0x8000u, magnitude = v & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {0x7fff};
  if (magnitude >= 0x477ff000u) return {(uint16_t)(sign | 0x7c00u)};  // 65520 and above round to infinity
  if (magnitude >= 0x38800000u) {                                     // normal in half: 2^-14 and above
    const unsigned rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
    return {(uint16_t)(sign | ((rounded - 0x38000000u) >> 13))};
  }
  return {(uint16_t)(sign | (unsigned)std::lrint((double)__uint_as_float(magnitude) * 0x1p24))};
}

static inline __nv_bfloat16 __float2bfloat16_rn(float v) { return __float2bfloat16(v); }
static inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short v) { return {v}; }
static inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 v) { return v.bits; }
static inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
  return {__float2bfloat16(x), __float2bfloat16(y)};
}
static inline __nv_bfloat162 __float22bfloat162_rn(float2 v) { return __floats2bfloat162_rn(v.x, v.y); }
static inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) { return {x, y}; }
static inline float2 __bfloat1622float2(__nv_bfloat162 v) { return {__bfloat162float(v.x), __bfloat162float(v.y)}; }
static inline float __low2float(__nv_bfloat162 v) { return __bfloat162float(v.x); }
static inline float __high2float(__nv_bfloat162 v) { return __bfloat162float(v.y); }

static inline __half __float2half_rn(float v) { return __float2half(v); }
static inline __half __ushort_as_half(unsigned short v) { return {v}; }
static inline unsigned short __half_as_ushort(__half v) { return v.bits; }
static inline __half2 __floats2half2_rn(float x, float y) { return {__float2half(x), __float2half(y)}; }
static inline __half2 __float22half2_rn(float2 v) { return __floats2half2_rn(v.x, v.y); }
static inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
static inline float2 __half22float2(__half2 v) { return {__half2float(v.x), __half2float(v.y)}; }
static inline float __low2float(__half2 v) { return __half2float(v.x); }
static inline float __high2float(__half2 v) { return __half2float(v.y); }

namespace executor {
static inline float to_float(float v) { return v; }
static inline float to_float(__half v) { return __half2float(v); }
static inline float to_float(__nv_bfloat16 v) { return __bfloat162float(v); }
}  // namespace executor
