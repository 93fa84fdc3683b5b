// split_moments: sums over stimuli U'V to float32 accuracy, on tensor cores (split_tile.cuh).
//
//   total[i, j] += sum over n of u[n, i] v[n, j],  u (N, D), v (N, E) or v = u: then a triangle of tiles, mirrored
//   u 2^s = hi + lo as split_rows.cu has it, but with one s for all rows, from the largest |u|: a sum over rows has no
//   place for a power of each. Columns in one part (fast): hi alone, 64 columns a line.
// Types: u, v float (rows of prepare_rows_launch); partial sums of 1,024 rows float; total double.
// Work split: a grid finds the largest element; one warp splits a row; a block owns 128 x 128 columns and 1,024 rows,
//   32 of them a stage (64 in one part), which ldmatrix turns over. Partial sums (ranges, D, E) are folded in a fixed
//   order.
// Shared memory: 32 KB a stage, two or three stages.
// registers: <= 40, split_moments_kernel <= 255, high_moments_kernel <= 255
// spills: split_moments_kernel <= 24, high_moments_kernel <= 24
// instructions: split_moments_kernel 96 HMMA, 32 HMMA from zero, 16 LDSM, 32 LDGSTS
// instructions: high_moments_kernel 128 HMMA, 32 HMMA from zero, 32 LDSM, 32 LDGSTS
// tensor cores, cp.async, ldmatrix, 16-byte loads
// counters: largest_kernel load sectors 1.0
// counters: split_columns_kernel sectors 1.0
// counters: split_moments_kernel no bank conflicts, sectors 1.0
// counters: fold_ranges_kernel sectors 1.0
// float32: split_moments_kernel tensor * 128 / 96
// float64: split_columns_kernel elements / 32 * 18
// issued: split_moments_kernel tensor * 609 / 192
// Expected limit: tensor cores. 3 N D E multiply-adds of float16 (half of that for v = u); 4 D E bytes written for
//   1,024 rows. Target on an H200 for N = 65,536, D = E = 768, with U'U and V'V: 1.8 ms, if tensor cores give
//   400 TFLOP/s. Not measured.
// Presumption: D and E in the hundreds; a tile of a few columns wastes the rest of it.
#include "split_rows.cuh"
#include "split_tile.cuh"

