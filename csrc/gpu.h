// gpu.h -- the one header that a kernel file includes.
//
// Under nvcc: CUDA's own headers, and the tensor-core instructions for which CUDA C++ has no intrinsic.
// Under g++:  the CPU executor (tests/cuda_on_cpu/device), which runs the same source under a checker.
//
// Three things are spelt as macros because g++ cannot parse CUDA's own spelling of them:
//   BERTFT_LAUNCH(kernel, grid, block, shared_bytes, stream, arguments...);    kernel<<<...>>>(arguments...)
//   BERTFT_SHARED(type, name, [extent]...);                                    __shared__ type name[extent]...
//   BERTFT_DYN_SHARED(type, name);                                             type* to the dynamic shared memory
// A template kernel with a comma in its arguments goes into parentheses: BERTFT_LAUNCH((k<float, 4>), ...).
#pragma once

#if defined(__CUDACC__)

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_pipeline_primitives.h>
#include <cuda_runtime.h>
#include <mma.h>

#define BERTFT_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  (kernel)<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__)
#define BERTFT_SHARED(type, name, ...) __shared__ type name __VA_ARGS__
#define BERTFT_DYN_SHARED(type, name)                                     \
  extern __shared__ __align__(16) unsigned char bertft_dynamic_shared_[]; \
  type* name = reinterpret_cast<type*>(bertft_dynamic_shared_)

// Tensor cores. One warp computes D += A B; registers hold the fragments in the layouts of the PTX manual
// (group g = lane / 4, quad q = lane % 4; every layout is tested against CUTLASS's tables).

// float32 -> tf32 bits, round to nearest, ties away from zero
static __device__ __forceinline__ unsigned bertft_tf32(float x) {
  unsigned bits;
#if __CUDA_ARCH__ >= 800
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
#else
  bits = 0;
  __trap();
#endif
  return bits;
}

// A 16x8 row-major, B 8x8 column-major, tf32 in 32-bit registers; D 16x8 float32
static __device__ __forceinline__ void bertft_mma_m16n8k8_tf32(float (&d)[4], const unsigned (&a)[4],
                                                               const unsigned (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  __trap();  // launchers offer tensor cores from compute capability 8.0 on
#endif
}

// A 16x16 row-major, B 16x8 column-major, two 16-bit values to a register, the lower column in the lower half
static __device__ __forceinline__ void bertft_mma_m16n8k16_bf16(float (&d)[4], const unsigned (&a)[4],
                                                                const unsigned (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  __trap();  // launchers offer tensor cores from compute capability 8.0 on
#endif
}

static __device__ __forceinline__ void bertft_mma_m16n8k16_f16(float (&d)[4], const unsigned (&a)[4],
                                                               const unsigned (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  __trap();  // launchers offer tensor cores from compute capability 8.0 on
#endif
}

// The same with D = A B: the accumulator is the instruction's constant zero, so that no register has to be cleared.
static __device__ __forceinline__ void bertft_mma_m16n8k16_f16_first(float (&d)[4], const unsigned (&a)[4],
                                                                     const unsigned (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%10,%10,%10};"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(0.f));
#else
  __trap();  // launchers offer tensor cores from compute capability 8.0 on
#endif
}

// A 8x4 row-major, B 4x8 column-major, D 8x8, all float64
static __device__ __forceinline__ void bertft_mma_m8n8k4_f64(double (&d)[2], double a, double b) {
#if __CUDA_ARCH__ >= 800
  asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0,%1}, {%2}, {%3}, {%0,%1};"
               : "+d"(d[0]), "+d"(d[1])
               : "d"(a), "d"(b));
#else
  __trap();  // launchers offer tensor cores from compute capability 8.0 on
#endif
}

// Four 8x8 matrices of 16-bit values from shared memory. Lane i gives the 16-byte aligned start of row i % 8 of
// matrix i / 8; register m of lane i receives elements 2q, 2q + 1 of row g of matrix m (of its transpose: _trans).
static __device__ __forceinline__ void bertft_ldmatrix_x4(unsigned (&r)[4], const void* row) {
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

static __device__ __forceinline__ void bertft_ldmatrix_x4_trans(unsigned (&r)[4], const void* row) {
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

#else

#include "cuda_on_cpu.h"

#define BERTFT_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ::executor::launch(#kernel, (kernel), (grid), (block), (shared_bytes), (stream), ##__VA_ARGS__)
#define BERTFT_SHARED(type, name, ...)                                                      \
  typedef type name##_shared_type_ __VA_ARGS__;                                             \
  static const char name##_shared_key_ = 0;                                                 \
  name##_shared_type_& name = *static_cast<name##_shared_type_*>(::executor::static_shared( \
      &name##_shared_key_, sizeof(name##_shared_type_), alignof(name##_shared_type_), #name))
#define BERTFT_DYN_SHARED(type, name) type* name = static_cast<type*>(::executor::dynamic_shared())

#endif
