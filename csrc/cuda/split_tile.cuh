// Products of split rows (split_line.cuh) to float32 accuracy: a tile of 128 x 128 pairs, or of 128 x 256, on float16
// tensor cores.
//
//   u.v = lo.hi + hi.lo + hi.hi: of two halves to a number the product of the low parts, below 2^-22, is left out
// After 16 columns the three products of a piece leave the tensor core and are added outside, rounded to nearest: cores
// cut towards zero, and a long sum inside them would drift.
// Rows of high parts alone have one product, hi.hi, which leaves the core after 64 columns: what the parts lost
// outweighs what cores cut by then. Work split: 4 or 8 warps of 64 x 64 pairs each, in 4 x 8 pieces of mma.m16n8k16. A
// ring of stages of 32 columns is filled by cp.async; fragments come by ldmatrix from lines whose 16-byte pieces are
// exchanged by the row number (piece ^ row % 8): no bank conflicts, and one address from which all others follow by
// exchanging bits.
// W = 2: two blocks of 128 threads a multiprocessor. W = 4 (BERTFT_TILE=wide): one of 256, which reads a quarter less
// from L2; its tile is two tiles of W = 2 side by side, of which the second may be missing. Same bits.
#pragma once
#include <cstdlib>
#include <string_view>

#include "split_line.cuh"

namespace bertft {
namespace split {

constexpr int kNarrow = 2, kWide = 4;  // W: 64 rows, and 64 threads, for every 64 columns of a tile
template <int W>
constexpr int kColumns = 64 * W;
template <int W>
constexpr int kThreadsOf = 64 * W;
constexpr int kThreads = kThreadsOf<kNarrow>;

template <int W>
constexpr int kStage = (kTile + kColumns<W>)*kLine;  // halves: a line of each row of the tile, then of each column
template <int STAGES, int W = kNarrow>
constexpr size_t kRing = sizeof(__half) * STAGES * kStage<W>;  // bytes: 32 KB a stage, or 48 KB

// Values that the threads of a block share, in shared memory because registers are scarce.
struct Place {
  const __half* lines[3];  // of the tile's first row, of its first column, of its column 128
  int row, col;            // numbers of the first row and column
};

// Offset of 16-byte piece q of a row's line in a stage, in halves: pieces 0..3 are high parts, 4..7 low parts.
__device__ __forceinline__ int at(int row, int q) { return row * kLine + ((q ^ (row & 7)) << 3); }

// threadIdx.x, read again so that values derived from it need not stay in registers while products run.
__device__ __forceinline__ int thread_anew() {
  int t = static_cast<int>(threadIdx.x);
#if defined(__CUDACC__)
  asm volatile("" : "+r"(t));
#endif
  return t;
}

// Starts the copies of chunk `chunk` of all rows and columns of the tile. Eight threads copy a line; the lines of a
// thread are 16 or 32 apart, so that the row number's last three bits, and with them its place in a line, stay the
// same.
template <int W>
__device__ __forceinline__ void copy_stage(__half* stage, const Place& place, int chunk, int chunks) {
  constexpr int kStep = kThreadsOf<W> / 8;
  const int t = thread_anew();
  __half* to = stage + at(t / 8, t % 8);
  const unsigned step = kStep * 8u * chunks;  // offsets count 16-byte pieces: 32 bits are enough
  for (int side = 0; side <= W / 2; ++side) {
    const __half* from = place.lines[side];
    unsigned piece = static_cast<unsigned>(t / 8) * 8u * chunks + chunk * 8u + t % 8;
#pragma unroll
    for (int e = 0; e < kTile / kStep; ++e, piece += step) {
      __pipeline_memcpy_async(to + (side * kTile + e * kStep) * kLine, from + piece * 8ull, 16);
    }
  }
}

// A warp's 64 x 64 sums: a thread has 8 rows and 16 columns, in pieces laid out as the PTX manual says.
struct Sums {
  float v[4][8][4];  // [piece of 16 rows][piece of 8 columns][value]

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int e = 0; e < 128; ++e) v[e / 32][e / 4 % 8][e % 4] = 0;
  }

  // Adds the products of 16 columns. rows(m, hi, lo) brings the fragments of 16 rows, columns(pair, hi, lo) those of
  // two times 8 columns.
  template <class R, class C>
  __device__ __forceinline__ void add_columns(R&& rows, C&& columns) {
    unsigned a_hi[4][4], a_lo[4][4];
#pragma unroll
    for (int m = 0; m < 4; ++m) rows(m, a_hi[m], a_lo[m]);
#pragma unroll
    for (int pair = 0; pair < 4; ++pair) {
      unsigned hi[4], lo[4];
      columns(pair, hi, lo);
#pragma unroll
      for (int side = 0; side < 2; ++side) {
        const unsigned b_hi[2] = {hi[2 * side], hi[2 * side + 1]}, b_lo[2] = {lo[2 * side], lo[2 * side + 1]};
        float inside[4][4];
#pragma unroll
        for (int m = 0; m < 4; ++m) bertft_mma_m16n8k16_f16_first(inside[m], a_lo[m], b_hi);  // small terms first
#pragma unroll
        for (int m = 0; m < 4; ++m) bertft_mma_m16n8k16_f16(inside[m], a_hi[m], b_lo);
#pragma unroll
        for (int m = 0; m < 4; ++m) bertft_mma_m16n8k16_f16(inside[m], a_hi[m], b_hi);
#pragma unroll
        for (int m = 0; m < 4; ++m)
#pragma unroll
          for (int e = 0; e < 4; ++e) v[m][2 * pair + side][e] += inside[m][e];
      }
    }
  }

