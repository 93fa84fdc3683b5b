// language.h -- keywords and vector types of CUDA C++.
#pragma once

#include <cstddef>
#include <cstdint>

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __grid_constant__

static const int warpSize = 32;

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

// Alignments are CUDA's: a load through a misaligned vector pointer is an error on the GPU too.
#define EXECUTOR_VECTOR_TYPES(T, name, align2, align4)                      \
  struct alignas(align2) name##2 { T x, y; };                               \
  struct name##3 { T x, y, z; };                                            \
  struct alignas(align4) name##4 { T x, y, z, w; };                         \
  static inline name##2 make_##name##2(T x, T y) { return {x, y}; }         \
  static inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; } \
  static inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }

EXECUTOR_VECTOR_TYPES(float, float, 8, 16)
EXECUTOR_VECTOR_TYPES(double, double, 16, 16)
EXECUTOR_VECTOR_TYPES(int, int, 8, 16)
EXECUTOR_VECTOR_TYPES(unsigned, uint, 8, 16)
EXECUTOR_VECTOR_TYPES(short, short, 4, 8)
EXECUTOR_VECTOR_TYPES(unsigned short, ushort, 4, 8)
EXECUTOR_VECTOR_TYPES(signed char, char, 2, 4)
EXECUTOR_VECTOR_TYPES(unsigned char, uchar, 2, 4)
EXECUTOR_VECTOR_TYPES(long long, longlong, 16, 16)
EXECUTOR_VECTOR_TYPES(unsigned long long, ulonglong, 16, 16)
#undef EXECUTOR_VECTOR_TYPES
