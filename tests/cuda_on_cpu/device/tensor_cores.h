// tensor_cores.h -- the warp-wide matrix instructions that csrc/gpu.h declares for nvcc, and ldmatrix.
//
// The register layouts are in ../runtime/mma_layouts.h. float16 products have the bits of A100's and H100's cores
// (../runtime/core_arithmetic.cpp); those of other types are exact, summed in float64 and rounded once.
#pragma once

#include "half_types.h"
#include "runtime_api.h"

static inline unsigned bertft_tf32(float x) {
  const unsigned bits = __float_as_uint(x);
  const bool finite = (bits & 0x7f800000u) != 0x7f800000u;
  return finite ? (bits + 0x1000u) & 0xffffe000u : bits;
}

namespace executor {

// The hardware ignores the thirteen low bits of a tf32 operand.
static inline float tf32_seen(unsigned bits) { return __uint_as_float(bits & 0xffffe000u); }

template <int D, int A, int B>
EXECUTOR_UNCHECKED inline void mma_float(MmaShape shape, float (&d)[D], const double (&a)[A], const double (&b)[B],
                                         Site site) {
  double c[D], sum[D];
  for (int i = 0; i < D; ++i) c[i] = d[i];
  mma(shape, 0, 0, 0, a, b, c, sum, site);
  for (int i = 0; i < D; ++i) d[i] = (float)sum[i];
}

template <class Half, int D>
EXECUTOR_UNCHECKED inline void mma_16bit(MmaShape shape, float (&d)[D], const unsigned (&a)[4], const unsigned (&b)[2], Site site) {
  double fa[8], fb[4];
  for (int i = 0; i < 8; ++i) fa[i] = to_float(Half{(uint16_t)(a[i / 2] >> (16 * (i % 2)))});
  for (int i = 0; i < 4; ++i) fb[i] = to_float(Half{(uint16_t)(b[i / 2] >> (16 * (i % 2)))});
  mma_float(shape, d, fa, fb, site);
}

}  // namespace executor

EXECUTOR_UNCHECKED static inline void bertft_mma_m16n8k8_tf32(float (&d)[4], const unsigned (&a)[4],
                                                              const unsigned (&b)[2], EXECUTOR_CALLER) {
  double fa[4], fb[2];
  for (int i = 0; i < 4; ++i) fa[i] = executor::tf32_seen(a[i]);
  for (int i = 0; i < 2; ++i) fb[i] = executor::tf32_seen(b[i]);
  executor::mma_float(executor::MmaShape::m16n8k8_tf32, d, fa, fb, EXECUTOR_SITE);
}
static inline void bertft_mma_m16n8k16_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                                            EXECUTOR_CALLER) {
  executor::mma_16bit<__nv_bfloat16>(executor::MmaShape::m16n8k16, d, a, b, EXECUTOR_SITE);
}
static inline void bertft_mma_m16n8k16_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                                           EXECUTOR_CALLER) {
  executor::mma_16bit<__half>(executor::MmaShape::m16n8k16_f16, d, a, b, EXECUTOR_SITE);
}
static inline void bertft_mma_m16n8k16_f16_first(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                                                 EXECUTOR_CALLER) {
  for (float& v : d) v = 0;
  executor::mma_16bit<__half>(executor::MmaShape::m16n8k16_f16, d, a, b, EXECUTOR_SITE);
}
EXECUTOR_UNCHECKED static inline void bertft_mma_m8n8k4_f64(double (&d)[2], double a, double b, EXECUTOR_CALLER) {
  const double c[2] = {d[0], d[1]};
  executor::mma(executor::MmaShape::m8n8k4_f64, 0, 0, 0, &a, &b, c, d, EXECUTOR_SITE);
}
EXECUTOR_UNCHECKED static inline void bertft_ldmatrix_x4(unsigned (&r)[4], const void* row, EXECUTOR_CALLER) {
  executor::ldmatrix(r, 4, false, row, EXECUTOR_SITE);
}
EXECUTOR_UNCHECKED static inline void bertft_ldmatrix_x4_trans(unsigned (&r)[4], const void* row, EXECUTOR_CALLER) {
  executor::ldmatrix(r, 4, true, row, EXECUTOR_SITE);
}
