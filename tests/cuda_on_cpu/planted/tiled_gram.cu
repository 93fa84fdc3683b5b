// tiled_gram.cu -- an example to test the checker with; each number BUG plants a bug (test_planted_bugs.py).
//
//   g[i][j] = sum_k x[i][k] x[j][k],  total = sum_ij g[i][j];  x (n, d) float32
//
// One block of 256 threads for a 16 x 16 tile of g, chunks of 8 columns in shared memory; block sums in float64,
// folded by a second kernel.
#include "bugs.h"
#include "gpu.h"

namespace {

constexpr int kTile = 16, kChunk = 8, kThreads = kTile * kTile, kWarps = kThreads / 32;

template <int BUG>
__device__ double warp_sum(double v) {
  constexpr unsigned lanes = BUG == 3 ? 0x0000ffffu : 0xffffffffu;
  for (int o = BUG == 4 ? 8 : 16; o > 0; o /= 2) v += __shfl_xor_sync(lanes, v, o);
  return v;
}

template <int BUG>
__device__ double block_sum(double v, double (&warps)[kWarps]) {
  const int t = threadIdx.x;
  v = warp_sum<BUG>(v);
  if (t % 32 == 0) warps[t / 32] = v;
  if (BUG != 6) __syncthreads();
  double sum = 0;
  if (t == 0)
    for (double w : warps) sum += w;
  return sum;
}

template <int BUG>
__global__ void __launch_bounds__(kThreads)
    gram_kernel(const float* __restrict__ x, int n, int d, float* __restrict__ g, double* __restrict__ partial) {
  BERTFT_SHARED(float, a, [kTile][kChunk + 1]);
  BERTFT_SHARED(float, b, [kTile][kChunk + 1]);
  BERTFT_SHARED(double, warps, [kWarps]);
  const int t = threadIdx.x, row = t / kTile, column = t % kTile;
  const int i = blockIdx.y * kTile + row, j = blockIdx.x * kTile + column;
  float sum = 0.f;
  for (int k0 = 0; k0 < d; k0 += kChunk) {
    // first half of the threads fetches rows of tile a, the second half those of tile b
    const int r = t / kChunk % kTile, k = t % kChunk, first = (t < kThreads / 2 ? blockIdx.y : blockIdx.x) * kTile;
    const bool in_row = BUG == 7 || first + r < n, in_column = BUG == 2 ? k0 + k <= d : k0 + k < d;
    (t < kThreads / 2 ? a : b)[r][k] = in_row && in_column ? x[(size_t)(first + r) * d + k0 + k] : 0.f;
    if (BUG != 1) __syncthreads();
    for (int c = 0; c < kChunk; ++c) sum += a[row][c] * b[column][c];
    if (BUG != 5) __syncthreads();
  }
  const bool inside = BUG == 8 ? i <= n && j < n : i < n && j < n;
  if (inside) g[(size_t)i * n + j] = sum;
  const double total = block_sum<BUG>(inside ? sum : 0.f, warps);
  if (t == 0) partial[blockIdx.y * gridDim.x + blockIdx.x] = total;
}

template <int BUG>
__global__ void __launch_bounds__(kThreads)
    fold_kernel(const double* __restrict__ partial, int count, double* __restrict__ out) {
  BERTFT_SHARED(double, warps, [kWarps]);
  double v = 0;
  for (int b = threadIdx.x; b < count; b += kThreads) v += partial[b];
  v = block_sum<BUG>(v, warps);
  if (threadIdx.x == 0) *out = v;
}

}  // namespace

extern "C" int gram(const float* x, int n, int d, float* g, double* partial, double* total, int bug,
                    cudaStream_t stream) {
  return with_bug<9>(bug, [&](auto number) {
    constexpr int BUG = number;
    const int tiles = (n + kTile - 1) / kTile;
    const int count = BUG == 9 ? tiles * tiles + 1 : tiles * tiles;  // 9: one partial sum that nobody has written
    BERTFT_LAUNCH(gram_kernel<BUG>, dim3(tiles, tiles), dim3(kThreads), 0, stream, x, n, d, g, partial);
    BERTFT_LAUNCH(fold_kernel<BUG>, dim3(1), dim3(kThreads), 0, stream, partial, count, total);
    return static_cast<int>(cudaGetLastError());
  });
}
