// core_rate: how much faster a card's tensor cores multiply float16 than its float32 units multiply float32.
//
//   cycles[0]: 64 x 8 mma.m16n8k16 a warp, 2,048 multiply-adds each; cycles[1]: 64 x 8 FFMA a warp, 32 each
// Why measured: data-centre cards have 8 to 16 times the rate, GeForce cards of the same compute capability twice, and
//   three products of halves replace one of floats (split_tile.cuh).
// Work split: one block of 16 warps, four to each quarter of a multiprocessor; each part runs once before it is timed.
// registers: <= 64
// tensor cores
// counters: core_rate_kernel store sectors 1.0
// Expected limit: the units themselves; some 20 microseconds.
#include "split_tile.cuh"

namespace bertft {
namespace {

constexpr int kThreads = 512, kRounds = 64, kEach = 8;

// Runs `part` twice; thread 0 notes how long the second run of the whole block took.
template <class F>
__device__ __forceinline__ void timed(long long* cycles, F&& part) {
  part();
  __syncthreads();
  const long long start = clock64();
  part();
  __syncthreads();
  if (threadIdx.x == 0) *cycles = clock64() - start;
  __syncthreads();
}

__global__ void __launch_bounds__(kThreads) core_rate_kernel(long long* __restrict__ cycles, float* __restrict__ sink) {
  const int t = static_cast<int>(threadIdx.x);
  float sums[kEach][4] = {};
  const unsigned a[4] = {0x3c003c00u, 0x3c003c00u, 0x3c003c00u, 0x3c003c00u}, b[2] = {0x3c003c00u, 0x3c003c00u};
  timed(cycles, [&] {
#pragma unroll 1
    for (int round = 0; round < kRounds; ++round)
#pragma unroll
      for (int e = 0; e < kEach; ++e) bertft_mma_m16n8k16_f16(sums[e], a, b);
  });
  float factor = 1.f + 1e-6f * t;
  timed(cycles + 1, [&] {
#pragma unroll 1
    for (int round = 0; round < kRounds; ++round)
#pragma unroll
      for (int e = 0; e < kEach; ++e) sums[e][0] = __fmaf_rn(sums[e][0], factor, factor);
  });
  float all = 0;
#pragma unroll
  for (int e = 0; e < kEach; ++e) all += sums[e][0] + sums[e][1] + sums[e][2] + sums[e][3];
  sink[t] = all;  // or the compiler would leave everything out
}

}  // namespace
}  // namespace bertft

using namespace bertft;

// Whether the current card can run split_gram.cu at all: 8.0 or later, with room for two stages.
extern "C" int split_core_serves(int* yes) {
  *yes = device_attribute(cudaDevAttrComputeCapabilityMajor) >= 8 && split::ring_stages() > 0;
  return 0;
}

// cycles (2), sink (512). The cores' rate in units of float32's: 64 cycles[1] / cycles[0].
extern "C" int core_rate_launch(long long* cycles, float* sink, cudaStream_t stream) {
  if (device_attribute(cudaDevAttrComputeCapabilityMajor) < 8) return kInvalid;
  BERTFT_LAUNCH(core_rate_kernel, dim3(1), dim3(kThreads), 0, stream, cycles, sink);
  return static_cast<int>(cudaGetLastError());
}
