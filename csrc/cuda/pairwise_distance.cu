// pairwise_distance: distances between the rows of two stacks of matrices, and their gradient.
//
//   out[b, i, j] = f(x[b, i, :], y[b, j, :])     x (B, N, D), y (B, M, D), out (B, N, M); y absent: y = x
//   condensed (y absent): out[b, i (2N - i - 1) / 2 + j - i - 1], i < j, of (B, N (N - 1) / 2)
//   f: dot x.y | cosine 1 - x.y / (|x| |y|) | correlation: cosine of rows less their own mean
//      sqeuclidean sum (x_k - y_k)^2 | euclidean its root | manhattan sum |x_k - y_k|
// Types: float, double, half, bfloat16; sums in float (double for double); row norms in double.
// Gradient, with respect to the rows in their metric's form (normalised, centred): sum_j w_ij (y_j | x_i - y_j |
//   sign(x_i - y_j)), w from the gradient of out. 0 at distance 0.
// Work split: 256 threads own a tile of 16 R x 16 R pairs, R x R each (R = 8, double: 4); the next 8 columns travel to
//   registers while the present ones are worked on; two stages of shared memory, read by 16-byte loads, one barrier a
//   stage. Without y only tiles on and above the diagonal are computed and written twice: exact symmetry, zero
//   diagonal. The gradient: a tile of 64 rows x 64 columns, 4 x 4 each, over 16 partners at a time.
// Differences are formed before they are squared: no cancellation, duplicates are at distance exactly 0.
// Shared memory: 16.9 KB (forward), 8.7 KB (gradient); both 17.4 for double.
// registers: <= 128
// counters: row_statistics_kernel load sectors 1.0
// counters: pairwise_distance_kernel no bank conflicts, load sectors 1.0, store sectors <= 4.0
// counters: pairwise_gradient_kernel bank conflicts <= 5 %, load sectors <= 2.1, store sectors <= 4.0
// float32: pairwise_distance_kernel warps * 64 * d * terms
// float32: pairwise_gradient_kernel warps * 16 * n * terms
// float64: row_statistics_kernel elements / 32 * 9
// issued: pairwise_distance_kernel warps * (d / 8 * (498 * terms + 227) + 2600)
// issued: pairwise_gradient_kernel warps * n / 16 * 3150
// Expected limit: arithmetic. N M D products (half of that without y), one FFMA each, two instructions where
//   differences are formed; N M D / 64 values read from L2, N M written: 4 bytes each. On an H100 on paper, at N = M =
//   4096 and D = 768: 2.6e10 flops in 0.4 ms (67 TFLOP/s), 0.8 GB from L2 in 0.15 ms. The gradient: as many again for
//   each operand.
// Presumption: N and M in the hundreds or more and D in the hundreds; one tile of a few rows wastes the rest of it.
#include "pairwise_gradient.cuh"

