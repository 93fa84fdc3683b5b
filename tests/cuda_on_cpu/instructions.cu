// instructions.cu -- one warp, one tensor-core instruction: registers in, registers out (test_instructions.py).
#include "gpu.h"

namespace {

template <int A, int B, int D, class Operand, class Sum, class F>
__device__ void on_registers(const Operand* a, const Operand* b, Sum* d, F instruction) {
  const int lane = threadIdx.x;
  Operand ra[A], rb[B];
  Sum rd[D];
  for (int i = 0; i < A; ++i) ra[i] = a[lane * A + i];
  for (int i = 0; i < B; ++i) rb[i] = b[lane * B + i];
  for (int i = 0; i < D; ++i) rd[i] = d[lane * D + i];
  instruction(rd, ra, rb);
  for (int i = 0; i < D; ++i) d[lane * D + i] = rd[i];
}

__global__ void tf32_kernel(const unsigned* a, const unsigned* b, float* d) {
  on_registers<4, 2, 4>(a, b, d, [](auto& rd, auto& ra, auto& rb) { bertft_mma_m16n8k8_tf32(rd, ra, rb); });
}
__global__ void bf16_kernel(const unsigned* a, const unsigned* b, float* d) {
  on_registers<4, 2, 4>(a, b, d, [](auto& rd, auto& ra, auto& rb) { bertft_mma_m16n8k16_bf16(rd, ra, rb); });
}
__global__ void f16_kernel(const unsigned* a, const unsigned* b, float* d) {
  on_registers<4, 2, 4>(a, b, d, [](auto& rd, auto& ra, auto& rb) { bertft_mma_m16n8k16_f16(rd, ra, rb); });
}
__global__ void f16_first_kernel(const unsigned* a, const unsigned* b, float* d) {
  on_registers<4, 2, 4>(a, b, d, [](auto& rd, auto& ra, auto& rb) { bertft_mma_m16n8k16_f16_first(rd, ra, rb); });
}
__global__ void f64_kernel(const double* a, const double* b, double* d) {
  on_registers<1, 1, 2>(a, b, d, [](auto& rd, auto& ra, auto& rb) { bertft_mma_m8n8k4_f64(rd, ra[0], rb[0]); });
}

__global__ void ldmatrix_kernel(const unsigned short* rows, unsigned* out, int transposed) {
  BERTFT_SHARED(__align__(16) unsigned short, matrices, [32][8]);
  const int lane = threadIdx.x;
  for (int c = 0; c < 8; ++c) matrices[lane][c] = rows[lane * 8 + c];
  __syncwarp();
  unsigned r[4];
  if (transposed) bertft_ldmatrix_x4_trans(r, matrices[lane]);
  else bertft_ldmatrix_x4(r, matrices[lane]);
  for (int m = 0; m < 4; ++m) out[lane * 4 + m] = r[m];
}

__global__ void tf32_bits_kernel(const float* x, unsigned* bits) { bits[threadIdx.x] = bertft_tf32(x[threadIdx.x]); }

}  // namespace

#define LAUNCHER(name, Operand, Sum)                                                           \
  extern "C" int run_##name(const Operand* a, const Operand* b, Sum* d, cudaStream_t stream) { \
    BERTFT_LAUNCH(name##_kernel, dim3(1), dim3(32), 0, stream, a, b, d);                       \
    return static_cast<int>(cudaGetLastError());                                               \
  }
LAUNCHER(tf32, unsigned, float)
LAUNCHER(bf16, unsigned, float)
LAUNCHER(f16, unsigned, float)
LAUNCHER(f16_first, unsigned, float)
LAUNCHER(f64, double, double)

extern "C" int run_ldmatrix(const unsigned short* rows, unsigned* out, int transposed, cudaStream_t stream) {
  BERTFT_LAUNCH(ldmatrix_kernel, dim3(1), dim3(32), 0, stream, rows, out, transposed);
  return static_cast<int>(cudaGetLastError());
}

extern "C" int run_tf32_bits(const float* x, unsigned* bits, int n, cudaStream_t stream) {
  BERTFT_LAUNCH(tf32_bits_kernel, dim3(1), dim3(n), 0, stream, x, bits);
  return static_cast<int>(cudaGetLastError());
}
