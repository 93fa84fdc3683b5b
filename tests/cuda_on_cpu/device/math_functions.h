// math_functions.h -- intrinsics and the overloads that CUDA puts into the global namespace.
#pragma once

#include <cfloat>
#include <climits>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "language.h"

template <class T>
static inline T __ldg(const T* p) {
  return *p;
}
template <class T>
static inline T __ldcs(const T* p) {
  return *p;
}
template <class T>
static inline T __ldca(const T* p) {
  return *p;
}
template <class T>
static inline T __ldcg(const T* p) {
  return *p;
}
template <class T>
static inline void __stcs(T* p, T v) {
  *p = v;
}
template <class T>
static inline void __stcg(T* p, T v) {
  *p = v;
}

static inline int __popc(unsigned v) { return __builtin_popcount(v); }
static inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
static inline int __ffs(int v) { return __builtin_ffs(v); }
static inline int __clz(int v) { return v ? __builtin_clz((unsigned)v) : 32; }
static inline int __clzll(long long v) { return v ? __builtin_clzll((unsigned long long)v) : 64; }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)(((uint64_t)a * b) >> 32); }

static inline unsigned __float_as_uint(float v) {
  unsigned bits;
  __builtin_memcpy(&bits, &v, 4);
  return bits;
}
static inline int __float_as_int(float v) { return (int)__float_as_uint(v); }
static inline float __uint_as_float(unsigned bits) {
  float v;
  __builtin_memcpy(&v, &bits, 4);
  return v;
}
static inline float __int_as_float(int bits) { return __uint_as_float((unsigned)bits); }
static inline long long __double_as_longlong(double v) {
  long long bits;
  __builtin_memcpy(&bits, &v, 8);
  return bits;
}
static inline double __longlong_as_double(long long bits) {
  double v;
  __builtin_memcpy(&v, &bits, 8);
  return v;
}

static inline float rsqrtf(float x) { return 1.f / std::sqrt(x); }
static inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
static inline float __fsqrt_rn(float x) { return std::sqrt(x); }
static inline float __frsqrt_rn(float x) { return (float)(1.0 / std::sqrt((double)x)); }
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __frcp_rn(float a) { return 1.f / a; }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
static inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline float __double2float_rn(double v) { return (float)v; }
static inline int __float2int_rn(float v) { return (int)std::nearbyint(v); }
static inline int __float2int_rz(float v) { return (int)std::trunc(v); }
static inline int __float2int_rd(float v) { return (int)std::floor(v); }
static inline int __float2int_ru(float v) { return (int)std::ceil(v); }
static inline float __int2float_rn(int v) { return (float)v; }
static inline float __saturatef(float v) { return v > 0.f ? (v < 1.f ? v : 1.f) : 0.f; }
// macros: glibc declares functions of these names
#define __expf(x) (std::exp((float)(x)))
#define __logf(x) (std::log((float)(x)))

using std::isfinite;
using std::isinf;
using std::isnan;

#define EXECUTOR_MIN_MAX(T)                               \
  static inline T min(T a, T b) { return b < a ? b : a; } \
  static inline T max(T a, T b) { return a < b ? b : a; }
EXECUTOR_MIN_MAX(int)
EXECUTOR_MIN_MAX(unsigned)
EXECUTOR_MIN_MAX(long)
EXECUTOR_MIN_MAX(unsigned long)
EXECUTOR_MIN_MAX(long long)
EXECUTOR_MIN_MAX(unsigned long long)
#undef EXECUTOR_MIN_MAX
static inline float min(float a, float b) { return std::fmin(a, b); }
static inline float max(float a, float b) { return std::fmax(a, b); }
static inline double min(double a, double b) { return std::fmin(a, b); }
static inline double max(double a, double b) { return std::fmax(a, b); }
