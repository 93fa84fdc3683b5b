// split_rows: rows in a metric's form as sums of two halves, whose products split_tile.cuh forms to float32 accuracy.
//
//   u_i = form(x_i) - m,  s_i = 13 - exponent of the largest |u_ik|:  u_i 2^s_i = hi + lo, 11 bits each, rounded to nearest
//   x (L, N, D), m (L, D) -> rows (L, P, C, 2, 32) halves: C = D / 32 rounded up, chunks of 32 columns, their 32 high
//   parts and then their 32 low parts, one line of 128 bytes; P = N rounded up to 128; zeros beyond N and D
//   scale[l, i] = 2^-s_i, along[l, i] = m.u_i, square[l, i] = |u_i|^2, stats[l, i] = (mean, 1 / norm) of the row
// Types: x float, half, bfloat16; norms, means and the differences from m in double.
// The power of two brings the largest element of a row into [2^13, 2^14): any range of values fits into halves, and the
//   low part needs no factor of its own. |u - hi - lo| <= 2^-23 |u|, or 2^-38 of the row's largest element.
// A row that is not finite, or has no direction, leaves NaN in its own halves only: m passes over what is not finite.
// Work split: one warp a row, three reads of it (the second and third from L1).
// registers: <= 64
// Expected limit: memory. 4 bytes read and 4 written an element of float.
#include "split_line.cuh"

namespace bertft {
namespace {

using namespace split;

// Exponent of a finite float's leading bit, -127 for subnormal numbers and 0.
__device__ __forceinline__ int exponent_of(float v) { return static_cast<int>(__float_as_uint(v) >> 23 & 255u) - 127; }

template <class T> __global__ void __launch_bounds__(256)
    split_rows_kernel(const T* __restrict__ x, long long n, int d, int metric, const double* __restrict__ mean,
                      Rows to, float* __restrict__ stats, BadRows* bad) {
  const int lane = static_cast<int>(threadIdx.x) % 32, chunks = to.chunks;
  const long long layer = blockIdx.y, step = static_cast<long long>(gridDim.x) * 8;
  const double* m = mean + layer * d;
  for (long long r = static_cast<long long>(blockIdx.x) * 8 + threadIdx.x / 32; r < to.padded; r += step) {
    const T* row = x + (layer * n + r) * d;
    double centre = 0, factor = 0, square = 0, along = 0;
    float largest = 0;
    if (r < n) {
      row_statistics(row, layer * n + r, d, metric, bad, centre, factor);
      for (int k = lane; k < d; k += 32) {
        const double v = (static_cast<double>(to_compute(row[k])) - centre) * factor - m[k];
        square += v * v;
        along += v * m[k];
        largest = fmaxf(largest, absolute(static_cast<float>(v)));
      }
    }
#pragma unroll
    for (int o = 16; o > 0; o >>= 1) largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, o));
    square = warp_sum(square);
    along = warp_sum(along);
    const int s = largest > 0 ? 13 - exponent_of(largest) : 0;
    const double up = ldexp(1.0, s);
    __half* line = to.halves + (layer * to.padded + r) * chunks * kLine;
    for (int k = lane; k < chunks * kChunk; k += 32) {
      double v = 0;
      if (r < n && k < d) v = ((static_cast<double>(to_compute(row[k])) - centre) * factor - m[k]) * up;
      const __half hi = __float2half_rn(static_cast<float>(v));
      const __half lo = __float2half_rn(static_cast<float>(v - static_cast<double>(__half2float(hi))));
      line[k / kChunk * kLine + lane] = hi;
      line[k / kChunk * kLine + kChunk + lane] = lo;
    }
    if (lane == 0) {
      to.scale[layer * to.padded + r] = static_cast<float>(ldexp(1.0, -s));
      to.along[layer * to.padded + r] = static_cast<float>(along);
      to.square[layer * to.padded + r] = static_cast<float>(square);
      if (stats && r < n) {
        stats[2 * (layer * n + r)] = static_cast<float>(centre);
        stats[2 * (layer * n + r) + 1] = static_cast<float>(factor);
      }
    }
  }
}

// Calls f with a value of the element type, which is not double.
template <class F> int with_narrow_type(int dtype, F&& f) {
  if (dtype == kFloat64) return kInvalid;
  return with_dtype(dtype, [&](auto zero) {
    if constexpr (sizeof(zero) == 8)
      return kInvalid;
    else
      return f(zero);
  });
}

}  // namespace
}  // namespace bertft

using namespace bertft;

// mean (layers, d), square (layers) |mean|^2: of up to 64 rows of x (layers, n, d) in the metric's form.
extern "C" int split_mean_launch(const void* x, double* mean, double* square, int dtype, int metric, int layers,
                                 long long n, int d, cudaStream_t stream) {
  if (metric < kDot || metric > kEuclidean || layers < 0 || layers > 65535 || n < 0 || d < 0) return kInvalid;
  if (layers == 0) return 0;
  return with_narrow_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    BERTFT_LAUNCH((sample_mean_kernel<T>), dim3(layers), dim3(256), 0, stream, static_cast<const T*>(x), n, d, metric,
                  mean, square);
    return static_cast<int>(cudaGetLastError());
  });
}

// Size of the split rows of `layers` layers of n rows of d columns.
extern "C" int split_rows_bytes(long long* bytes, int layers, long long n, int d) {
  size_t size = 0;
  rows_at(nullptr, layers, n, d, &size);
  *bytes = static_cast<long long>(size);
  return 0;
}

// x (layers, n, d) and mean (layers, d) -> rows (split_rows_bytes) and, unless it is null, stats (layers, n, 2). bad (2):
// as row_statistics_launch has it.
extern "C" int split_rows_launch(const void* x, const double* mean, void* rows, float* stats, long long* bad, int dtype,
                                 int metric, int layers, long long n, int d, cudaStream_t stream) {
  if (metric < kDot || metric > kEuclidean || layers < 0 || layers > 65535 || n < 0 || d < 0) return kInvalid;
  if (int rc = static_cast<int>(cudaMemsetAsync(bad, 0x7f, sizeof(BadRows), stream))) return rc;
  if (layers == 0 || n == 0 || d == 0) return 0;
  const Rows to = rows_at(rows, layers, n, d);
  return with_narrow_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    BERTFT_LAUNCH((split_rows_kernel<T>), dim3(at_most(to.padded / 8, 4096), unsigned(layers)), dim3(256), 0, stream,
                  static_cast<const T*>(x), n, d, metric, mean, to, stats, reinterpret_cast<BadRows*>(bad));
    return static_cast<int>(cudaGetLastError());
  });
}
