// What the forward and the gradient kernel of pairwise_distance share: shapes, stages of shared memory, ownership.
#pragma once
#include "rows.cuh"

namespace bertft {
namespace pairwise {

constexpr int NT = 256, KC = 8;
enum Kind { kProduct, kSquare, kAbsolute };

struct Shape {
  long long n, m;  // rows of x and of y
  int d, batch, metric;
  bool symmetric, condensed;
};

__device__ __forceinline__ long long condensed_index(long long i, long long j, long long n) {
  return i * (2 * n - i - 1) / 2 + (j - i - 1);
}

// Stage of an operand: 16 R rows x KC columns, kept column by column so that a thread's rows are neighbours.
template <class T, int R> struct Panel {
  using C = Compute<T>;
  static constexpr int kRows = 16 * R, kStride = kRows + 4, kEach = kRows * KC / NT, kStep = NT / KC;

  // Thread t fetches column k0 + t % KC of rows t / KC, t / KC + kStep, ... of the `rows` that start at `base`.
  static __device__ __forceinline__ void fetch(C (&reg)[kEach], const T* base, const C* stats, int rows, int k0,
                                               int d) {
    const int k = k0 + static_cast<int>(threadIdx.x) % KC, first = static_cast<int>(threadIdx.x) / KC;
    base += static_cast<long long>(first) * d + k;
#pragma unroll
    for (int q = 0; q < kEach; ++q) {
      const int r = first + q * kStep;
      C v = 0;
      if (k < d && r < rows) {
        v = to_compute(base[q * kStep * d]);
        if (stats) v = (v - stats[2 * r]) * stats[2 * r + 1];
      }
      reg[q] = v;
    }
  }
  static __device__ __forceinline__ void put(C* stage, const C (&reg)[kEach]) {
    C* column = stage + (static_cast<int>(threadIdx.x) % KC) * kStride + static_cast<int>(threadIdx.x) / KC;
#pragma unroll
    for (int q = 0; q < kEach; ++q) column[q * kStep] = reg[q];
  }
};

// Row (or column) of the tile that belongs to a thread's q-th value: groups of four neighbours, 64 apart.
__device__ __forceinline__ int owned(int lane16, int q) { return q / 4 * 64 + lane16 * 4 + q % 4; }

}  // namespace pairwise
}  // namespace bertft