namespace bertft {
namespace {

using namespace pairwise;

template <class C>
__device__ __forceinline__ C finish(C v, int metric) {
  if (scales_rows(metric)) return v < C(1) ? C(1) - v : v == v ? C(0) : v;  // never below 0; NaN stays
  return metric == kEuclidean ? root(v) : v;
}

template <class T, int KIND, int R>
__global__ void __launch_bounds__(NT, 2)
    pairwise_distance_kernel(const T* __restrict__ x, const T* __restrict__ y, const Compute<T>* __restrict__ stats_x,
                             const Compute<T>* __restrict__ stats_y, Compute<T>* __restrict__ out, Shape s,
                             const int* __restrict__ listed, int most) {
  if (listed && listed[blockIdx.y] <= most) return;  // split_gram.cu has done this layer
  using C = Compute<T>;
  using P = Panel<T, R>;
  BERTFT_SHARED(__align__(16) C, stage, [2][2][KC * P::kStride]);
  const int t = static_cast<int>(threadIdx.x), tx = t % 16, ty = t / 16;
  const int tiles = static_cast<int>((s.m + P::kRows - 1) / P::kRows);
  int bi, bj;
  if (s.symmetric)
    triangle_tile(blockIdx.x, tiles, bi, bj);
  else
    bi = static_cast<int>(blockIdx.x / tiles), bj = static_cast<int>(blockIdx.x % tiles);
  const long long i0 = static_cast<long long>(bi) * P::kRows, j0 = static_cast<long long>(bj) * P::kRows;
  const int rows = at_most(s.n - i0, P::kRows), cols = at_most(s.m - j0, P::kRows);
  const bool diagonal = s.symmetric && bi == bj;
  const long long per_batch = s.condensed ? s.n * (s.n - 1) / 2 : s.n * s.m;

  const int b = static_cast<int>(blockIdx.y);
  const T *xb = x + (b * s.n + i0) * s.d, *yb = y + (b * s.m + j0) * s.d;
  const C* sx = stats_x ? stats_x + 2 * (b * s.n + i0) : nullptr;
  const C* sy = stats_y ? stats_y + 2 * (b * s.m + j0) : nullptr;
  C acc[R][R];
  tile_sums<KIND>(acc, stage, xb, yb, sx, sy, rows, cols, s.d);
  C* direct = out + b * per_batch + (s.condensed ? 0 : i0 * s.m + j0);  // offsets within a tile fit 32 bits
  C* mirror = out + b * per_batch + j0 * s.m + i0;
  const int stride = static_cast<int>(s.m);
#pragma unroll
  for (int r = 0; r < R; ++r) {
    const int i = owned(ty, r);
#pragma unroll
    for (int q = 0; q < R; ++q) {
      const int j = owned(tx, q);
      if (i >= rows || j >= cols || (diagonal && i > j)) continue;
      C v = finish(acc[r][q], s.metric);
      if (diagonal && i == j && s.metric != kDot) v = 0;
      if (s.condensed) {
        if (!diagonal || i < j) direct[condensed_index(i0 + i, j0 + j, s.n)] = v;
      } else {
        direct[i * stride + j] = v;
        if (s.symmetric && !(diagonal && i == j)) mirror[j * stride + i] = v;
      }
    }
  }
}

template <class T>
int row_statistics_of(const void* x, long long rows, int d, int metric, void* stats, BadRows* bad,
                      cudaStream_t stream) {
  BERTFT_LAUNCH((row_statistics_kernel<T>), dim3(at_most(ceil_div(rows, 8), 1 << 16)), dim3(256), 0, stream,
                static_cast<const T*>(x), rows, d, metric, static_cast<Compute<T>*>(stats), bad);
  return static_cast<int>(cudaGetLastError());
}

template <class T, int KIND>
int forward(const T* x, const T* y, const Compute<T>* sx, const Compute<T>* sy, Compute<T>* out, Shape s,
            const int* listed, int most, cudaStream_t stream) {
  constexpr int R = sizeof(Compute<T>) == 8 ? 4 : 8;
  const long long rows = ceil_div(s.n, 16 * R), cols = ceil_div(s.m, 16 * R);
  const long long tiles = s.symmetric ? rows * (rows + 1) / 2 : rows * cols;
  if (tiles > 0x7fffffffll || s.n > 1 << 23 || s.m > 1 << 23 || s.d > 1 << 23) return kInvalid;
  BERTFT_LAUNCH((pairwise_distance_kernel<T, KIND, R>), dim3(unsigned(tiles), unsigned(s.batch)), dim3(NT), 0, stream,
                x, y, sx, sy, out, s, listed, most);
  return static_cast<int>(cudaGetLastError());
}

template <class T, int KIND>
int gradient(const T* x, const T* y, const Compute<T>* sy, const Compute<T>* g, const Compute<T>* dist,
             Compute<T>* grad, Shape s, bool transposed, cudaStream_t stream) {
  const dim3 grid(unsigned(ceil_div(s.n, 64)), unsigned(ceil_div(s.d, 64)), unsigned(s.batch));
  BERTFT_LAUNCH((pairwise_gradient_kernel<T, KIND>), grid, dim3(NT), 0, stream, x, y, sy, g, dist, grad, s, transposed);
  return static_cast<int>(cudaGetLastError());
}

// Calls f with the kind of term that a metric sums.
template <class F>
int with_kind(int metric, F&& f) {
  if (metric < kDot || metric > kManhattan) return kInvalid;
  if (metric == kManhattan) return f(std::integral_constant<int, kAbsolute>{});
  if (metric == kSqEuclidean || metric == kEuclidean) return f(std::integral_constant<int, kSquare>{});
  return f(std::integral_constant<int, kProduct>{});
}

}  // namespace
}  // namespace bertft

