// Gradient of pairwise_distance with respect to one operand; formula and split: pairwise_distance.cu.
#pragma once
#include "pairwise_tile.cuh"

namespace bertft {
namespace pairwise {

// Weight of partner j in the gradient of row i, from the gradient of the distances (and, for the root, from them).
template <class C>
__device__ __forceinline__ C weight(const C* g, const C* dist, long long i, long long j, const Shape& s,
                                    bool transposed) {
  if (s.symmetric && i == j && s.metric != kDot) return 0;
  long long e = transposed ? j * s.n + i : i * s.m + j;
  if (s.condensed) {
    if (i == j) return 0;
    e = i < j ? condensed_index(i, j, s.n) : condensed_index(j, i, s.n);
  }
  C w = g[e];
  if (s.symmetric && !s.condensed) w += g[j * s.n + i];
  if (s.metric == kSqEuclidean) return 2 * w;
  if (s.metric == kEuclidean) return dist[e] > 0 ? w / dist[e] : C(0);
  return scales_rows(s.metric) ? -w : w;
}

// grad[b, i, k] of the rows of x (for y: x and y change places and `transposed` is set, so that n counts y's rows).
template <class T, int KIND>
__global__ void __launch_bounds__(NT, 2)
    pairwise_gradient_kernel(const T* __restrict__ x, const T* __restrict__ y, const Compute<T>* __restrict__ stats_y,
                             const Compute<T>* __restrict__ g, const Compute<T>* __restrict__ dist,
                             Compute<T>* __restrict__ grad, Shape s, bool transposed) {
  using C = Compute<T>;
  using P = Panel<T, 4>;
  constexpr int kStride = P::kStride, kRows = P::kRows, kPartners = 16, kUnroll = sizeof(C) == 8 ? 1 : 4;
  BERTFT_SHARED(__align__(16) C, w_stage, [kPartners * kStride]);
  BERTFT_SHARED(__align__(16) C, y_stage, [kPartners * kStride]);
  const int t = static_cast<int>(threadIdx.x), tx = t % 16, ty = t / 16;
  const long long i0 = static_cast<long long>(blockIdx.x) * kRows;
  const int k0 = static_cast<int>(blockIdx.y) * kRows;
  const int rows = at_most(s.n - i0, kRows), columns = at_most(s.d - k0, kRows);
  const long long per_batch = s.condensed ? s.n * (s.n - 1) / 2 : s.n * s.m;
  // Lanes run along the rows or along the partners, whichever are neighbours in memory; 16 entries to a thread.
  const int row_step = transposed ? 1 : kPartners, partner_step = transposed ? kRows : 1;

  const int b = static_cast<int>(blockIdx.z);
  const T* own_rows = x + (b * s.n + i0) * s.d + k0;
  const T* partners = y + b * s.m * s.d + k0;
  const C* gb = g + b * per_batch;
  const C* db = dist ? dist + b * per_batch : nullptr;
  const C* stats = stats_y ? stats_y + 2 * b * s.m : nullptr;
  C acc[4][4], own[4][4];
#pragma unroll
  for (int r = 0; r < 4; ++r)
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const int i = owned(ty, r), k = owned(tx, c);
      acc[r][c] = 0;
      own[r][c] = KIND != kProduct && i < rows && k < columns ? to_compute(own_rows[i * s.d + k]) : C(0);
    }
  for (long long j0 = 0; j0 < s.m; j0 += kPartners) {
    const int count = at_most(s.m - j0, kPartners);
#pragma unroll 1
    for (int e = t; e < kPartners * kRows; e += NT) {
      const int i = e / row_step % kRows, p = e / partner_step % kPartners;
      w_stage[p * kStride + i] = i < rows && p < count ? weight(gb, db, i0 + i, j0 + p, s, transposed) : C(0);
      const int q = e / kRows, k = e % kRows;
      C v = 0;
      if (q < count && k < columns) {
        v = to_compute(partners[(j0 + q) * s.d + k]);
        if (stats) v = (v - stats[2 * (j0 + q)]) * stats[2 * (j0 + q) + 1];
      }
      y_stage[q * kStride + k] = v;
    }
    __syncthreads();
#pragma unroll kUnroll
    for (int p = 0; p < kPartners; ++p) {
      C w[4], v[4];
      load4(&w_stage[p * kStride + owned(ty, 0)], w);
      load4(&y_stage[p * kStride + owned(tx, 0)], v);
#pragma unroll
      for (int r = 0; r < 4; ++r)
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          if constexpr (KIND == kProduct)
            acc[r][c] += w[r] * v[c];
          else if constexpr (KIND == kSquare)
            acc[r][c] += w[r] * (own[r][c] - v[c]);
          else
            acc[r][c] += own[r][c] > v[c] ? w[r] : own[r][c] < v[c] ? -w[r] : C(0);
        }
    }
    __syncthreads();
  }
  C* to = grad + (b * s.n + i0) * s.d + k0;
#pragma unroll
  for (int r = 0; r < 4; ++r)
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const int i = owned(ty, r), k = owned(tx, c);
      if (i < rows && k < columns) to[i * s.d + k] = acc[r][c];
    }
}

}  // namespace pairwise
}  // namespace bertft
