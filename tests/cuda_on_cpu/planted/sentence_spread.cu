// sentence_spread.cu -- an example to test the checker with; each number BUG plants a bug (test_planted_bugs.py).
//
//   spread[s] = sum_ij |h_i - h_j|^2 / n_s^2 over the words i, j of sentence s;  h (T, d) float32, offsets (S + 1)
//
// One block of 64 threads for a sentence, its words in dynamic shared memory; a warp takes every second word i, its
// lanes the words j.
#include "bugs.h"
#include "gpu.h"

namespace {

constexpr int kThreads = 64, kWarps = kThreads / 32;

template <int BUG>
__global__ void __launch_bounds__(kThreads)
    spread_kernel(const float* __restrict__ h, const int* __restrict__ offsets, int d, float* __restrict__ spread) {
  BERTFT_DYN_SHARED(float, words);
  BERTFT_SHARED(float, warps, [kWarps]);
  const int s = blockIdx.x, t = threadIdx.x, warp = t / 32, lane = t % 32;
  const int first = offsets[s], n = offsets[s + 1] - first, stride = d + 1;
  if (BUG != 7 || s == 0)  // 7: later blocks count on what the first one has left behind
    for (int e = t; e < n * d; e += kThreads) words[e / d * stride + e % d] = h[(size_t)first * d + e];
  if (BUG != 1) __syncthreads();
  float sum = 0.f;
  for (int i = warp; i < n; i += kWarps)
    for (int j = lane; BUG == 2 ? j <= n : j < n; j += 32)
      for (int k = 0; k < d; ++k) {
        const float z = words[i * stride + k] - words[j * stride + k];
        sum += z * z;
      }
  if (BUG == 4 && t >= n) return;  // 4: these threads never reach the barrier
  if (BUG != 3 || lane < 16)       // 3: half a warp calls a shuffle that names the whole warp
    for (int o = 16; o > 0; o /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, o);
  if (lane == 0) {
    warps[warp] = sum;
    if (BUG == 6) __syncthreads();  // 6: a barrier that only some threads reach
  }
  if (BUG != 6) __syncthreads();
  if (t == 0) spread[s] = (warps[0] + warps[1]) / ((float)n * (float)n);
}

}  // namespace

extern "C" int spread(const float* h, const int* offsets, int sentences, int longest, int d, float* out, int bug,
                      cudaStream_t stream) {
  return with_bug<7>(bug, [&](auto number) {
    constexpr int BUG = number;
    const size_t words = BUG == 5 ? longest - 1 : longest;  // 5: room for one word too few
    const size_t bytes = words * (d + 1) * sizeof(float);
    BERTFT_LAUNCH(spread_kernel<BUG>, dim3(sentences), dim3(kThreads), bytes, stream, h, offsets, d, out);
    return static_cast<int>(cudaGetLastError());
  });
}