  // Adds the products of a stage, 32 columns. a, b: where the lane's first row of either operand begins for ldmatrix.
  __device__ __forceinline__ void add_stage(const __half* stage, int a, int b) {
#pragma unroll 1  // both halves at once would keep the fragments of both alive
    for (int k = 0; k < 2; ++k) {
      const int high = 2 * k << 3, low = (4 + 2 * k) << 3;  // 16 columns are two pieces, the low parts four further on
      add_columns(
          [&](int m, unsigned (&hi)[4], unsigned (&lo)[4]) {
            bertft_ldmatrix_x4(hi, stage + (a ^ high) + m * 16 * kLine);
            bertft_ldmatrix_x4(lo, stage + (a ^ low) + m * 16 * kLine);
          },
          [&](int pair, unsigned (&hi)[4], unsigned (&lo)[4]) {
            bertft_ldmatrix_x4(hi, stage + (b ^ high) + pair * 16 * kLine);
            bertft_ldmatrix_x4(lo, stage + (b ^ low) + pair * 16 * kLine);
          });
    }
  }

  // The same of a stage of high parts alone, 64 columns.
  __device__ __forceinline__ void add_high_stage(const __half* stage, int a, int b) {
    unsigned rows[4][4][4];  // [16 columns][16 rows]
#pragma unroll
    for (int k = 0; k < 4; ++k)
#pragma unroll
      for (int m = 0; m < 4; ++m) bertft_ldmatrix_x4(rows[k][m], stage + (a ^ (2 * k << 3)) + m * 16 * kLine);
#pragma unroll
    for (int pair = 0; pair < 4; ++pair) {
      unsigned columns[4][4];
#pragma unroll
      for (int k = 0; k < 4; ++k) bertft_ldmatrix_x4(columns[k], stage + (b ^ (2 * k << 3)) + pair * 16 * kLine);
      add_high(rows, columns, pair);
    }
  }

  // Adds the products of 64 columns: rows as above, and two times 8 columns.
  __device__ __forceinline__ void add_high(const unsigned (&rows)[4][4][4], const unsigned (&columns)[4][4], int pair) {
#pragma unroll
    for (int side = 0; side < 2; ++side) {
      float inside[4][4];
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const unsigned b[2] = {columns[k][2 * side], columns[k][2 * side + 1]};
#pragma unroll
        for (int m = 0; m < 4; ++m) {
          if (k == 0)
            bertft_mma_m16n8k16_f16_first(inside[m], rows[k][m], b);
          else
            bertft_mma_m16n8k16_f16(inside[m], rows[k][m], b);
        }
      }
#pragma unroll
      for (int m = 0; m < 4; ++m)
#pragma unroll
        for (int e = 0; e < 4; ++e) v[m][2 * pair + side][e] += inside[m][e];
    }
  }
};

// Tiles of 64 W columns on and above the diagonal of blocks x blocks blocks of 128 x 128 pairs, and the first block of
// tile t of them.
template <int W>
long long triangle_tiles(long long blocks) {
  return W == kNarrow ? blocks * (blocks + 1) / 2 : tile_pairs(blocks);
}
template <int W>
__device__ __forceinline__ void tile_of(long long t, int blocks, int& row, int& col) {
  if constexpr (W == kNarrow)
    triangle_tile(t, blocks, row, col);
  else
    triangle_pair(t, blocks, row, col);
}

// The tile of block `row` of rows and of columns from block `col` on; `lines` are those of the operands' first rows.
// A missing second half is the first one again: nobody looks at its sums.
template <int W>
__device__ __forceinline__ Place place_of(const __half* rows, const __half* columns, long long width, int row, int col,
                                          int blocks) {
  const int next = W == kWide && col + 1 < blocks ? col + 1 : col;
  return {{rows + row * kTile * width, columns + col * kTile * width, columns + next * kTile * width},
          row * kTile,
          col * kTile};
}

// Where pair (i, j) of a tile lies once its sums are in shared memory. Rows, columns and fragments are all written and
// read without bank conflicts: the low five bits of j are exchanged by those of i, in another order.
template <int W = kNarrow>
__device__ __forceinline__ int pair_at(int i, int j) {
  return i * kColumns<W> + (j ^ ((i & 1) | (i & 6) << 2 | (i & 24) >> 2));
}

