// Common parts of the forward and the gradient kernel of pairwise_distance: shapes, stages of shared memory, ownership.
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
template <class T, int R>
struct Panel {
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

// Sums of the terms of KIND over d columns for R x R pairs a thread: rows of x at xb, of y at yb, `rows` and `cols` of
// them, brought into their form by stats unless these are null. The next KC columns travel to registers while the
// present ones are worked on; one barrier a stage.
template <int KIND, class T, int R, class C>
__device__ __forceinline__ void tile_sums(C (&acc)[R][R], C (&stage)[2][2][KC * Panel<T, R>::kStride], const T* xb,
                                          const T* yb, const C* sx, const C* sy, int rows, int cols, int d) {
  using P = Panel<T, R>;
  constexpr int kUnroll = KIND == kProduct ? 2 : 1;  // more keeps so many operands alive that accumulators spill
  const int t = static_cast<int>(threadIdx.x), tx = t % 16, ty = t / 16;
  C a_next[P::kEach], b_next[P::kEach];
#pragma unroll
  for (int r = 0; r < R; ++r)
#pragma unroll
    for (int c = 0; c < R; ++c) acc[r][c] = 0;
  P::fetch(a_next, xb, sx, rows, 0, d);
  P::fetch(b_next, yb, sy, cols, 0, d);
  for (int k0 = 0, now = 0; k0 < d; k0 += KC, now ^= 1) {
    P::put(stage[now][0], a_next);
    P::put(stage[now][1], b_next);
    __syncthreads();  // this stage is full, and nobody reads the other one any more
    if (k0 + KC < d) {
      P::fetch(a_next, xb, sx, rows, k0 + KC, d);
      P::fetch(b_next, yb, sy, cols, k0 + KC, d);
    }
#pragma unroll kUnroll
    for (int k = 0; k < KC; ++k) {
      C a[R], c[R];
#pragma unroll
      for (int q = 0; q < R; q += 4) {
        load4(&stage[now][0][k * P::kStride + owned(ty, q)], a + q);
        load4(&stage[now][1][k * P::kStride + owned(tx, q)], c + q);
      }
#pragma unroll
      for (int r = 0; r < R; ++r)
#pragma unroll
        for (int q = 0; q < R; ++q) {
          if constexpr (KIND == kProduct)
            acc[r][q] += a[r] * c[q];
          else if constexpr (KIND == kSquare)
            acc[r][q] += (a[r] - c[q]) * (a[r] - c[q]);
          else
            acc[r][q] += absolute(a[r] - c[q]);
        }
    }
  }
}

}  // namespace pairwise
}  // namespace bertft