namespace bertft {
namespace {

using namespace split;

constexpr int kRange = 1024;  // rows of a float sum

template <int PARTS>
constexpr int kLines = kTile / kLine * PARTS;  // of a tile's row
template <int PARTS>
constexpr int kSteps = kTile / kLines<PARTS>;  // rows of a stage, 16 KB an operand
template <int PARTS>
constexpr int kAtOnce = kThreads / 8 / kLines<PARTS>;  // rows that the threads of a block copy at once

// largest = bits of the largest |u|; NaN counts as more than infinity.
__global__ void __launch_bounds__(256)
    largest_kernel(const float* __restrict__ u, long long size, unsigned* __restrict__ largest) {
  unsigned most = 0;
  const long long step = static_cast<long long>(gridDim.x) * 256;
  for (long long e = static_cast<long long>(blockIdx.x) * 256 + threadIdx.x; e < size; e += step) {
    most = max(most, __float_as_uint(u[e]) & 0x7fffffffu);
  }
#pragma unroll
  for (int o = 16; o > 0; o >>= 1) most = max(most, __shfl_xor_sync(kAllLanes, most, o));
  if (threadIdx.x % 32 == 0) atomicMax(largest, most);
}

// s of 2^s, from the bits of the largest element.
__device__ __forceinline__ int power(unsigned largest) {
  return largest ? 13 - exponent_of(__uint_as_float(largest)) : 0;
}

// halves (padded, lines, 2, 32), or (padded, lines, 64) in one part, of u (n, d); zeros beyond.
__global__ void __launch_bounds__(256)
    split_columns_kernel(const float* __restrict__ u, long long n, int d, const unsigned* __restrict__ largest,
                         __half* __restrict__ halves, long long padded, int lines, int parts) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const double up = ldexp(1.0, power(*largest));
  const long long step = static_cast<long long>(gridDim.x) * 8;
  for (long long r = static_cast<long long>(blockIdx.x) * 8 + threadIdx.x / 32; r < padded; r += step) {
    __half* line = halves + r * lines * kLine + lane;
    for (int k = lane; k < lines * kLine / parts; k += 32, line += kChunk * parts) {
      const double v = r < n && k < d ? static_cast<double>(u[r * d + k]) * up : 0;
      line[0] = __float2half_rn(static_cast<float>(v));
      if (parts == kBoth)
        line[kChunk] = __float2half_rn(static_cast<float>(v - static_cast<double>(__half2float(line[0]))));
    }
  }
}

// One operand of a tile: the lines of its first row, and how many pieces of 16 bytes on the next row's are.
struct Columns {
  const __half* from;
  unsigned stride;
};

// Lines of a row: columns are padded with zeros to those of a tile.
__host__ __device__ __forceinline__ int lines_of(int d, int parts) {
  return (d + kTile - 1) / kTile * (kTile / kLine) * parts;
}

// Where piece q of line c of a stage's row k lies, in halves.
template <int PARTS>
__device__ __forceinline__ int across(int k, int c, int q) {
  return (k * kLines<PARTS> + c) * kLine + ((q ^ (k & 7)) << 3);
}

// Starts the copies of a stage's rows of both operands: a warp copies a row of an operand, four lines, or two rows of
// two; the rows of a thread are four apart, which exchanges pieces 0..3 and 4..7 of every other one, or eight.
template <int PARTS>
__device__ __forceinline__ void copy_rows(__half* stage, const Columns* operands, int step) {
  constexpr int kWide = 8 * kLines<PARTS>;  // threads of a row
  const int t = thread_anew(), to = across<PARTS>(t / kWide, t / 8 % kLines<PARTS>, t % 8);
  for (int side = 0; side < 2; ++side) {
    const __half* from = operands[side].from;
    const unsigned stride = operands[side].stride;
    unsigned piece = static_cast<unsigned>(step * kSteps<PARTS> + t / kWide) * stride + t % kWide;
#pragma unroll
    for (int e = 0; e < kSteps<PARTS> / kAtOnce<PARTS>; ++e, piece += kAtOnce<PARTS> * stride) {
      const int exchanged = PARTS == kBoth ? to ^ (e % 2 * 4 << 3) : to;
      __half* at = stage + side * kTile * kLine + exchanged + e * kAtOnce<PARTS> * kLines<PARTS> * kLine;
      __pipeline_memcpy_async(at, from + piece * 8ull, 16);
    }
  }
}

// Adds the products of a stage, 32 rows.
__device__ __forceinline__ void add_rows(Sums& sums, const __half* stage) {
#pragma unroll 1  // both halves at once would keep the fragments of both alive
  for (int k = 0; k < 2; ++k) {
    const __half* from = stage + k * 16 * kLines<kBoth> * kLine;
    // ldmatrix, turned over: lanes 0..7 and 16..23 give 16 rows of a, of b lanes 0..15; the others the next 8 columns.
    // Asked anew: kept from step to step these and what is exchanged in them would spill.
    const int t = thread_anew(), lane = t % 32;
    const int a = across<kBoth>(lane % 8 + lane / 16 * 8, t / 64 * 2, lane / 8 % 2);
    const int b = kTile * kLine + across<kBoth>(lane % 16, t / 32 % 2 * 2, lane / 16);
    // 16 columns on are two pieces, 32 a line; the low parts four pieces
    sums.add_columns(
        [&](int m, unsigned (&hi)[4], unsigned (&lo)[4]) {
          bertft_ldmatrix_x4_trans(hi, from + (a ^ (m % 2 * 2 << 3)) + m / 2 * kLine);
          bertft_ldmatrix_x4_trans(lo, from + (a ^ ((4 + m % 2 * 2) << 3)) + m / 2 * kLine);
        },
        [&](int pair, unsigned (&hi)[4], unsigned (&lo)[4]) {
          bertft_ldmatrix_x4_trans(hi, from + (b ^ (pair % 2 * 2 << 3)) + pair / 2 * kLine);
          bertft_ldmatrix_x4_trans(lo, from + (b ^ ((4 + pair % 2 * 2) << 3)) + pair / 2 * kLine);
        });
  }
}

// The same of a stage in one part, 64 rows.
__device__ __forceinline__ void add_high_rows(Sums& sums, const __half* stage) {
  constexpr int kStep = 16 * kLines<kHigh> * kLine;
  const int t = thread_anew(), lane = t % 32;
  const int a = across<kHigh>(lane % 8 + lane / 16 * 8, t / 64, lane / 8 % 2);
  const int b = kTile * kLine + across<kHigh>(lane % 16, t / 32 % 2, lane / 16);
  unsigned rows[4][4][4];
#pragma unroll
  for (int k = 0; k < 4; ++k)
#pragma unroll
    for (int m = 0; m < 4; ++m) bertft_ldmatrix_x4_trans(rows[k][m], stage + k * kStep + (a ^ (m * 2 << 3)));
#pragma unroll
  for (int pair = 0; pair < 4; ++pair) {
    unsigned columns[4][4];
#pragma unroll
    for (int k = 0; k < 4; ++k) bertft_ldmatrix_x4_trans(columns[k], stage + k * kStep + (b ^ (pair * 2 << 3)));
    sums.add_high(rows, columns, pair);
  }
}

// Block (tile, range of rows): partial (ranges, d, e), not yet scaled. place: the tile's first row and column, steps.
template <int STAGES, int PARTS>
__device__ __forceinline__ void moments_tile(__half* ring, Columns* operands, int* place, const __half* __restrict__ u,
                                             const __half* __restrict__ v, float* __restrict__ partial,
                                             long long padded, int d, int e, bool symmetric) {
  const long long begin = static_cast<long long>(blockIdx.y) * kRange;
  if (threadIdx.x == 0) {
    const int tiles = (e + kTile - 1) / kTile;
    int bi = static_cast<int>(blockIdx.x) / tiles, bj = static_cast<int>(blockIdx.x) % tiles;
    if (symmetric) triangle_tile(blockIdx.x, tiles, bi, bj);
    for (int side = 0; side < 2; ++side) {
      const int first = side ? bj : bi, lines = lines_of(side ? e : d, PARTS);
      operands[side] = {(side ? v : u) + (begin * lines + first * kLines<PARTS>)*kLine, lines * 8u};
      place[side] = first * kTile;
    }
    place[2] = static_cast<int>(min(static_cast<long long>(kRange), padded - begin)) / kSteps<PARTS>;
  }
  Sums sums;
  sums.clear();
  through_ring<STAGES>(
      ring, place[2], [&](__half* stage, int step) { copy_rows<PARTS>(stage, operands, step); },
      [&](const __half* stage) {
        if constexpr (PARTS == kHigh)
          add_high_rows(sums, stage);
        else
          add_rows(sums, stage);
      });
  const float* tile = leave(sums, ring);
  const int i0 = place[0], j0 = place[1], rows = at_most(d - i0, kTile), cols = at_most(e - j0, kTile);
  float* to = partial + (static_cast<long long>(blockIdx.y) * d + i0) * e + j0;
  for (int r = thread_anew() / 32; r < rows; r += kThreads / 32) {
    for (int c = thread_anew() % 32; c < cols; c += 32) to[static_cast<long long>(r) * e + c] = tile[pair_at(r, c)];
  }
}

template <int STAGES>
__global__ void __launch_bounds__(kThreads, 2)
    split_moments_kernel(const __half* __restrict__ u, const __half* __restrict__ v, float* __restrict__ partial,
                         long long padded, int d, int e, bool symmetric) {
  BERTFT_DYN_SHARED(__half, ring);
  BERTFT_SHARED(Columns, operands, [2]);
  BERTFT_SHARED(int, place, [3]);
  moments_tile<STAGES, kBoth>(ring, operands, place, u, v, partial, padded, d, e, symmetric);
}

template <int STAGES>
__global__ void __launch_bounds__(kThreads, 2)
    high_moments_kernel(const __half* __restrict__ u, const __half* __restrict__ v, float* __restrict__ partial,
                        long long padded, int d, int e, bool symmetric) {
  BERTFT_DYN_SHARED(__half, ring);
  BERTFT_SHARED(Columns, operands, [2]);
  BERTFT_SHARED(int, place, [3]);
  moments_tile<STAGES, kHigh>(ring, operands, place, u, v, partial, padded, d, e, symmetric);
}

// total (d, e) += partial (ranges, d, e), scaled, always in the same order; symmetric: from i <= j.
__global__ void __launch_bounds__(256)
    fold_ranges_kernel(const float* __restrict__ partial, int ranges, int d, int e, bool symmetric,
                       const unsigned* __restrict__ largest_u, const unsigned* __restrict__ largest_v,
                       double* __restrict__ total) {
  const long long at = static_cast<long long>(blockIdx.x) * 256 + threadIdx.x, size = static_cast<long long>(d) * e;
  if (at >= size) return;
  const long long i = at / e, j = at % e;
  if (symmetric && i > j) return;  // written by its mirror image
  double sum = 0;
  for (int r = 0; r < ranges; ++r) sum += static_cast<double>(partial[r * size + at]);
  sum = ldexp(sum, -power(*largest_u) - power(*largest_v));
  total[at] += sum;
  if (symmetric && i < j) total[j * e + i] += sum;
}

}  // namespace
}  // namespace bertft

