// patterns.cu -- the smallest legal and illegal uses of each thing that the checker knows (test_patterns.py).
#include "gpu.h"

namespace {

// ---- legal ----------------------------------------------------------------------------------------------------------
__global__ void syncwarp_orders(float* out) {
  BERTFT_SHARED(float, s, [64]);
  const int t = threadIdx.x;
  s[t] = static_cast<float>(t);
  __syncwarp();
  const float v = s[t ^ 1];
  __syncwarp();
  s[t] = v + 1;
  __syncwarp();
  out[t] = s[t ^ 3];
}

__global__ void half_warp_shuffle(float* out) {
  const int t = threadIdx.x;
  const unsigned half = t % 32 < 16 ? 0x0000ffffu : 0xffff0000u;
  float v = static_cast<float>(t);
  for (int o = 8; o > 0; o /= 2) v += __shfl_xor_sync(half, v, o, 16);
  out[t] = v;
}

__global__ void shared_words(float* out) {  // neighbouring threads write halves of one 32-bit word
  BERTFT_SHARED(unsigned short, s, [64]);
  const int t = threadIdx.x;
  s[t] = static_cast<unsigned short>(t);
  __syncthreads();
  out[t] = s[63 - t];
}

__global__ void votes(float* out) {
  const int t = threadIdx.x;
  const int count = __syncthreads_count(t % 3 == 0);
  const unsigned odd = __ballot_sync(0xffffffffu, t & 1);
  const bool all = __syncthreads_and(t < 64), any = __syncthreads_or(t == 63);
  out[t] = static_cast<float>(count * 1000 + __popc(odd) + 100 * (all && any));
}

__global__ void atomic_total(float* out) { atomicAdd(out, 1.f + threadIdx.x); }

__device__ void total_of_blocks(float* out, bool fence) {  // out[1 ..] partial sums, out[0] total, out[63] counter
  BERTFT_SHARED(int, last, [1]);
  if (threadIdx.x == 0) {
    out[1 + blockIdx.x] = static_cast<float>(blockIdx.x + 1);
    if (fence) __threadfence();
    last[0] = atomicAdd(out + 63, 1.f) == static_cast<float>(gridDim.x - 1);
  }
  __syncthreads();
  if (last[0] && threadIdx.x == 0) {
    __threadfence();
    float total = 0.f;
    for (unsigned b = 0; b < gridDim.x; ++b) total += out[1 + b];
    out[0] = total;
  }
}
__global__ void last_block_adds(float* out) { total_of_blocks(out, true); }

// ---- illegal --------------------------------------------------------------------------------------------------------
__global__ void last_block_without_fence(float* out) { total_of_blocks(out, false); }

__global__ void shuffle_is_no_barrier(float* out) {
  BERTFT_SHARED(float, s, [64]);
  const int t = threadIdx.x;
  s[t] = static_cast<float>(t);
  __shfl_sync(0xffffffffu, t, 0);
  out[t] = s[t ^ 1];
}

__global__ void syncwarp_of_other_lanes(float* out) {  // each half waits for itself only
  BERTFT_SHARED(float, s, [64]);
  const int t = threadIdx.x;
  s[t] = static_cast<float>(t);
  __syncwarp(t % 32 < 16 ? 0x0000ffffu : 0xffff0000u);
  out[t] = s[t ^ 16];
}

__global__ void blocks_race(float* out) {
  if (threadIdx.x == 0) out[0] += 1.f;
}

__global__ void atomic_and_plain(float* out) {
  if (threadIdx.x == 5) out[0] = 1.f;
  else atomicAdd(out, 1.f);
}

__global__ void two_barriers(float* out) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = 1.f;
}

__global__ void lanes_never_meet(float* out) {
  if (threadIdx.x % 32 == 0) __syncthreads();
  else __shfl_sync(0xffffffffu, 1, 0);
  out[threadIdx.x] = 1.f;
}

