// split_rows: rows in a metric's form as sums of two halves, whose products split_tile.cuh forms to float32 accuracy.
//
//   u_i = form(x_i) - m,  s_i = 13 - exponent of the largest |u_ik|:  u_i 2^s_i = hi + lo, 11 bits each
//   x (L, N, D), m (L, D) -> rows (L, P, C, 2, 32) halves: C = D / 32 rounded up, chunks of 32 columns, their 32 high
//   parts and then their 32 low parts, one line of 128 bytes; P = N rounded up to 128; zeros beyond N and D
//   parts = 1: hi alone, (L, P, D / 64 rounded up, 64) halves
//   scale[l, i] = 2^-s_i, along[l, i] = m.u_i, square[l, i] = |u_i|^2, stats[l, i] = (mean, 1 / norm) of the row
// Types: x float, half, bfloat16; norms, means and the differences from m in double.
// The power of two brings the largest element of a row into [2^13, 2^14): any range of values fits into halves, and the
//   low part needs no factor of its own. |u - hi - lo| <= 2^-23 |u|, or 2^-38 of the row's largest element; |u - hi| <=
//   2^-11 |u|.
// A row that is not finite, or has no direction, leaves NaN in its own halves only: m passes over what is not finite.
// Work split: one warp a row, three reads of it (the second and third from L1).
// registers: <= 64
// counters: sample_mean_kernel no bank conflicts, sectors 1.0
// counters: split_rows_kernel sectors 1.0
// float64: split_rows_kernel elements / 32 * 36
// Expected limit: memory. 4 bytes read and 4 written an element of float.
#include "split_rows.cuh"

namespace bertft {
namespace {

using namespace split;

// Calls f with a value of the element type, which is not double.
template <class F>
int with_narrow_type(int dtype, F&& f) {
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

// Size of the split rows of `layers` layers of n rows of d columns, in one or two parts.
extern "C" int split_rows_bytes(long long* bytes, int layers, long long n, int d, int parts) {
  size_t size = 0;
  rows_at(nullptr, layers, n, d, &size, parts);
  *bytes = static_cast<long long>(size);
  return 0;
}

// x (layers, n, d) and mean (layers, d) -> rows (split_rows_bytes) in one or two parts and, unless it is null, stats
// (layers, n, 2). bad (2): as row_statistics_launch has it.
extern "C" int split_rows_launch(const void* x, const double* mean, void* rows, float* stats, long long* bad, int dtype,
                                 int metric, int layers, long long n, int d, int parts, cudaStream_t stream) {
  if (metric < kDot || metric > kEuclidean || layers < 0 || layers > 65535 || n < 0 || d < 0) return kInvalid;
  if (parts != kHigh && parts != kBoth) return kInvalid;
  if (int rc = static_cast<int>(cudaMemsetAsync(bad, 0x7f, sizeof(BadRows), stream))) return rc;
  if (layers == 0 || n == 0 || d == 0) return 0;
  const Rows to = rows_at(rows, layers, n, d, nullptr, parts);
  return with_narrow_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    BERTFT_LAUNCH((split_rows_kernel<T>), dim3(at_most(to.padded / 8, 4096), unsigned(layers)), dim3(256), 0, stream,
                  static_cast<const T*>(x), n, d, metric, mean, to, stats, reinterpret_cast<BadRows*>(bad));
    return static_cast<int>(cudaGetLastError());
  });
}