using namespace bertft;

// Size of the split columns of n rows of d, in one or two parts; rows of a partial sum.
extern "C" int split_columns_bytes(long long* bytes, int* rows_of_range, long long n, int d, int parts) {
  *bytes = ceil_div(n, kTile) * kTile * lines_of(d, parts) * kLine * static_cast<long long>(sizeof(__half));
  *rows_of_range = kRange;
  return 0;
}

// u (n, d) -> halves (split_columns_bytes) in one or two parts, and largest (1), the bits of the largest |u|.
extern "C" int split_columns_launch(const float* u, void* halves, unsigned* largest, long long n, int d, int parts,
                                    cudaStream_t stream) {
  if (n < 0 || d < 1 || d > 1 << 20 || (parts != kHigh && parts != kBoth)) return kInvalid;
  if (int rc = static_cast<int>(cudaMemsetAsync(largest, 0, sizeof(unsigned), stream))) return rc;
  if (n == 0) return 0;
  const long long padded = ceil_div(n, kTile) * kTile;
  BERTFT_LAUNCH(largest_kernel, dim3(at_most(ceil_div(n * d, 4096), 2048)), dim3(256), 0, stream, u, n * d, largest);
  BERTFT_LAUNCH(split_columns_kernel, dim3(at_most(padded / 8, 4096)), dim3(256), 0, stream, u, n, d, largest,
                static_cast<__half*>(halves), padded, lines_of(d, parts), parts);
  return static_cast<int>(cudaGetLastError());
}

