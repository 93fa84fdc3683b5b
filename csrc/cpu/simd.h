// Vectors as the compiler's own type, so that one kernel serves AVX-512, AVX2, NEON, SSE and anything else: the width
// follows the instruction sets the file is compiled for (-march=native). Arithmetic and comparison operators work
// lane by lane; a comparison gives integer lanes of 0 and -1.
//
// BERTFT_VECTOR_BYTES=16 forces the narrow path for a test on a wide machine (with -mno-avx).
#pragma once
#include <cstdint>
#include <cstring>

#ifndef BERTFT_VECTOR_BYTES
#if defined(__AVX512F__)
#define BERTFT_VECTOR_BYTES 64
#elif defined(__AVX__)
#define BERTFT_VECTOR_BYTES 32
#else
#define BERTFT_VECTOR_BYTES 16
#endif
#endif

namespace bertft {

template <class T>
struct SimdTypes;
template <>
struct SimdTypes<float> {
  typedef float vector __attribute__((vector_size(BERTFT_VECTOR_BYTES)));
  typedef int32_t mask __attribute__((vector_size(BERTFT_VECTOR_BYTES)));
  using lane = int32_t;
};
template <>
struct SimdTypes<double> {
  typedef double vector __attribute__((vector_size(BERTFT_VECTOR_BYTES)));
  typedef int64_t mask __attribute__((vector_size(BERTFT_VECTOR_BYTES)));
  using lane = int64_t;
};

template <class T>
using Vector = typename SimdTypes<T>::vector;
template <class T>
using Mask = typename SimdTypes<T>::mask;

template <class T>
inline constexpr int kLanes = BERTFT_VECTOR_BYTES / int(sizeof(T));

// n rounded up to whole vectors.
template <class T>
inline int64_t padded(int64_t n) {
  return (n + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
}

// Loads and stores at any address.
template <class T>
inline Vector<T> load(const T* from) {
  Vector<T> v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
template <class T>
inline void store(T* to, Vector<T> v) {
  std::memcpy(to, &v, sizeof v);
}

template <class T>
inline Vector<T> splat(T value) {
  return Vector<T>{} + value;
}

// Keeps the lanes whose mask is -1 and zeroes the others, NaN included.
template <class T>
inline Vector<T> keep(Vector<T> v, Mask<T> mask) {
  return reinterpret_cast<Vector<T>>(reinterpret_cast<Mask<T>>(v) & mask);
}

// Lanes 0..n-1 set.
template <class T>
inline Mask<T> first_lanes(int64_t n) {
  Mask<T> index;
  for (int lane = 0; lane < kLanes<T>; ++lane) index[lane] = lane;
  return index < typename SimdTypes<T>::lane(n < kLanes<T> ? n : kLanes<T>);
}

template <class T>
inline Vector<T> magnitude(Vector<T> v) {
  return v < T(0) ? -v : v;
}

// Lane sums in a fixed order, in double.
template <class T>
inline double lane_sum(Vector<T> v) {
  double sum = 0;
  for (int lane = 0; lane < kLanes<T>; ++lane) sum += double(v[lane]);
  return sum;
}

}  // namespace bertft
