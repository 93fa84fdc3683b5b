// Row statistics: one warp per row, one read of it. mean is 0 unless rows are centred, scale is 1 / norm.
#pragma once
#include "common.cuh"

namespace bertft {

__device__ __forceinline__ bool centres_rows(int metric) { return metric == kCorrelation; }
__host__ __device__ __forceinline__ bool scales_rows(int metric) { return metric == kCosine || metric == kCorrelation; }

// mean and 1 / |row - mean| of a row, by all lanes of a warp; sums in double about the row's first value, so that a
// constant row has norm exactly 0, and then the scale is 0.
template <class T>
__device__ __forceinline__ void row_statistics(const T* row, int d, bool centre, int lane, double& mean, double& scale) {
  const double origin = centre && d > 0 ? static_cast<double>(to_compute(row[0])) : 0.0;
  double s1 = 0, s2 = 0;
  for (int k = lane; k < d; k += 32) {
    const double v = static_cast<double>(to_compute(row[k])) - origin;
    s1 += v;
    s2 += v * v;
  }
  s1 = warp_sum(s1);
  s2 = warp_sum(s2);
  mean = centre && d > 0 ? origin + s1 / d : 0.0;
  const double square = centre && d > 0 ? s2 - s1 * s1 / d : s2;
  scale = square > 0 ? 1.0 / sqrt(square) : 0.0;
}

// stats[r] = (mean, scale) of rows r < rows of x (rows, d); the least r without a direction goes to *zero_row.
template <class T>
__global__ void __launch_bounds__(256) row_statistics_kernel(const T* __restrict__ x, long long rows, int d, int metric,
                                                             Compute<T>* __restrict__ stats, long long* zero_row) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warps = static_cast<int>(blockDim.x) / 32;
  const long long step = static_cast<long long>(gridDim.x) * warps;
  for (long long r = static_cast<long long>(blockIdx.x) * warps + threadIdx.x / 32; r < rows; r += step) {
    double m, s;
    row_statistics(x + r * d, d, centres_rows(metric), lane, m, s);
    if (lane == 0) {
      stats[2 * r] = static_cast<Compute<T>>(m);
      stats[2 * r + 1] = static_cast<Compute<T>>(s);
      if (s == 0) atomicMin(zero_row, r);
    }
  }
}

}  // namespace bertft
