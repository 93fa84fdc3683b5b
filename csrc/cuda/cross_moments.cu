// cross_moments: the work on rows that surrounds the library products U'U, U'V, V'V of a chunk of stimuli.
//
//   u_i = row i of x in the metric's form less the provisional mean m, a_i = |u_i|^2, p_i = m.u_i (sqeuclidean:
//   -a_i / 2); v_i, b_i, q_i of y alike; sums over rows i (ops/moments.py):
//   stats_x  += sum u | sum p u | sum a u | n, sum a, sum p, sum a^2, sum a p, sum p^2
//   stats_xy += sum q u | sum b u | sum p v | sum a v | sum a b, sum p q, sum q a, sum p b
//   x (n, D), u (n, D), a, p (n,) double, stats double; total (D, E) double += product (D, E)
// Types: x float, double, half or bfloat16; u float, or double (for double input or on demand); sums in double.
// Work split: prepare: one warp a row, which it reads from memory once: statistics, then u, a and p. Weighted sums: a
//   block owns 32 columns and 512 rows, threads are 32 columns x 8 rows; up to three weights in one read of u; the
//   partial sums of the row blocks are added in a fixed order, as are those of the scalars. Accumulate: elementwise.
// Shared memory: 6 KB.
// registers: <= 64
// counters: prepare_rows_kernel sectors 1.0
// counters: weighted_sums_kernel no bank conflicts, sectors 1.0
// counters: add_partial_kernel sectors 1.0
// counters: accumulate_kernel sectors 1.0
// counters: scalar_sums_kernel no bank conflicts, load sectors 1.0
// float64: prepare_rows_kernel elements / 32 * 25
// float64: weighted_sums_kernel elements / 32 * 7
// Expected limit: memory. Prepare reads and writes n D values, a weighted sum reads n D, accumulate moves 20 bytes an
//   element and chunk. On paper on an H100, two spaces in float, n = 4096, D = E = 768: 135 MB, 0.04 ms at 3.35 TB/s;
//   the three library products between them, 1.4e10 flops, take 0.22 ms at 67 TFLOP/s.
// Presumption: chunks of thousands of rows, so that accumulate (n-independent) and the folds do not matter.
#include "rows.cuh"

namespace bertft {
namespace {

constexpr int NT = 256, kLanes = 32, kSlices = NT / kLanes, kRowsOfBlock = 512, kMost = 3;

template <class T, class E>
int prepare(const void* x, const double* mean, void* u, double* a, double* p, long long* bad, int metric, long long n,
            int d, cudaStream_t stream) {
  BERTFT_LAUNCH((prepare_rows_kernel<T, E, double>), dim3(at_most(ceil_div(n, 8), 1 << 16)), dim3(NT), 0, stream,
                static_cast<const T*>(x), n, d, metric, mean, static_cast<E*>(u), n, d, a, p,
                reinterpret_cast<BadRows*>(bad));
  return static_cast<int>(cudaGetLastError());
}

// Weights of rows; a null pointer stands for ones.
struct Weights {
  const double* of[kMost];
};

// partial[block row][w][k] = sum over the block's rows of weight w times u[., k].
template <class E>
__global__ void __launch_bounds__(NT, 2)
    weighted_sums_kernel(const E* __restrict__ u, long long n, int d, Weights weights, int count,
                         double* __restrict__ partial) {
  BERTFT_SHARED(double, slices, [kMost][kSlices][kLanes]);
  const int lane = static_cast<int>(threadIdx.x) % kLanes, slice = static_cast<int>(threadIdx.x) / kLanes;
  const int k = static_cast<int>(blockIdx.x) * kLanes + lane;
  const long long first = static_cast<long long>(blockIdx.y) * kRowsOfBlock, last = min(n, first + kRowsOfBlock);
  double sum[kMost] = {};
  if (k < d) {
    for (long long i = first + slice; i < last; i += kSlices) {
      const double v = u[i * d + k];
#pragma unroll
      for (int w = 0; w < kMost; ++w)
        if (w < count) sum[w] += weights.of[w] ? weights.of[w][i] * v : v;
    }
  }
#pragma unroll
  for (int w = 0; w < kMost; ++w) slices[w][slice][lane] = sum[w];
  __syncthreads();
  if (slice < count && k < d) {
    double total = 0;
    for (int s = 0; s < kSlices; ++s) total += slices[slice][s][lane];
    partial[(static_cast<long long>(blockIdx.y) * count + slice) * d + k] = total;
  }
}

// out[e] += sum over blocks of partial[block][e], always in the same order.
static __global__ void __launch_bounds__(NT)
    add_partial_kernel(const double* __restrict__ partial, int blocks, long long size, double* __restrict__ out) {
  const long long e = static_cast<long long>(blockIdx.x) * NT + threadIdx.x;
  if (e >= size) return;
  double sum = 0;
  for (int b = 0; b < blocks; ++b) sum += partial[b * size + e];
  out[e] += sum;
}

// Products of two weights summed over rows, out[block] += sum_i left_i right_i; null stands for ones.
struct Products {
  const double *left[6], *right[6];
};
static __global__ void __launch_bounds__(NT)
    scalar_sums_kernel(Products products, long long n, double* __restrict__ out) {
  BERTFT_SHARED(double, scratch, [NT / 32]);
  const double *left = products.left[blockIdx.x], *right = products.right[blockIdx.x];
  double sum = 0;
  for (long long i = threadIdx.x; i < n; i += NT) sum += (left ? left[i] : 1.0) * (right ? right[i] : 1.0);
  sum = block_sum<NT>(sum, scratch);
  if (threadIdx.x == 0) out[blockIdx.x] += sum;
}

template <class C>
__global__ void __launch_bounds__(NT)
    accumulate_kernel(const C* __restrict__ product, long long size, double* __restrict__ total) {
  const long long step = static_cast<long long>(gridDim.x) * NT;
  for (long long e = static_cast<long long>(blockIdx.x) * NT + threadIdx.x; e < size; e += step) {
    total[e] += static_cast<double>(product[e]);
  }
}

template <class E>
int weighted_sums(const void* u, const Weights& weights, int count, long long n, int d, double* partial, double* out,
                  cudaStream_t stream) {
  const long long blocks = ceil_div(n, kRowsOfBlock), size = static_cast<long long>(count) * d;
  if (d == 0) return 0;
  if (blocks > 65535) return kInvalid;
  BERTFT_LAUNCH((weighted_sums_kernel<E>), dim3(unsigned(ceil_div(d, kLanes)), unsigned(blocks)), dim3(NT), 0, stream,
                static_cast<const E*>(u), n, d, weights, count, partial);
  BERTFT_LAUNCH(add_partial_kernel, dim3(unsigned(ceil_div(size, NT))), dim3(NT), 0, stream, partial, int(blocks), size,
                out);
  return static_cast<int>(cudaGetLastError());
}

}  // namespace
}  // namespace bertft

