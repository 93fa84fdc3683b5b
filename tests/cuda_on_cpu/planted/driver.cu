// driver.cu -- launchers that use every way of passing arguments, and misuse arrays (test_executor.py).
#include "gpu.h"

namespace {

__global__ void scale_kernel(const float* x, float* y, int n, float factor) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = factor * x[i];
}

__global__ void write_at_kernel(float* y, long long index) { y[index] = 1.f; }

__global__ void vector_kernel(const float4* x, float4* y) { y[threadIdx.x] = x[threadIdx.x]; }

}  // namespace

extern "C" int scale(const float* x, float* y, int n, float factor, cudaStream_t stream) {
  BERTFT_LAUNCH(scale_kernel, dim3((n + 31) / 32), dim3(32), 0, stream, x, y, n, factor);
  return static_cast<int>(cudaGetLastError());
}

extern "C" int write_at(float* y, long long index, cudaStream_t stream) {
  BERTFT_LAUNCH(write_at_kernel, dim3(1), dim3(1), 0, stream, y, index);
  return static_cast<int>(cudaGetLastError());
}

extern "C" int write_to_const(const float* x, cudaStream_t stream) { return write_at(const_cast<float*>(x), 0, stream); }

extern "C" int copy_vectors(const float* x, float* y, cudaStream_t stream) {
  BERTFT_LAUNCH(vector_kernel, dim3(1), dim3(2), 0, stream, reinterpret_cast<const float4*>(x),
                reinterpret_cast<float4*>(y));
  return static_cast<int>(cudaGetLastError());
}

extern "C" int clear(float* y, long long bytes, cudaStream_t stream) {
  return static_cast<int>(cudaMemsetAsync(y, 0, static_cast<size_t>(bytes), stream));
}

// Sums its scalars into out, with more of them than registers pass; absent says whether the pointer was null.
extern "C" int many(double* out, float a, double b, long long c, unsigned char d, bool e, int f, int g, int h, float i,
                    double j, int k, const void* absent) {
  *out = a + b + static_cast<double>(c) + d + e + f + g + h + i + j + k + (absent == nullptr ? 1000 : 0);
  return 0;
}

extern "C" int device_figures(int* multiprocessors, int* capability) {
  cudaDeviceGetAttribute(multiprocessors, cudaDevAttrMultiProcessorCount, 0);
  return static_cast<int>(cudaDeviceGetAttribute(capability, cudaDevAttrComputeCapabilityMajor, 0));
}