// Leaves the sums in shared memory, in place of the ring (pair_at). Begins and ends with a barrier.
template <int W = kNarrow>
__device__ __forceinline__ float* leave(const Sums& sums, __half* ring) {
  __syncthreads();  // the last stage has been read
  float* tile = reinterpret_cast<float*>(ring);
  const int t = thread_anew(), i = t / kColumns<W / 2> * 64 + t % 32 / 4, j = t / 32 % W * 64 + t % 4 * 2;
#pragma unroll
  for (int e = 0; e < 128; ++e) {  // as the PTX manual lays out a piece of 16 x 8
    const int m = e / 32, n = e / 4 % 8, q = e % 4;
    tile[pair_at<W>(i + m * 16 + q / 2 * 8, j + n * 8 + q % 2)] = sums.v[m][n][q];
  }
  __syncthreads();
  return tile;
}

// Fills a ring of stages and takes them in turn: copy(stage, step) starts the copies of a step, take(stage) uses what
// has arrived. Begins with a barrier. `steps` may lie in shared memory, to be asked anew at every step.
template <int STAGES, int W = kNarrow, class F, class G>
__device__ __forceinline__ void through_ring(__half* ring, const int& steps, F&& copy, G&& take) {
  __syncthreads();
#pragma unroll 1
  for (int s = 0; s < STAGES - 1; ++s) {
    if (s < steps) copy(ring + s * kStage<W>, s);
    __pipeline_commit();
  }
  int now = 0;
#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    __pipeline_wait_prior(STAGES - 2);
    __syncthreads();  // everybody's copies of this stage are there, and the stage before it has been read
    const int ahead = step + STAGES - 1, before = now == 0 ? STAGES - 1 : now - 1;
    if (ahead < steps) copy(ring + before * kStage<W>, ahead);
    __pipeline_commit();  // empty at the end, so that the count of groups in flight stays the same
    take(ring + now * kStage<W>);
    now = now + 1 == STAGES ? 0 : now + 1;
  }
}

// The products of a tile over all columns, of rows in PARTS parts, left in shared memory. Begins with a barrier, behind
// which `place` is known, and ends with one.
template <int STAGES, int PARTS = kBoth, int W = kNarrow>
__device__ __forceinline__ float* tile_products(__half* ring, const Place& place, int chunks) {
  Sums sums;
  sums.clear();
  // ldmatrix: lanes 0..15 give 16 rows of a and 16..31 their next 8 columns; of b lanes 0..7 and 16..23 are rows.
  const auto left = [](int t) { return at(t / (32 * W) * 64 + t % 16, t % 32 / 16); };
  const auto right = [](int t) { return at(kTile + t / 32 % W * 64 + t % 32 / 16 * 8 + t % 8, t / 8 % 2); };
  const int a = left(static_cast<int>(threadIdx.x)), b = right(static_cast<int>(threadIdx.x));
  through_ring<STAGES, W>(
      ring, chunks, [&](__half* stage, int chunk) { copy_stage<W>(stage, place, chunk, chunks); },
      [&](const __half* stage) {
        if constexpr (PARTS == kHigh)
          sums.add_high_stage(stage, left(thread_anew()), right(thread_anew()));  // kept, they would spill
        else
          sums.add_stage(stage, a, b);
      });
  return leave<W>(sums, ring);
}

// Stages of the ring: three, or two where only so two blocks fit on a multiprocessor. 0: there is no room for two.
inline int ring_stages() {
  const auto fits = [](int stages, cudaDeviceAttr where, int blocks) {
    return blocks * (stages * static_cast<int>(kRing<1>) + 1024) <= device_attribute(where);
  };
  constexpr auto kProcessor = cudaDevAttrMaxSharedMemoryPerMultiprocessor,
                 kBlock = cudaDevAttrMaxSharedMemoryPerBlockOptin;
  if (fits(3, kProcessor, 2) || (fits(3, kBlock, 1) && !fits(2, kProcessor, 2))) return 3;
  return fits(2, kBlock, 1) ? 2 : 0;
}

// Calls f with the number of stages as a constant.
template <class F>
int with_stages(F&& f) {
  if (device_attribute(cudaDevAttrComputeCapabilityMajor) < 8) return kInvalid;
  const int stages = ring_stages();
  if (stages == 3) return f(std::integral_constant<int, 3>{});
  return stages == 2 ? f(std::integral_constant<int, 2>{}) : kInvalid;
}

// The same with the width of tiles, W, as a second constant: wide ones where BERTFT_TILE asks for them and three stages
// fit, four if there is room.
template <class F>
int with_tile(F&& f) {
  const auto fits = [limit = device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin)](size_t bytes) {
    return static_cast<int>(bytes) + 1024 <= limit;
  };
  const char* asked = std::getenv("BERTFT_TILE");
  const bool wide = asked && std::string_view(asked) == "wide" && fits(kRing<3, kWide>);
  return with_stages([&](auto stages) {
    constexpr std::integral_constant<int, kWide> kAsWide;
    if (!wide) return f(stages, std::integral_constant<int, kNarrow>{});
    if (fits(kRing<4, kWide>)) return f(std::integral_constant<int, 4>{}, kAsWide);
    return f(std::integral_constant<int, 3>{}, kAsWide);
  });
}

}  // namespace split
}  // namespace bertft
