// Values of a tile of stimulus pairs in one layer: products of prepared rows, on tensor cores or not.
#pragma once
#include "rows.cuh"

namespace bertft {
namespace rdm {

constexpr int NT = 256, kRows = 64, kStages = 3;

// How sums run: FFMA or DFMA | tf32, each float as a sum of two, three products | bf16. manhattan is always kPlain.
enum Path : int { kPlain = 0, kTf32 = 1, kBf16 = 2 };

// Prepared rows (rows.cuh) of the layers of one side.
template <class E, class C> struct Side {
  const E* rows;           // (layers, padded, ld), zeros in the padding
  const C* p;              // (layers, padded)
  const C* shift;          // (layers) a value typical of the layer
  long long padded;        // N rounded up to 64, the same on both sides
  int ld, layers, metric;  // ld: D rounded up to kChunk
};

// A stage holds 64 + TJ rows of a chunk of columns; 16 bytes of padding turn the rows against the banks.
template <class E, int TJ> struct Stage {
  static constexpr int kChunk = sizeof(E) == 2 ? 32 : 16, kVector = 16 / sizeof(E), kStride = kChunk + kVector;
  static constexpr int kSize = (kRows + TJ) * kStride;  // elements
};

// Starts the copy of rows i0.. and j0.. of a layer, columns chunk * kChunk.., into a stage; 16 bytes a copy.
template <class E, class C, int TJ> __device__ __forceinline__ void copy_chunk(E* stage, const Side<E, C>& side,
                                                                               int layer, int chunk, long long i0,
                                                                               long long j0) {
  using S = Stage<E, TJ>;
  constexpr int kCopies = S::kChunk / S::kVector;
  const E* base = side.rows + layer * side.padded * side.ld + chunk * S::kChunk;
#pragma unroll
  for (int e = static_cast<int>(threadIdx.x); e < (kRows + TJ) * kCopies; e += NT) {
    const int r = e / kCopies, q = e % kCopies * S::kVector;
    const long long row = r < kRows ? i0 + r : j0 + r - kRows;
    __pipeline_memcpy_async(stage + r * S::kStride + q, base + row * side.ld + q, 16);
  }
}

// A thread's share of a tile's sums, and where each belongs. Without tensor cores: 4 rows x TJ / 16 columns a thread,
// rows 4 (t / 16) + r, columns t % 16 + 16 c.
template <class E, class C, int TJ, int PATH> struct Accumulator {
  static constexpr int kEach = TJ / 4;
  C sum[4][TJ / 16];

  __device__ __forceinline__ C& at(int e) { return sum[e / (TJ / 16)][e % (TJ / 16)]; }
  static __device__ __forceinline__ int row(int e) { return static_cast<int>(threadIdx.x) / 16 * 4 + e / (TJ / 16); }
  static __device__ __forceinline__ int col(int e) { return static_cast<int>(threadIdx.x) % 16 + e % (TJ / 16) * 16; }

  __device__ __forceinline__ void add(const E* stage, int metric) {
    if (metric == kManhattan)
      add_terms<true>(stage);
    else
      add_terms<false>(stage);
  }
  template <bool DIFFERENCE> __device__ __forceinline__ void add_terms(const E* stage) {
    using S = Stage<E, TJ>;
    const E* a0 = stage + row(0) * S::kStride;
    const E* b0 = stage + (kRows + col(0)) * S::kStride;
#pragma unroll
    for (int k = 0; k < S::kChunk; k += 4) {
      C a[4][4], b[4];
#pragma unroll
      for (int r = 0; r < 4; ++r) load4(a0 + r * S::kStride + k, a[r]);
#pragma unroll
      for (int c = 0; c < TJ / 16; ++c) {
        load4(b0 + c * 16 * S::kStride + k, b);
#pragma unroll
        for (int r = 0; r < 4; ++r)
#pragma unroll
          for (int q = 0; q < 4; ++q) {
            if constexpr (DIFFERENCE)
              sum[r][c] += absolute(a[r][q] - b[q]);
            else
              sum[r][c] += a[r][q] * b[q];
          }
      }
    }
  }
};

// Tensor cores: warp w owns rows 16 (w / 2).. and columns TJ / 2 (w % 2).., in m16n8 pieces laid out as the PTX manual
// says: group g = lane / 4 is a row (or a column of the right operand), quad q = lane % 4 a pair of columns.
template <int TJ> struct MmaLayout {
  static constexpr int kPieces = TJ / 16, kEach = kPieces * 4;
  static __device__ __forceinline__ int group() { return static_cast<int>(threadIdx.x) % 32 / 4; }
  static __device__ __forceinline__ int quad() { return static_cast<int>(threadIdx.x) % 4; }
  static __device__ __forceinline__ int first_row() { return static_cast<int>(threadIdx.x) / 64 * 16; }
  static __device__ __forceinline__ int first_col() { return static_cast<int>(threadIdx.x) / 32 % 2 * (TJ / 2); }
  static __device__ __forceinline__ int row(int e) { return first_row() + group() + e % 4 / 2 * 8; }
  static __device__ __forceinline__ int col(int e) { return first_col() + e / 4 * 8 + quad() * 2 + e % 2; }
};

// Three-term tf32: x = hi + lo, each of 11 bits; hi hi + hi lo + lo hi keeps 21 to 22 bits of every product.
template <int TJ> struct Accumulator<float, float, TJ, kTf32> : MmaLayout<TJ> {
  using L = MmaLayout<TJ>;
  float sum[L::kPieces][4];

  __device__ __forceinline__ float& at(int e) { return sum[e / 4][e % 4]; }

  static __device__ __forceinline__ void split(float x, unsigned& hi, unsigned& lo) {
    hi = bertft_tf32(x);
    lo = bertft_tf32(x - __uint_as_float(hi));
  }
  __device__ __forceinline__ void add(const float* stage, int) {
    using S = Stage<float, TJ>;
    const float* a0 = stage + (L::first_row() + L::group()) * S::kStride + L::quad();
    const float* b0 = stage + (kRows + L::first_col() + L::group()) * S::kStride + L::quad();
#pragma unroll
    for (int k = 0; k < S::kChunk; k += 8) {
      unsigned a_hi[4], a_lo[4];
#pragma unroll
      for (int q = 0; q < 4; ++q) split(a0[q % 2 * 8 * S::kStride + k + q / 2 * 4], a_hi[q], a_lo[q]);
#pragma unroll
      for (int piece = 0; piece < L::kPieces; ++piece) {
        unsigned b_hi[2], b_lo[2];
#pragma unroll
        for (int q = 0; q < 2; ++q) split(b0[piece * 8 * S::kStride + k + q * 4], b_hi[q], b_lo[q]);
        bertft_mma_m16n8k8_tf32(sum[piece], a_lo, b_hi);  // small terms first
        bertft_mma_m16n8k8_tf32(sum[piece], a_hi, b_lo);
        bertft_mma_m16n8k8_tf32(sum[piece], a_hi, b_hi);
      }
    }
  }
};

template <int TJ> struct Accumulator<__nv_bfloat16, float, TJ, kBf16> : MmaLayout<TJ> {
  using L = MmaLayout<TJ>;
  float sum[L::kPieces][4];

  __device__ __forceinline__ float& at(int e) { return sum[e / 4][e % 4]; }

  __device__ __forceinline__ void add(const __nv_bfloat16* stage, int) {
    using S = Stage<__nv_bfloat16, TJ>;
    const auto pair = [](const __nv_bfloat16* at) { return *reinterpret_cast<const unsigned*>(at); };
    const __nv_bfloat16* a0 = stage + (L::first_row() + L::group()) * S::kStride + L::quad() * 2;
    const __nv_bfloat16* b0 = stage + (kRows + L::first_col() + L::group()) * S::kStride + L::quad() * 2;
#pragma unroll
    for (int k = 0; k < S::kChunk; k += 16) {
      unsigned a[4], b[2];
#pragma unroll
      for (int q = 0; q < 4; ++q) a[q] = pair(a0 + q % 2 * 8 * S::kStride + k + q / 2 * 8);
#pragma unroll
      for (int piece = 0; piece < L::kPieces; ++piece) {
#pragma unroll
        for (int q = 0; q < 2; ++q) b[q] = pair(b0 + piece * 8 * S::kStride + k + q * 8);
        bertft_mma_m16n8k16_bf16(sum[piece], a, b);
      }
    }
  }
};

// Entry of the matrix that statistics are taken of, from sum and p: u.v + p_i + p_j, the root for euclidean. The
// metric's own value is scale * entry + offset, with scale and offset from rdm_finish.cuh.
template <class C> __device__ __forceinline__ C entry(C sum, C pi, C pj, int metric) {
  if (metric == kManhattan) return sum;
  const C k = sum + pi + pj;
  return metric == kEuclidean ? root(k < 0 ? -2 * k : C(0)) : k;
}

}  // namespace rdm
}  // namespace bertft
