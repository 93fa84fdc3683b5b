// Vectors as the compiler's own type, so that one kernel works for AVX-512, AVX2, NEON, SSE and anything else: the
// width follows the instruction sets the file is compiled for (-march=native). Arithmetic and comparison operators work
// lane by lane; a comparison gives integer lanes of 0 and -1.
//
// BERTFT_VECTOR_BYTES=16 forces the narrow path for a test on a wide machine (with -mno-avx).
#pragma once
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <utility>

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

struct AlignedFree {
  void operator()(void* memory) const { ::operator delete(memory, std::align_val_t(64)); }
};
// Uninitialised numbers from the start of a cache line on, so that vectors of aligned rows never straddle two.
template <class T>
using Aligned = std::unique_ptr<T[], AlignedFree>;
template <class T>
inline Aligned<T> aligned(int64_t count) {
  return Aligned<T>(static_cast<T*>(::operator new(size_t(count) * sizeof(T), std::align_val_t(64))));
}

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
  return value - Vector<T>{};  // folds to a broadcast; adding to zero would not, for the sake of -0
}

// Keeps the lanes whose mask is -1 and zeroes the others, NaN included.
template <class T>
inline Vector<T> keep(Vector<T> v, Mask<T> mask) {
  return reinterpret_cast<Vector<T>>(reinterpret_cast<Mask<T>>(v) & mask);
}

template <class T>
inline bool any(Mask<T> mask) {
  typename SimdTypes<T>::lane set = 0;
  for (int lane = 0; lane < kLanes<T>; ++lane) set |= mask[lane];
  return set != 0;
}

// Lanes 0..n-1 set.
template <class T>
inline Mask<T> first_lanes(int64_t n) {
  Mask<T> index;
  for (int lane = 0; lane < kLanes<T>; ++lane) index[lane] = lane;
  return index < typename SimdTypes<T>::lane(n < kLanes<T> ? n : kLanes<T>);
}

// |v| by clearing the sign bits.
template <class T>
inline Vector<T> magnitude(Vector<T> v) {
  constexpr auto sign = std::numeric_limits<typename SimdTypes<T>::lane>::min();
  return reinterpret_cast<Vector<T>>(reinterpret_cast<Mask<T>>(v) & ~(Mask<T>{} + sign));
}

// Lane sums in a fixed order, in double.
template <class T>
inline double lane_sum(Vector<T> v) {
  double sum = 0;
  for (int lane = 0; lane < kLanes<T>; ++lane) sum += double(v[lane]);
  return sum;
}

// Keeps the compiler from reading v from memory again for each of its uses, which would make loads the bottleneck.
template <class T>
inline void pin(Vector<T>& v) {
#if defined(__x86_64__) && BERTFT_VECTOR_BYTES <= 32
  asm("" : "+x"(v));
#elif defined(__AVX512F__)
  asm("" : "+v"(v));
#else
  (void)v;
#endif
}

// A group is 16 bytes of lanes, the unit inside which every instruction set shuffles cheaply.
template <class T>
inline constexpr int kGroup = 16 / int(sizeof(T));

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define BERTFT_SHUFFLE 1
#endif
#endif

#ifdef BERTFT_SHUFFLE
namespace detail {
// Sums of neighbours within each group: the first half of a group's lanes comes from a, the second from b.
template <class T>
constexpr int neighbour(int lane, int odd) {
  const int place = lane % kGroup<T>, half = kGroup<T> / 2;
  return lane - place + 2 * (place % half) + odd + (place < half ? 0 : kLanes<T>);
}
template <class T, int... I>
inline Vector<T> pair_sums(Vector<T> a, Vector<T> b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, neighbour<T>(I, 0)...) + __builtin_shufflevector(a, b, neighbour<T>(I, 1)...);
}
template <class T, int... I>
inline void store_group_sum(Vector<T> v, T* to, std::integer_sequence<int, I...>) {
  constexpr int G = kGroup<T>;
  auto sum = __builtin_shufflevector(v, v, I...);
  if constexpr (kLanes<T> >= 2 * G) sum += __builtin_shufflevector(v, v, (G + I)...);
  if constexpr (kLanes<T> >= 4 * G)
    sum += __builtin_shufflevector(v, v, (2 * G + I)...) + __builtin_shufflevector(v, v, (3 * G + I)...);
  std::memcpy(to, &sum, sizeof sum);
}
}  // namespace detail
#endif

// to[c] = sum of the lanes of v[c], for one group of vectors.
template <class T>
inline void store_lane_sums(const Vector<T> (&v)[kGroup<T>], T* to) {
#ifdef BERTFT_SHUFFLE
  constexpr std::make_integer_sequence<int, kLanes<T>> lanes;
  Vector<T> sums = detail::pair_sums<T>(v[0], v[1], lanes);
  if constexpr (kGroup<T> == 4) sums = detail::pair_sums<T>(sums, detail::pair_sums<T>(v[2], v[3], lanes), lanes);
  detail::store_group_sum<T>(sums, to, std::make_integer_sequence<int, kGroup<T>>());
#else  // GCC before 12
  for (int c = 0; c < kGroup<T>; ++c) {
    to[c] = T(0);
    for (int lane = 0; lane < kLanes<T>; ++lane) to[c] += v[c][lane];
  }
#endif
}

// A square block of one group by one group.
template <class T>
struct Tile {
  typedef T Row __attribute__((vector_size(16)));
  Row row[kGroup<T>];

  void load(const T* from, int64_t stride) {
    for (int i = 0; i < kGroup<T>; ++i) std::memcpy(&row[i], from + i * stride, sizeof(Row));
  }
  void store(T* to, int64_t stride) const {
    for (int i = 0; i < kGroup<T>; ++i) std::memcpy(to + i * stride, &row[i], sizeof(Row));
  }
  Tile transposed() const {
    Tile t;
#ifdef BERTFT_SHUFFLE
    if constexpr (kGroup<T> == 4) {
      const Row a = __builtin_shufflevector(row[0], row[1], 0, 4, 1, 5);
      const Row b = __builtin_shufflevector(row[0], row[1], 2, 6, 3, 7);
      const Row c = __builtin_shufflevector(row[2], row[3], 0, 4, 1, 5);
      const Row d = __builtin_shufflevector(row[2], row[3], 2, 6, 3, 7);
      t.row[0] = __builtin_shufflevector(a, c, 0, 1, 4, 5), t.row[1] = __builtin_shufflevector(a, c, 2, 3, 6, 7);
      t.row[2] = __builtin_shufflevector(b, d, 0, 1, 4, 5), t.row[3] = __builtin_shufflevector(b, d, 2, 3, 6, 7);
      return t;
    }
#endif
    for (int i = 0; i < kGroup<T>; ++i)
      for (int j = 0; j < kGroup<T>; ++j) t.row[i][j] = row[j][i];
    return t;
  }
};

}  // namespace bertft