__global__ void static_shared_too_large(float* out) {
  BERTFT_SHARED(float, s, [13000]);
  s[threadIdx.x] = 1.f;
  out[threadIdx.x] = s[threadIdx.x];
}

__global__ void float4_store(float4* out) { out[threadIdx.x] = make_float4(1, 2, 3, 4); }

__global__ void product_overflows(float* out) {
  const int n = 70000 + threadIdx.x, p = n * n;
  out[threadIdx.x] = static_cast<float>(p);
}

__global__ void inner_index(float* out) {  // runs past its row, inside the array
  BERTFT_SHARED(float, s, [4][16]);
  const int t = threadIdx.x;
  s[t / 16][t % 16] = 1.f;
  __syncthreads();
  out[t] = s[t / 32][t % 32];
}

__global__ void copy_of_six_bytes(float* out) {
  BERTFT_SHARED(__align__(16) char, s, [64 * 16]);
  __pipeline_memcpy_async(s + threadIdx.x * 16, out + threadIdx.x, 6);
  __pipeline_commit();
  __pipeline_wait_prior(0);
}

__global__ void unwritten_lane(float* out) {  // lane 31 of 48 threads' second warp does not exist
  const int t = threadIdx.x;
  out[t] = __shfl_sync(0xffffffffu, static_cast<float>(t), 31);
}

}  // namespace

#define LAUNCHER(kernel, blocks, threads)                               \
  extern "C" int run_##kernel(float* out, cudaStream_t stream) {        \
    BERTFT_LAUNCH(kernel, dim3(blocks), dim3(threads), 0, stream, out); \
    return static_cast<int>(cudaGetLastError());                        \
  }

LAUNCHER(syncwarp_orders, 1, 64)
LAUNCHER(half_warp_shuffle, 1, 64)
LAUNCHER(shared_words, 1, 64)
LAUNCHER(votes, 1, 64)
LAUNCHER(atomic_total, 3, 64)
LAUNCHER(last_block_adds, 5, 32)
LAUNCHER(last_block_without_fence, 5, 32)
LAUNCHER(shuffle_is_no_barrier, 1, 64)
LAUNCHER(syncwarp_of_other_lanes, 1, 64)
LAUNCHER(blocks_race, 3, 32)
LAUNCHER(atomic_and_plain, 1, 64)
LAUNCHER(two_barriers, 1, 64)
LAUNCHER(lanes_never_meet, 1, 64)
LAUNCHER(static_shared_too_large, 1, 64)
LAUNCHER(product_overflows, 1, 64)
LAUNCHER(inner_index, 1, 64)
LAUNCHER(copy_of_six_bytes, 1, 64)
LAUNCHER(unwritten_lane, 1, 48)

extern "C" int run_block_too_large(float* out, cudaStream_t stream) {
  BERTFT_LAUNCH(blocks_race, dim3(1), dim3(1056), 0, stream, out);
  return static_cast<int>(cudaGetLastError());
}

extern "C" int run_shared_not_allowed(float* out, cudaStream_t stream) {
  BERTFT_LAUNCH(blocks_race, dim3(1), dim3(32), 64 * 1024, stream, out);
  return static_cast<int>(cudaGetLastError());
}

extern "C" int run_shared_beyond_device(float* out, cudaStream_t stream) {
  const cudaError_t rc = cudaFuncSetAttribute(blocks_race, cudaFuncAttributeMaxDynamicSharedMemorySize, 256 * 1024);
  if (rc != cudaSuccess) return static_cast<int>(rc);
  BERTFT_LAUNCH(blocks_race, dim3(1), dim3(32), 256 * 1024, stream, out);
  return static_cast<int>(cudaGetLastError());
}

extern "C" int run_misaligned_vector(float* out, cudaStream_t stream) {
  BERTFT_LAUNCH(float4_store, dim3(1), dim3(8), 0, stream, reinterpret_cast<float4*>(out + 1));
  return static_cast<int>(cudaGetLastError());
}

extern "C" int run_host_refusal(float*, cudaStream_t) { return static_cast<int>(cudaErrorInvalidValue); }