// total (d, e) += U'V of split columns u (n, d) and v (n, e) in as many parts; v null: of u with itself (e is ignored).
// partial (most, d, e): as many ranges of rows at a time.
extern "C" int split_moments_launch(const void* u, const void* v, const unsigned* largest_u, const unsigned* largest_v,
                                    float* partial, int most, double* total, long long n, int d, int e, int parts,
                                    cudaStream_t stream) {
  const bool own = v == nullptr;
  if (own) e = d;
  if (n < 0 || d < 1 || e < 1 || d > 1 << 20 || e > 1 << 20 || most < 1 || most > 65535) return kInvalid;
  if (parts != kHigh && parts != kBoth) return kInvalid;
  const long long padded = ceil_div(n, kTile) * kTile, ranges = ceil_div(padded, kRange);
  const long long rows = ceil_div(d, kTile), cols = ceil_div(e, kTile),
                  tiles = own ? rows * (rows + 1) / 2 : rows * cols;
  for (long long first = 0; first < ranges; first += most) {
    const int count = at_most(ranges - first, most);
    const auto* left = static_cast<const __half*>(u) + first * kRange * lines_of(d, parts) * kLine;
    const auto* right = own ? left : static_cast<const __half*>(v) + first * kRange * lines_of(e, parts) * kLine;
    if (int rc = with_stages([&](auto stages) {
          constexpr int kStages = decltype(stages)::value;
          const auto grid = dim3(unsigned(tiles), unsigned(count));
          if (parts == kHigh) {
            if (int rc = allow_shared(high_moments_kernel<kStages>, kRing<kStages>)) return rc;
            BERTFT_LAUNCH((high_moments_kernel<kStages>), grid, dim3(kThreads), kRing<kStages>, stream, left, right,
                          partial, padded - first * kRange, d, e, own);
          } else {
            if (int rc = allow_shared(split_moments_kernel<kStages>, kRing<kStages>)) return rc;
            BERTFT_LAUNCH((split_moments_kernel<kStages>), grid, dim3(kThreads), kRing<kStages>, stream, left, right,
                          partial, padded - first * kRange, d, e, own);
          }
          return static_cast<int>(cudaGetLastError());
        })) {
      return rc;
    }
    BERTFT_LAUNCH(fold_ranges_kernel, dim3(unsigned(ceil_div(static_cast<long long>(d) * e, 256))), dim3(256), 0,
                  stream, partial, count, d, e, own, largest_u, own ? largest_u : largest_v, total);
    if (int rc = static_cast<int>(cudaGetLastError())) return rc;
  }
  return 0;
}
