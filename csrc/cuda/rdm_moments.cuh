// Sums over the entries of rdm_correlation: products of all pairs of layers, sums and squares of each.
#pragma once
#include "rdm_entries.cuh"
#include "rdm_finish.cuh"

namespace bertft {
namespace rdm {

constexpr int kSlice = 512;  // entries of a layer that a block takes at a time

// Products over a slice of all pairs of layers, 4 x 4 a warp, and sums and squares of each layer.
template <class C>
__device__ __forceinline__ void add_moments(const C* values, const Group& g, double* sums) {
  const int lane = static_cast<int>(threadIdx.x) % 32, others = g.others();
  const int bx = (g.nx + 3) / 4, by = (others + 3) / 4;
  for (int job = static_cast<int>(threadIdx.x) / 32; job < bx * by + g.all(); job += NT / 32) {
    if (job >= bx * by) {
      const int a = job - bx * by;
      double first = 0, second = 0;
      for (int p = lane; p < kSlice; p += 32) {
        const double v = values[a * kSlice + p];
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
      left[q] = values + min(l0 + q, g.nx - 1) * kSlice;
      right[q] = values + ((g.ny ? g.nx : 0) + min(m0 + q, others - 1)) * kSlice;
    }
    C total[4][4] = {};  // of the slice: 16 products a lane
#pragma unroll 4
    for (int p = lane; p < kSlice; p += 32) {
      C b[4];
#pragma unroll
      for (int q = 0; q < 4; ++q) b[q] = right[q][p];
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const C a = left[r][p];
#pragma unroll
        for (int q = 0; q < 4; ++q) total[r][q] += a * b[q];
      }
    }
#pragma unroll
    for (int r = 0; r < 4; ++r)
#pragma unroll
      for (int q = 0; q < 4; ++q) {
        const double sum = warp_sum(static_cast<double>(total[r][q]));
        if (lane == 0 && l0 + r < g.nx && m0 + q < others) sums[(l0 + r) * others + m0 + q] += sum;
      }
  }
}

template <class C>
size_t slice_bytes(const Group& g) {
  return sizeof(C) * 2 * g.all() * kSlice + sizeof(double) * g.sums();
}

// partial (blocks, sums) += sums over the slices of entries (tiles, layers, kPairs) of the group's layers; those of y
// begin at `first_y`; `anew`: partial holds nothing yet. Two slices are in flight.
template <class C>
__global__ void __launch_bounds__(NT)
    slice_moments_kernel(const C* __restrict__ entries, long long tiles, int layers, int first_y, Group g, bool anew,
                         double* __restrict__ partial) {
  constexpr int kSlices = kPairs / kSlice, kVector = 16 / sizeof(C);
  BERTFT_DYN_SHARED(C, ring);
  const int t = static_cast<int>(threadIdx.x), all = g.all();
  double* sums = reinterpret_cast<double*>(ring + 2 * all * kSlice);
  double* mine = partial + static_cast<long long>(blockIdx.x) * g.sums();
  for (int e = t; e < g.sums(); e += NT) sums[e] = anew ? 0 : mine[e];
  const auto copy = [&](long long slice, int at) {
    if (slice < tiles * kSlices) {
      const C* from = entries + slice / kSlices * layers * kPairs + slice % kSlices * kSlice;
      for (int e = t; e < all * (kSlice / kVector); e += NT) {
        const int a = e / (kSlice / kVector), q = e % (kSlice / kVector) * kVector;
        const long long layer = a < g.nx ? g.x0 + a : first_y + g.y0 + a - g.nx;
        __pipeline_memcpy_async(ring + (at * all + a) * kSlice + q, from + layer * kPairs + q, 16);
      }
    }
    __pipeline_commit();  // empty at the end, so that the count of groups in flight stays the same
  };
  copy(blockIdx.x, 0);
  int now = 0;
  for (long long slice = blockIdx.x; slice < tiles * kSlices; slice += gridDim.x, now ^= 1) {
    copy(slice + gridDim.x, now ^ 1);
    __pipeline_wait_prior(1);
    __syncthreads();  // this slice is there for everybody
    add_moments(ring + now * all * kSlice, g, sums);
    __syncthreads();  // and has been read
  }
  __syncthreads();
  for (int e = t; e < g.sums(); e += NT) mine[e] = sums[e];
}

}  // namespace rdm
}  // namespace bertft
