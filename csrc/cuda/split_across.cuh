// Layers of matrices as two halves, of which products take the rows or, turned over by ldmatrix, the columns: memory
// layout, copies, fragments. Made by split_matrix.cu and split_gradient.cu, used by split_matrix.cu.
//
//   u (L, N, D) -> halves (L, P, C, 2, 32): P = N rounded up to 128, C = D / 32 rounded up to a multiple of 4, so that
//   128 columns are whole lines; zeros beyond N and D
//   u 2^s = hi + lo as split_rows.cu has it, but with one s a layer, from its largest |u| (split_gradient.cu: one a
//   row of the left operand, one a column of the right one): a sum over rows has no place for a power of each
#pragma once
#include "split_rows.cuh"
#include "split_tile.cuh"

namespace bertft {
namespace split {

constexpr int kDepth = 32;                     // terms of the sums in a stage
constexpr int kOfTile = kTile / kChunk;        // lines of 128 columns
constexpr int kOperandHalves = kTile * kLine;  // of an operand in a stage
constexpr int kRowHalves = kOfTile * kLine;    // of 128 columns of a row

// Lines of a row of d columns.
__host__ __device__ __forceinline__ int whole_lines(int d) { return (d + kTile - 1) / kTile * kOfTile; }

// s of 2^s, from the bits of the largest element, and 2^s. Numbers below 2^-113 need no larger s than 126: the least
// bit of a float is then one of the low part.
__device__ __forceinline__ int power_of(unsigned largest) {
  return largest ? min(13 - exponent_of(__uint_as_float(largest)), 126) : 0;
}
__device__ __forceinline__ float two_to(int s) { return __uint_as_float(static_cast<unsigned>(s + 127) << 23); }
__device__ __forceinline__ float scale_of(unsigned largest) { return two_to(-power_of(largest)); }

// One operand of a tile: where its lines begin, and how many pieces of 16 bytes on the next row's are.
struct Operand {
  const __half* from;
  unsigned stride;
};

// Starts the copies of chunk `step` of 128 rows, as copy_stage (split_tile.cuh) does.
__device__ __forceinline__ void copy_by_rows(__half* stage, const Operand& operand, int step) {
  constexpr int kStep = kThreads / 8;
  const int t = thread_anew();
  __half* to = stage + at(t / 8, t % 8);
  const __half* from = operand.from;
  const unsigned stride = operand.stride;
  unsigned piece = static_cast<unsigned>(t / 8) * stride + step * 8u + t % 8;
#pragma unroll
  for (int e = 0; e < kTile / kStep; ++e, piece += kStep * stride) {
    __pipeline_memcpy_async(to + e * kStep * kLine, from + piece * 8ull, 16);
  }
}

// Where piece q of line c of a stage's row k lies, in halves.
__device__ __forceinline__ int turned(int k, int c, int q) { return k * kRowHalves + c * kLine + ((q ^ (k & 7)) << 3); }

// Starts the copies of 32 rows, 128 columns each: a warp copies a row, four lines; the rows of a warp are four apart,
// which exchanges pieces 0..3 and 4..7 of every other one.
__device__ __forceinline__ void copy_across(__half* stage, const Operand& operand, int step) {
  const int t = thread_anew(), to = turned(t / 32, t / 8 % 4, t % 8);
  const __half* from = operand.from;
  const unsigned stride = operand.stride;
  unsigned piece = static_cast<unsigned>(step * kDepth + t / 32) * stride + t % 32;
#pragma unroll
  for (int e = 0; e < kDepth / 4; ++e, piece += 4 * stride) {
    __pipeline_memcpy_async(stage + (to ^ (e % 2 * 4 << 3)) + e * 4 * kRowHalves, from + piece * 8ull, 16);
  }
}

// Fragments of 16 rows for 16 terms: 16 terms are two pieces, the low parts four pieces on.
struct ByRows {
  const __half* stage;
  int first;  // where the lane's first row begins

  __device__ __forceinline__ void high(int part, unsigned (&out)[4]) const {
    bertft_ldmatrix_x4(out, stage + first + part * 16 * kLine);
  }
  __device__ __forceinline__ void low(int part, unsigned (&out)[4]) const {
    bertft_ldmatrix_x4(out, stage + (first ^ (4 << 3)) + part * 16 * kLine);
  }
};

// Fragments of 16 columns for 16 terms: 16 columns on are two pieces, 32 a line; the low parts four pieces.
struct Across {
  const __half* stage;
  int first;

  __device__ __forceinline__ void high(int part, unsigned (&out)[4]) const {
    bertft_ldmatrix_x4_trans(out, stage + (first ^ (part % 2 * 2 << 3)) + part / 2 * kLine);
  }
  __device__ __forceinline__ void low(int part, unsigned (&out)[4]) const {
    bertft_ldmatrix_x4_trans(out, stage + (first ^ ((4 + part % 2 * 2) << 3)) + part / 2 * kLine);
  }
};

// Where thread t's first row begins: of the left operand by rows or across, of the right one across. ldmatrix turns
// over what lanes 0..7 and 16..23 give for 16 terms of the left operand, lanes 0..15 for those of the right one.
__device__ __forceinline__ int left_by_rows(int t) { return at(t / 64 * 64 + t % 16, t % 32 / 16); }
__device__ __forceinline__ int left_across(int t) {
  return turned(t % 8 + t % 32 / 16 * 8, t / 64 * 2, t % 32 / 8 % 2);
}
__device__ __forceinline__ int right_across(int t) {
  return kOperandHalves + turned(t % 16, t / 32 % 2 * 2, t % 32 / 16);
}

// Adds the products of 16 terms: to float32 accuracy (Sums::add_columns), or FAST, of the high parts alone.
template <bool FAST, class L>
__device__ __forceinline__ void add_terms(Sums& sums, const L& left, const Across& right) {
  if constexpr (!FAST) {
    sums.add_columns(
        [&](int m, unsigned (&hi)[4], unsigned (&lo)[4]) { left.high(m, hi), left.low(m, lo); },
        [&](int pair, unsigned (&hi)[4], unsigned (&lo)[4]) { right.high(pair, hi), right.low(pair, lo); });
  } else {
    unsigned a[4][4];
#pragma unroll
    for (int m = 0; m < 4; ++m) left.high(m, a[m]);
#pragma unroll
    for (int pair = 0; pair < 4; ++pair) {
      unsigned b[4];
      right.high(pair, b);
#pragma unroll
      for (int side = 0; side < 2; ++side) {
        const unsigned half[2] = {b[2 * side], b[2 * side + 1]};
        float inside[4][4];
#pragma unroll
        for (int m = 0; m < 4; ++m) bertft_mma_m16n8k16_f16_first(inside[m], a[m], half);
#pragma unroll
        for (int e = 0; e < 16; ++e) sums.v[e / 4][2 * pair + side][e % 4] += inside[e / 4][e % 4];
      }
    }
  }
}

}  // namespace split
}  // namespace bertft
