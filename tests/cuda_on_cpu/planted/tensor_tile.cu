// tensor_tile.cu -- an example to test the checker with; each number BUG plants a bug (test_planted_bugs.py).
//
//   c = a b';  a (m, k), b (n, k), c (m, n) float32, or a and b bfloat16; sizes are multiples of the tile
//
// One warp for a 16 x 8 tile of c, on the tensor cores; steps of 8 (tf32) or 16 (bf16) columns, fetched by cp.async
// into two buffers. The bf16 kernel reads its fragment of a with ldmatrix.
#include "bugs.h"
#include "gpu.h"

namespace {

constexpr int kRows = 16, kColumns = 8, kStride = 12;  // floats of a buffered row: 8 and padding

__device__ void fetch(float* to, const float* from, int rows, int k) {
  for (int e = threadIdx.x; e < rows * 2; e += 32) {
    const int r = e / 2, c = e % 2 * 4;
    __pipeline_memcpy_async(to + r * kStride + c, from + (size_t)r * k + c, 16);
  }
}

template <int BUG>
__global__ void tf32_kernel(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c, int n,
                            int k) {
  BERTFT_SHARED(__align__(16) float, sa, [2][kRows * kStride]);
  BERTFT_SHARED(__align__(16) float, sb, [2][kColumns * kStride]);
  const int lane = threadIdx.x, g = lane / 4, q = lane % 4;
  a += (size_t)blockIdx.y * kRows * k;
  b += (size_t)blockIdx.x * kColumns * k;
  float d[4] = {0, 0, 0, 0};
  fetch(sa[0], a, kRows, k);
  fetch(sb[0], b, kColumns, k);
  __pipeline_commit();
  for (int k0 = 0, buffer = 0; k0 < k; k0 += 8, buffer ^= 1) {
    const bool more = k0 + 8 < k;
    if (more) {
      fetch(sa[buffer ^ 1], a + k0 + 8, kRows, k);
      fetch(sb[buffer ^ 1], b + k0 + 8, kColumns, k);
      if (BUG != 4) __pipeline_commit();  // 4: the second fetch joins no group
    }
    __pipeline_wait_prior(BUG == 1 || more ? 1 : 0);  // 1: nothing newer is in flight at the last step
    __syncwarp();
    const float *pa = sa[buffer], *pb = sb[buffer];
    const int r1 = BUG == 2 ? 0 : 8, c1 = BUG == 2 ? 4 : 0;  // 2: registers 1 and 2 of a exchanged
    const unsigned fa[4] = {bertft_tf32(pa[g * kStride + q]), bertft_tf32(pa[(g + r1) * kStride + q + c1]),
                            bertft_tf32(pa[(g + 8 - r1) * kStride + q + 4 - c1]),
                            bertft_tf32(pa[(g + 8) * kStride + q + 4])};
    const unsigned fb[2] = {bertft_tf32(pb[g * kStride + q]), bertft_tf32(pb[g * kStride + q + 4])};
    bertft_mma_m16n8k8_tf32(d, fa, fb);
    if (BUG != 3) __syncwarp();  // 3: the next copy may overwrite what another lane still reads
  }
  float* out = c + ((size_t)blockIdx.y * kRows + g) * n + blockIdx.x * kColumns + 2 * q;
  *reinterpret_cast<float2*>(out) = make_float2(d[0], d[1]);
  *reinterpret_cast<float2*>(out + (size_t)8 * n) = make_float2(d[2], d[3]);
}

template <int BUG>
__global__ void bf16_kernel(const __nv_bfloat16* __restrict__ a, const __nv_bfloat16* __restrict__ b,
                            float* __restrict__ c, int n, int k) {
  constexpr int stride = BUG == 5 ? 18 : 24;  // 5: rows that ldmatrix cannot address, 36 bytes apart
  BERTFT_SHARED(__align__(16) __nv_bfloat16, sa, [kRows][stride]);
  const int lane = threadIdx.x, g = lane / 4, q = lane % 4;
  float d[4] = {0, 0, 0, 0};
  for (int k0 = 0; k0 < k; k0 += 16) {
    for (int e = lane; e < kRows * 16; e += 32)
      sa[e / 16][e % 16] = a[((size_t)blockIdx.y * kRows + e / 16) * k + k0 + e % 16];
    __syncwarp();
    unsigned fa[4], fb[2];
    // matrices 0, 1: upper and lower rows of the left half; 2, 3: of the right half (6: halves and rows exchanged)
    const int row = BUG == 6 ? lane % 8 + lane / 16 * 8 : lane % 16, column = (BUG == 6 ? lane / 8 % 2 : lane / 16) * 8;
    if (BUG == 7) bertft_ldmatrix_x4_trans(fa, &sa[row][column]);  // 7: every 8 x 8 matrix turned over
    else bertft_ldmatrix_x4(fa, &sa[row][column]);
    const __nv_bfloat16* pb = b + ((size_t)blockIdx.x * kColumns + g) * k + k0 + 2 * q;
    for (int h = 0; h < 2; ++h)
      fb[h] = __bfloat16_as_ushort(pb[8 * h]) | (unsigned)__bfloat16_as_ushort(pb[8 * h + 1]) << 16;
    bertft_mma_m16n8k16_bf16(d, fa, fb);
    __syncwarp();
  }
  float* out = c + ((size_t)blockIdx.y * kRows + g) * n + blockIdx.x * kColumns + 2 * q;
  *reinterpret_cast<float2*>(out) = make_float2(d[0], d[1]);
  *reinterpret_cast<float2*>(out + (size_t)8 * n) = make_float2(d[2], d[3]);
}

}  // namespace

extern "C" int product_tf32(const float* a, const float* b, float* c, int m, int n, int k, int bug,
                            cudaStream_t stream) {
  return with_bug<7>(bug, [&](auto number) {
    constexpr int BUG = number;
    BERTFT_LAUNCH(tf32_kernel<BUG>, dim3(n / kColumns, m / kRows), dim3(32), 0, stream, a, b, c, n, k);
    return static_cast<int>(cudaGetLastError());
  });
}

extern "C" int product_bf16(const __nv_bfloat16* a, const __nv_bfloat16* b, float* c, int m, int n, int k, int bug,
                            cudaStream_t stream) {
  return with_bug<7>(bug, [&](auto number) {
    constexpr int BUG = number;
    BERTFT_LAUNCH(bf16_kernel<BUG>, dim3(n / kColumns, m / kRows), dim3(32), 0, stream, a, b, c, n, k);
    return static_cast<int>(cudaGetLastError());
  });
}