using namespace bertft;

// stats (rows, 2), unless null: mean and inverse norm of the rows of x (rows, D), in the type sums run in. bad (2): the
// least row that is not finite, and the least without a direction, kNoRow for none.
extern "C" int row_statistics_launch(const void* x, void* stats, long long* bad, int dtype, int metric, long long rows,
                                     int d, cudaStream_t stream) {
  if (metric < kDot || metric > kManhattan || rows < 0 || d < 0) return kInvalid;
  if (int rc = static_cast<int>(cudaMemsetAsync(bad, 0x7f, sizeof(BadRows), stream))) return rc;
  if (rows == 0) return 0;
  return with_dtype(dtype, [&](auto zero) {
    return row_statistics_of<decltype(zero)>(x, rows, d, metric, stats, reinterpret_cast<BadRows*>(bad), stream);
  });
}

// y null: pairs among the rows of x (m is ignored). stats_x, stats_y: from row_statistics_launch for cosine and
// correlation, else null; stats_y of an absent y is stats_x. listed (batch): unless it is null, only layers for which
// it is greater than `most` are computed.
extern "C" int pairwise_distance_launch(const void* x, const void* y, const void* stats_x, const void* stats_y,
                                        void* out, const int* listed, int most, int dtype, int metric, int batch,
                                        long long n, long long m, int d, int condensed, cudaStream_t stream) {
  if (batch < 0 || batch > 65535 || n < 0 || m < 0 || d < 0 || (condensed && y) ||
      scales_rows(metric) != (stats_x != nullptr)) {
    return kInvalid;
  }
  const Shape s{n, y ? m : n, d, batch, metric, y == nullptr, condensed != 0};
  if (s.n == 0 || s.m == 0 || batch == 0 || (condensed && n == 1)) return 0;
  return with_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    using C = Compute<T>;
    const T *px = static_cast<const T*>(x), *py = y ? static_cast<const T*>(y) : px;
    const C* sx = static_cast<const C*>(stats_x);
    const C* sy = y ? static_cast<const C*>(stats_y) : sx;
    return with_kind(metric, [&](auto kind) {
      return forward<T, decltype(kind)::value>(px, py, sx, sy, static_cast<C*>(out), s, listed, most, stream);
    });
  });
}

// grad (B, N, D), in the type sums run in, of the rows of x; for those of y call it with x and y (and N and M) changed
// over and transposed = 1. g, dist: gradient of the distances, and (euclidean only) the distances, laid out as `out`.
extern "C" int pairwise_gradient_launch(const void* x, const void* y, const void* stats_x, const void* stats_y,
                                        const void* g, const void* dist, void* grad, int dtype, int metric, int batch,
                                        long long n, long long m, int d, int condensed, int transposed,
                                        cudaStream_t stream) {
  if (batch < 0 || batch > 65535 || n < 0 || m < 0 || d < 0 || (condensed && y) ||
      scales_rows(metric) != (stats_x != nullptr) || (metric == kEuclidean) != (dist != nullptr)) {
    return kInvalid;
  }
  const Shape s{n, y ? m : n, d, batch, metric, y == nullptr, condensed != 0};
  if (s.n == 0 || d == 0 || batch == 0) return 0;
  return with_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    using C = Compute<T>;
    const T *px = static_cast<const T*>(x), *py = y ? static_cast<const T*>(y) : px;
    const C* sy = static_cast<const C*>(y ? stats_y : stats_x);
    C* out = static_cast<C*>(grad);
    return with_kind(metric, [&](auto kind) {
      return gradient<T, decltype(kind)::value>(px, py, sy, static_cast<const C*>(g), static_cast<const C*>(dist), out,
                                                s, transposed != 0, stream);
    });
  });
}
