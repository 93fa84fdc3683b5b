// Work on rows: statistics, and the form in which a metric takes them. One warp per row, one read of it from memory.
#pragma once
#include "common.cuh"

namespace bertft {

__host__ __device__ __forceinline__ bool scales_rows(int metric) { return metric == kCosine || metric == kCorrelation; }

// Bad rows found by the row statistics: the least row of each kind, kNoRow if there is none.
struct BadRows {
  long long not_finite, no_direction;
};

// (mean, 1 / |row - mean|) of a row as the metric needs them, else (0, 1), by all lanes of a warp. Sums in double about
// the row's first value, so that a constant row has norm exactly 0 (and scale infinity, which makes NaN of the row).
template <class T>
__device__ __forceinline__ void row_statistics(const T* row, long long r, int d, int metric, BadRows* bad, double& mean,
                                               double& scale) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const bool centre = metric == kCorrelation && d > 0;
  const double origin = centre ? static_cast<double>(to_compute(row[0])) : 0.0;
  double s1 = 0, s2 = 0;
  bool finite = true;
  for (int k = lane; k < d; k += 32) {
    const double value = static_cast<double>(to_compute(row[k])), v = value - origin;
    finite = finite && value - value == 0;
    s1 += v;
    s2 += v * v;
  }
  s1 = warp_sum(s1);
  s2 = warp_sum(s2);
  const double square = centre ? s2 - s1 * s1 / d : s2;
  mean = centre ? origin + s1 / d : 0.0;
  scale = scales_rows(metric) ? 1.0 / sqrt(square) : 1.0;
  finite = __all_sync(kAllLanes, finite);
  if (bad && lane == 0) {
    if (!finite) atomicMin(&bad->not_finite, r);
    // under correlation a row that is constant to 1e-13 of its norm has no direction either
    else if (scales_rows(metric) && !(square > 1e-26 * d * mean * mean))
      atomicMin(&bad->no_direction, r);
  }
}

// stats[r] = (mean, scale) of rows r < rows of x (rows, d); stats and bad may be null.
template <class T>
__global__ void __launch_bounds__(256) row_statistics_kernel(const T* __restrict__ x, long long rows, int d, int metric,
                                                             Compute<T>* __restrict__ stats, BadRows* bad) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warps = static_cast<int>(blockDim.x) / 32;
  const long long step = static_cast<long long>(gridDim.x) * warps;
  for (long long r = static_cast<long long>(blockIdx.x) * warps + threadIdx.x / 32; r < rows; r += step) {
    double mean, scale;
    row_statistics(x + r * d, r, d, metric, bad, mean, scale);
    if (stats && lane == 0) {
      stats[2 * r] = static_cast<Compute<T>>(mean);
      stats[2 * r + 1] = static_cast<Compute<T>>(scale);
    }
  }
}

// Provisional mean m (L, D) double, rounded to float: of `sample` rows evenly spread, in the metric's form, one block
// per layer of x (L, N, D); what is not finite counts as 0. square[l] = |m|^2. Any m will do; without one float
// products of encoders' vectors lose digits.
constexpr int kMeanRows = 64;
template <class T>
__global__ void __launch_bounds__(256, 2) sample_mean_kernel(const T* __restrict__ x, long long n, int d, int metric,
                                                             double* __restrict__ mean, double* __restrict__ square) {
  BERTFT_SHARED(double, stats, [kMeanRows][2]);
  BERTFT_SHARED(double, scratch, [8]);
  const int t = static_cast<int>(threadIdx.x), sample = static_cast<int>(min(n, static_cast<long long>(kMeanRows)));
  const T* rows = x + blockIdx.x * n * d;
  for (int s = t / 32; s < sample; s += 8) {
    double m, scale;
    row_statistics(rows + s * n / sample * d, 0, d, metric, nullptr, m, scale);
    if (t % 32 == 0) stats[s][0] = m, stats[s][1] = scale;
  }
  __syncthreads();
  double norm = 0;
  for (int k = t; k < d; k += 256) {
    double sum = 0;
    for (int s = 0; s < sample; ++s) {
      const double v = (static_cast<double>(to_compute(rows[s * n / sample * d + k])) - stats[s][0]) * stats[s][1];
      sum += v - v == 0 ? v : 0;
    }
    const double m = sample ? static_cast<double>(static_cast<float>(sum / sample)) : 0;
    mean[static_cast<long long>(blockIdx.x) * d + k] = m;
    norm += m * m;
  }
  norm = block_sum<256>(norm, scratch);
  if (t == 0) square[blockIdx.x] = norm;
}

// u (L, padded_n, ld): the rows of x (L, N, D) in the metric's form less the mean m (L, D), zeros beyond N and D, in
// the type E that products run in; a = |u|^2 and p = m.u (sqeuclidean and its root: -a / 2), (L, padded_n), of u as
// rounded. Block row y is the layer. a may be null.
template <class T, class E, class P>
__global__ void __launch_bounds__(256)
    prepare_rows_kernel(const T* __restrict__ x, long long n, int d, int metric, const double* __restrict__ mean,
                        E* __restrict__ u, long long padded_n, int ld, double* __restrict__ a, P* __restrict__ p,
                        BadRows* bad) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const long long layer = blockIdx.y, step = static_cast<long long>(gridDim.x) * 8;
  const double* m = mean + layer * d;
  for (long long r = static_cast<long long>(blockIdx.x) * 8 + threadIdx.x / 32; r < padded_n; r += step) {
    const T* row = x + (layer * n + r) * d;
    E* out = u + (layer * padded_n + r) * ld;
    double centre = 0, scale = 0, square = 0, along = 0;
    if (r < n) row_statistics(row, layer * n + r, d, metric, bad, centre, scale);
    for (int k = lane; k < ld; k += 32) {
      double v = 0;
      if (r < n && k < d) v = (static_cast<double>(to_compute(row[k])) - centre) * scale - m[k];
      store(out + k, static_cast<Compute<E>>(v));
      v = static_cast<double>(to_compute(out[k]));
      square += v * v;
      if (k < d) along += v * m[k];
    }
    square = warp_sum(square);
    along = warp_sum(along);
    if (lane == 0) {
      if (a) a[layer * padded_n + r] = square;
      p[layer * padded_n + r] = static_cast<P>(metric == kSqEuclidean || metric == kEuclidean ? -square / 2 : along);
    }
  }
}

}  // namespace bertft
