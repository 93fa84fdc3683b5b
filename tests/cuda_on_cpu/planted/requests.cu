// requests.cu -- requests of a warp whose cost is known by hand, and kernels that break promises (test_counters.py).
//
// counters: transpose_kernel no bank conflicts, sectors 1.0
// counters: matrix_kernel no bank conflicts, load sectors 1.0
#include "bugs.h"
#include "gpu.h"

namespace {

// Lane t stores to and loads from element t * stride + first, of 4, 8 or 16 bytes.
template <class T>
__global__ void shared_kernel(float* out, int stride, int first) {
  BERTFT_SHARED(__align__(16) T, s, [8192 / sizeof(T)]);
  const int t = threadIdx.x, at = (t * stride + first) % static_cast<int>(8192 / sizeof(T));
  s[at] = T{};
  __syncwarp();
  const T v = s[at];
  out[t] = *reinterpret_cast<const float*>(&v);
}

// The first `lanes` lanes load element t * stride + first, once in each of `rounds` rounds.
template <class T>
__global__ void global_kernel(const T* x, float* out, int stride, int first, int lanes, int rounds) {
  const int t = threadIdx.x;
  float sum = 0;
  for (int r = 0; r < rounds; ++r) {
    if (t >= lanes) continue;
    const T v = x[t * stride + first];
    sum += *reinterpret_cast<const float*>(&v);
  }
  out[t] = sum;
}

// Lane t adds to word t * stride of shared memory.
__global__ void atomic_kernel(float* out, int stride) {
  BERTFT_SHARED(int, s, [1024]);
  const int t = threadIdx.x;
  s[t] = 0;
  __syncwarp();
  atomicAdd(s + t * stride, 1);
  __syncwarp();
  out[t] = static_cast<float>(s[t]);
}

// out = x', (32, 32), by way of shared memory. 1: the columns of the tile share a bank. 2: written column by column.
template <int BUG>
__global__ void transpose_kernel(const float* __restrict__ x, float* __restrict__ out) {
  BERTFT_SHARED(float, tile, [32 * 33]);
  const int lane = threadIdx.x % 32, stride = BUG == 1 ? 32 : 33;
  for (int r = threadIdx.x / 32; r < 32; r += 4) tile[r * stride + lane] = x[r * 32 + lane];
  __syncthreads();
  for (int r = threadIdx.x / 32; r < 32; r += 4) {
    if (BUG == 2)
      out[lane * 32 + r] = tile[r * stride + lane];
    else
      out[r * 32 + lane] = tile[lane * stride + r];
  }
}

// c = a a' of 16 rows of 64 halves, whose pieces of 16 bytes are exchanged by the row number. 3: which they are not.
template <int BUG>
__global__ void matrix_kernel(const __half* __restrict__ a, float* __restrict__ c) {
  BERTFT_SHARED(__align__(16) __half, s, [16 * 64]);
  const int lane = threadIdx.x;
  const auto at = [](int row, int piece) { return row * 64 + (BUG == 3 ? piece : piece ^ (row & 7)) * 8; };
  for (int e = lane; e < 16 * 8; e += 32) __pipeline_memcpy_async(s + at(e / 8, e % 8), a + e * 8, 16);
  __pipeline_commit();
  __pipeline_wait_prior(0);
  __syncwarp();
  float sums[2][4] = {};
  for (int k = 0; k < 4; ++k) {
    unsigned left[4], right[4];
    bertft_ldmatrix_x4(left, s + at(lane % 16, 2 * k + lane / 16));
    bertft_ldmatrix_x4(right, s + at(lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
    for (int n = 0; n < 2; ++n) {
      const unsigned columns[2] = {right[2 * n], right[2 * n + 1]};
      bertft_mma_m16n8k16_f16(sums[n], left, columns);
    }
  }
  for (int n = 0; n < 2; ++n)
    for (int e = 0; e < 4; ++e) c[(lane / 4 + e / 2 * 8) * 16 + n * 8 + lane % 4 * 2 + e % 2] = sums[n][e];
}

}  // namespace

extern "C" int shared(float* out, int bytes, int stride, int first, cudaStream_t stream) {
  if (bytes == 4) BERTFT_LAUNCH(shared_kernel<float>, dim3(1), dim3(32), 0, stream, out, stride, first);
  if (bytes == 8) BERTFT_LAUNCH(shared_kernel<float2>, dim3(1), dim3(32), 0, stream, out, stride, first);
  if (bytes == 16) BERTFT_LAUNCH(shared_kernel<float4>, dim3(1), dim3(32), 0, stream, out, stride, first);
  return static_cast<int>(cudaGetLastError());
}

extern "C" int global(const float* x, float* out, int bytes, int stride, int first, int lanes, int rounds,
                      cudaStream_t stream) {
  if (bytes == 16) {
    BERTFT_LAUNCH(global_kernel<float4>, dim3(2), dim3(32), 0, stream, reinterpret_cast<const float4*>(x), out, stride,
                  first, lanes, rounds);
  } else {
    BERTFT_LAUNCH(global_kernel<float>, dim3(2), dim3(32), 0, stream, x, out, stride, first, lanes, rounds);
  }
  return static_cast<int>(cudaGetLastError());
}

extern "C" int atomics(float* out, int stride, cudaStream_t stream) {
  BERTFT_LAUNCH(atomic_kernel, dim3(1), dim3(32), 0, stream, out, stride);
  return static_cast<int>(cudaGetLastError());
}

extern "C" int transpose(const float* x, float* out, int bug, cudaStream_t stream) {
  return with_bug<3>(bug, [&](auto number) {
    constexpr int BUG = number;
    BERTFT_LAUNCH(transpose_kernel<BUG>, dim3(1), dim3(128), 0, stream, x, out);
    return static_cast<int>(cudaGetLastError());
  });
}

extern "C" int matrix(const void* a, float* c, int bug, cudaStream_t stream) {
  return with_bug<3>(bug, [&](auto number) {
    constexpr int BUG = number;
    BERTFT_LAUNCH(matrix_kernel<BUG>, dim3(1), dim3(32), 0, stream, static_cast<const __half*>(a), c);
    return static_cast<int>(cudaGetLastError());
  });
}
