// host_api.h -- the part of the CUDA runtime API that launchers use.
#pragma once

#include <tuple>
#include <utility>

#include "runtime_api.h"

typedef struct CUstream_st* cudaStream_t;
enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorLaunchFailure = 719
};
typedef cudaError_t cudaError;
enum cudaFuncAttribute {
  cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
  cudaFuncAttributePreferredSharedMemoryCarveout = 9
};
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerMultiprocessor = 81,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97
};

static inline cudaError_t cudaGetLastError() { return (cudaError_t)executor::last_error(true); }
static inline cudaError_t cudaPeekAtLastError() { return (cudaError_t)executor::last_error(false); }
static inline const char* cudaGetErrorString(cudaError_t) { return executor::error_text(); }
static inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
static inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  return (cudaError_t)executor::device_attribute(attribute, value);
}
template <class Kernel>
static inline cudaError_t cudaFuncSetAttribute(Kernel kernel, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  return (cudaError_t)executor::allow_dynamic_shared((const void*)kernel, value);
}
static inline cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t = nullptr) {
  return (cudaError_t)executor::fill_memory(p, value, bytes);
}

namespace executor {

#if defined(__SANITIZE_THREAD__)
static const bool kChecked = true;
#else
static const bool kChecked = false;
#endif

template <class... Parameters>
struct Invocation {
  void (*kernel)(Parameters...);
  std::tuple<Parameters...> arguments;
  EXECUTOR_UNCHECKED static void run(void* self) {
    auto* call = static_cast<Invocation*>(self);
    std::apply(call->kernel, call->arguments);
  }
};

template <class... Parameters, class... Arguments>
inline void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
                   cudaStream_t, Arguments&&... arguments) {
  Invocation<Parameters...> call{kernel, std::tuple<Parameters...>(std::forward<Arguments>(arguments)...)};
  launch_grid(name, (const void*)kernel, grid, block, shared_bytes, kChecked, &Invocation<Parameters...>::run, &call,
              sizeof call);
}

}  // namespace executor