using namespace bertft;

// x (n, D) of type dtype -> u (n, D) of type u_dtype (kFloat32 or kFloat64), a, p (n,); bad (2,):
// row_statistics_launch.
extern "C" int prepare_rows_launch(const void* x, const double* mean, void* u, double* a, double* p, long long* bad,
                                   int dtype, int u_dtype, int metric, long long n, int d, cudaStream_t stream) {
  if (metric < kDot || metric > kSqEuclidean || n < 0 || d < 0 || (u_dtype != kFloat32 && u_dtype != kFloat64)) {
    return kInvalid;
  }
  if (int rc = static_cast<int>(cudaMemsetAsync(bad, 0x7f, sizeof(BadRows), stream))) return rc;
  if (n == 0) return 0;
  return with_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    if (u_dtype == kFloat64) return prepare<T, double>(x, mean, u, a, p, bad, metric, n, d, stream);
    return prepare<T, float>(x, mean, u, a, p, bad, metric, n, d, stream);
  });
}

// Rows that one block of the weighted sums takes: `partial` below is (3, D, ceil(n / that)) double.
extern "C" int moment_rows_of_block(int* rows) { return *rows = kRowsOfBlock, 0; }

// stats (3 D + 6,) += the sums of one space.
extern "C" int space_sums_launch(const void* u, const double* a, const double* p, double* partial, double* stats,
                                 int u_dtype, long long n, int d, cudaStream_t stream) {
  if (n < 0 || d < 0 || (u_dtype != kFloat32 && u_dtype != kFloat64)) return kInvalid;
  if (n == 0) return 0;
  const Weights weights{{nullptr, p, a}};
  const int rc = u_dtype == kFloat64 ? weighted_sums<double>(u, weights, 3, n, d, partial, stats, stream)
                                     : weighted_sums<float>(u, weights, 3, n, d, partial, stats, stream);
  if (rc) return rc;
  const Products products{{nullptr, a, p, a, a, p}, {nullptr, nullptr, nullptr, a, p, p}};
  BERTFT_LAUNCH(scalar_sums_kernel, dim3(6), dim3(NT), 0, stream, products, n, stats + 3ll * d);
  return static_cast<int>(cudaGetLastError());
}

// stats (2 D + 2 E + 4,) += the sums of two spaces; a, p of u (n, D), b, q of v (n, E).
extern "C" int pair_sums_launch(const void* u, const void* v, const double* a, const double* p, const double* b,
                                const double* q, double* partial, double* stats, int u_dtype, long long n, int d, int e,
                                cudaStream_t stream) {
  if (n < 0 || d < 0 || e < 0 || (u_dtype != kFloat32 && u_dtype != kFloat64)) return kInvalid;
  if (n == 0) return 0;
  const Weights of_y{{q, b, nullptr}}, of_x{{p, a, nullptr}};
  const auto sums = u_dtype == kFloat64 ? weighted_sums<double> : weighted_sums<float>;
  if (int rc = sums(u, of_y, 2, n, d, partial, stats, stream)) return rc;
  if (int rc = sums(v, of_x, 2, n, e, partial, stats + 2ll * d, stream)) return rc;
  const Products products{{a, p, q, p}, {b, q, a, b}};
  BERTFT_LAUNCH(scalar_sums_kernel, dim3(4), dim3(NT), 0, stream, products, n, stats + 2ll * d + 2ll * e);
  return static_cast<int>(cudaGetLastError());
}

// total += product, `size` elements; product of type dtype (kFloat32 or kFloat64).
extern "C" int accumulate_launch(const void* product, double* total, int dtype, long long size, cudaStream_t stream) {
  if (size < 0 || (dtype != kFloat32 && dtype != kFloat64)) return kInvalid;
  if (size == 0) return 0;
  const dim3 grid(at_most(ceil_div(size, NT), 1 << 14));
  if (dtype == kFloat64) {
    BERTFT_LAUNCH((accumulate_kernel<double>), grid, dim3(NT), 0, stream, static_cast<const double*>(product), size,
                  total);
  } else {
    BERTFT_LAUNCH((accumulate_kernel<float>), grid, dim3(NT), 0, stream, static_cast<const float*>(product), size,
                  total);
  }
  return static_cast<int>(cudaGetLastError());
}
