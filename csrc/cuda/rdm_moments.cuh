// The kernel that walks tiles of pairs: values of all layers, then what the pass wants of them.
#pragma once
#include "rdm_finish.cuh"
#include "rdm_ranks.cuh"

namespace bertft {
namespace rdm {

enum Pass : int { kMoments, kRange, kHistogram, kRankMoments };

// What a pass reads and writes; indices of layers are those of the group.
template <class C> struct Work {
  C* ranges;         // (all, 2)
  Bin* histogram;    // (all, bins)
  C* table;          // (all, bins, 3)
  C* range_partial;  // (blocks, all, 2)
  double* partial;   // (blocks, sums)
  int bins;
};

// Products over the tile of all pairs of layers, 4 x 4 a warp, and sums and squares of each layer.
template <class C>
__device__ __forceinline__ void add_moments(const C* values, int pairs, const Group& g, double* sums) {
  const int lane = static_cast<int>(threadIdx.x) % 32, others = g.others();
  const int bx = (g.nx + 3) / 4, by = (others + 3) / 4;
  for (int job = static_cast<int>(threadIdx.x) / 32; job < bx * by + g.all(); job += NT / 32) {
    if (job >= bx * by) {
      const int a = job - bx * by;
      double first = 0, second = 0;
      for (int p = lane; p < pairs; p += 32) {
        const double v = values[a * pairs + p];
        first += v;
        second += v * v;
      }
      first = warp_sum(first);
      second = warp_sum(second);
      if (lane == 0) sums[g.nx * others + a] += first, sums[g.nx * others + g.all() + a] += second;
      continue;
    }
    const int l0 = job / by * 4, m0 = job % by * 4;
    if (g.ny == 0 && m0 < l0) continue;  // symmetric
    const C *left[4], *right[4];
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      left[q] = values + min(l0 + q, g.nx - 1) * pairs;
      right[q] = values + (g.ny ? g.nx : 0) * pairs + min(m0 + q, others - 1) * pairs;
    }
    double total[4][4] = {};
    for (int p0 = lane; p0 < pairs; p0 += 32 * 16) {
      C chunk[4][4] = {};
#pragma unroll 4
      for (int p = p0; p < p0 + 32 * 16; p += 32) {
        C b[4];
#pragma unroll
        for (int q = 0; q < 4; ++q) b[q] = right[q][p];
#pragma unroll
        for (int r = 0; r < 4; ++r) {
          const C a = left[r][p];
#pragma unroll
          for (int q = 0; q < 4; ++q) chunk[r][q] += a * b[q];
        }
      }
#pragma unroll
      for (int r = 0; r < 4; ++r)
#pragma unroll
        for (int q = 0; q < 4; ++q) total[r][q] += chunk[r][q];
    }
#pragma unroll
    for (int r = 0; r < 4; ++r)
#pragma unroll
      for (int q = 0; q < 4; ++q) {
        const double sum = warp_sum(total[r][q]);
        if (lane == 0 && l0 + r < g.nx && m0 + q < others) sums[(l0 + r) * others + m0 + q] += sum;
      }
  }
}

// Values of all layers of the group for pairs (i0 + r, j0 + c): values[a][r][c], made fit for the pass.
template <class E, class C, int TJ, int PATH>
__device__ __forceinline__ void make_values(const Side<E, C>& x, const Side<E, C>& y, const Group& g, long long n,
                                            long long i0, long long j0, Pass pass, const Work<C>& work, E* stages,
                                            C* values) {
  using S = Stage<E, TJ>;
  const int chunks_x = x.ld / S::kChunk, chunks_y = g.ny ? y.ld / S::kChunk : 0;
  const int steps = g.nx * chunks_x + g.ny * chunks_y;
  const auto copy = [&](int step) {
    E* stage = stages + step % kStages * S::kSize;
    if (step < g.nx * chunks_x) {
      copy_chunk<E, C, TJ>(stage, x, g.x0 + step / chunks_x, step % chunks_x, i0, j0);
    } else if (step < steps) {
      const int s = step - g.nx * chunks_x;
      copy_chunk<E, C, TJ>(stage, y, g.y0 + s / chunks_y, s % chunks_y, i0, j0);
    }
    __pipeline_commit();  // empty at the end, so that the count of groups in flight stays the same
  };
  for (int step = 0; step < kStages - 1; ++step) copy(step);
  int step = 0;
  for (int a = 0; a < g.all(); ++a) {
    const bool of_x = a < g.nx;  // fields one by one: a reference to either side would put both on the stack
    const int layer = of_x ? g.x0 + a : g.y0 + a - g.nx, chunks = of_x ? chunks_x : chunks_y;
    const int metric = of_x ? x.metric : y.metric;
    const C* p = (of_x ? x.p : y.p) + layer * x.padded;
    Accumulator<E, C, TJ, PATH> acc = {};
    for (int chunk = 0; chunk < chunks; ++chunk, ++step) {
      __pipeline_wait_prior(kStages - 2);
      __syncthreads();  // everybody's copies of this stage are there, and the stage of the step before has been read
      copy(step + kStages - 1);
      acc.add(stages + step % kStages * S::kSize, metric);
    }
    C* mine = values + a * kRows * TJ;
#pragma unroll
    for (int e = 0; e < acc.kEach; ++e) mine[acc.row(e) * TJ + acc.col(e)] = acc.at(e);
    const C shift = (of_x ? x.shift : y.shift)[layer];
#pragma unroll 1  // a thread reads back what it wrote: less code than to do this on registers
    for (int e = 0; e < acc.kEach; ++e) {
      const int r = acc.row(e), c = acc.col(e);
      const long long i = i0 + r, j = j0 + c;
      C v = entry(mine[r * TJ + c], p[i], p[j], metric);
      if (pass == kMoments) v -= shift;
      if (pass == kRankMoments) {
        v = rank_of(v, work.ranges + 2 * a, work.table + static_cast<long long>(a) * work.bins * 3, work.bins);
      }
      if (!(i < j && j < n)) v = pass == kMoments || pass == kRankMoments ? C(0) : static_cast<C>(nan(""));
      mine[r * TJ + c] = v;
    }
  }
  __syncthreads();
}

template <class E, class C, int TJ, int PATH>
__global__ void __launch_bounds__(NT, TJ == 64 || sizeof(C) == 8 ? 1 : 2)  // held to 128 registers, these would spill
    rdm_tiles_kernel(Side<E, C> x, Side<E, C> y, Group g, long long n, Pass pass, Work<C> work) {
  BERTFT_DYN_SHARED(E, stages);
  C* values = reinterpret_cast<C*>(stages + kStages * Stage<E, TJ>::kSize);
  double* sums = reinterpret_cast<double*>(values + g.all() * kRows * TJ);
  C* ranges = reinterpret_cast<C*>(sums);
  const int t = static_cast<int>(threadIdx.x), rows = static_cast<int>((n + kRows - 1) / kRows);
  constexpr int kSplit = kRows / TJ;
  const long long tiles = static_cast<long long>(rows) * (rows + 1) / 2 * kSplit;
  const bool products = pass == kMoments || pass == kRankMoments;
  for (int e = t; e < g.sums() && products; e += NT) sums[e] = 0;
  for (int e = t; e < 2 * g.all() && pass == kRange; e += NT) ranges[e] = static_cast<C>(e % 2 ? -INFINITY : INFINITY);
  __syncthreads();
  for (long long tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    int bi, bj;
    triangle_tile(tile / kSplit, rows, bi, bj);
    const long long i0 = static_cast<long long>(bi) * kRows;
    const long long j0 = static_cast<long long>(bj) * kRows + tile % kSplit * TJ;
    if (j0 >= n) continue;
    make_values<E, C, TJ, PATH>(x, y, g, n, i0, j0, pass, work, stages, values);
    if (products) add_moments(values, kRows * TJ, g, sums);
    if (pass == kRange) widen_ranges(values, g.all(), kRows * TJ, ranges);
    if (pass == kHistogram) count_values(values, g.all(), kRows * TJ, work.ranges, work.bins, work.histogram);
    __syncthreads();  // values are free again
  }
  for (int e = t; e < g.sums() && products; e += NT) {
    work.partial[static_cast<long long>(blockIdx.x) * g.sums() + e] = sums[e];
  }
  for (int e = t; e < 2 * g.all() && pass == kRange; e += NT) {
    work.range_partial[static_cast<long long>(blockIdx.x) * 2 * g.all() + e] = ranges[e];
  }
}

}  // namespace rdm
}  // namespace bertft
