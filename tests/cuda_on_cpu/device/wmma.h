// wmma.h -- nvcuda::wmma fragments. CUDA leaves their layout open; here it is row-major over the lanes.
#pragma once

#include <type_traits>

#include "tensor_cores.h"

namespace nvcuda {
namespace wmma {

struct matrix_a;
struct matrix_b;
struct accumulator;
struct row_major;
struct col_major;
namespace precision {
struct tf32;
}
enum layout_t { mem_row_major, mem_col_major };

template <class T>
struct operand {
  typedef T type;
  static double seen(T v) { return executor::to_float(v); }
};
template <>
struct operand<precision::tf32> {
  typedef float type;
  static double seen(float v) { return executor::tf32_seen(__float_as_uint(v)); }
};
template <>
struct operand<double> {
  typedef double type;
  static double seen(double v) { return v; }
};

template <class Use, int M, int N, int K, class T, class Layout = void>
struct fragment {
  static const int rows = std::is_same<Use, matrix_b>::value ? K : M;
  static const int columns = std::is_same<Use, matrix_a>::value ? K : N;
  static const int num_elements = rows * columns / 32;
  typedef typename operand<T>::type element_type;
  typedef element_type storage_element_type;
  element_type x[num_elements];
};

static inline float __float_to_tf32(float v) { return __uint_as_float(bertft_tf32(v)); }

static inline int lane() {
  const uint3 t = threadIdx, b = blockDim;
  return (int)((t.x + b.x * (t.y + b.y * t.z)) & 31u);
}

static inline void converge(const void* pointer, size_t leading_bytes, executor::Site site) {
  executor::warp_operation(executor::WarpOp::fragment, 0xffffffffu, 0, 0, 32, site);
  if ((uintptr_t)pointer % 32) executor::trap("wmma load or store: pointer not 32-byte aligned", site);
  if (leading_bytes % 16) executor::trap("wmma load or store: leading dimension not a multiple of 16 bytes", site);
}

template <class U, int M, int N, int K, class T, class L, class V>
static inline void fill_fragment(fragment<U, M, N, K, T, L>& f, V value) {
  for (auto& element : f.x) element = value;
}

template <class U, int M, int N, int K, class T, class L, class P>
static inline void load_matrix_sync(fragment<U, M, N, K, T, L>& f, const P* p, unsigned ld, EXECUTOR_CALLER) {
  typedef fragment<U, M, N, K, T, L> F;
  converge(p, ld * sizeof(P), EXECUTOR_SITE);
  for (int i = 0; i < F::num_elements; ++i) {
    const int element = lane() * F::num_elements + i, r = element / F::columns, c = element % F::columns;
    f.x[i] = std::is_same<L, row_major>::value ? p[(size_t)r * ld + c] : p[(size_t)c * ld + r];
  }
}

template <int M, int N, int K, class T, class P>
static inline void store_matrix_sync(P* p, const fragment<accumulator, M, N, K, T>& f, unsigned ld, layout_t layout,
                                     EXECUTOR_CALLER) {
  typedef fragment<accumulator, M, N, K, T> F;
  converge(p, ld * sizeof(P), EXECUTOR_SITE);
  for (int i = 0; i < F::num_elements; ++i) {
    const int element = lane() * F::num_elements + i, r = element / N, c = element % N;
    p[layout == mem_row_major ? (size_t)r * ld + c : (size_t)c * ld + r] = f.x[i];
  }
}

template <int M, int N, int K, class T, class LA, class LB, class Sum>
EXECUTOR_UNCHECKED static inline void mma_sync(fragment<accumulator, M, N, K, Sum>& d,
                                               const fragment<matrix_a, M, N, K, T, LA>& a,
                                               const fragment<matrix_b, M, N, K, T, LB>& b,
                                               const fragment<accumulator, M, N, K, Sum>& c, EXECUTOR_CALLER) {
  double fa[M * K / 32], fb[K * N / 32], fc[M * N / 32], fd[M * N / 32];
  for (int i = 0; i < M * K / 32; ++i) fa[i] = operand<T>::seen(a.x[i]);
  for (int i = 0; i < K * N / 32; ++i) fb[i] = operand<T>::seen(b.x[i]);
  for (int i = 0; i < M * N / 32; ++i) fc[i] = (double)c.x[i];
  executor::mma(executor::MmaShape::wmma, M, N, K, fa, fb, fc, fd, EXECUTOR_SITE);
  for (int i = 0; i < M * N / 32; ++i) d.x[i] = (Sum)fd[i];
}

}  // namespace wmma
}  // namespace nvcuda
