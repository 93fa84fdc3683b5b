// Ranks of a layer's values without sorting or storing them: range, histogram, table.
//
// Bin b holds count c_b, of ranks cum_b + 1 .. cum_b + c_b. A value at the fraction f of its bin gets the rank
//   cum_b + (c_b + 1) / 2 + c_b (f - mean fraction of the bin),
// so that the ranks of every bin have the right sum, and values that are all alike get exactly their mid-rank: what
// lies as close to the mean fraction as rounding scatters equal values counts as equal to it. A rank is off by less
// than c_b. Fractions are counted in 2^-20, in integers: the order of the atomics does not show.
#pragma once
#include "rdm_tile.cuh"

namespace bertft {
namespace rdm {

constexpr double kFraction = 1048576.0;

struct Bin {
  unsigned long long count, fraction;
};

// Bins between the least and the greatest value, which lie in the middle of the first and of the last bin. The number
// has many divisors, so that values of a lattice (distances of integers) lie in the middle of bins too: at a border,
// rounding would deal equal values to two bins.
__host__ __device__ __forceinline__ int divisions(int bins) {
  return bins > 10080 ? (bins - 1) / 10080 * 10080 : bins > 2520 ? 2520 : bins - 1;
}

// Bin of a value and its place in the bin, from the layer's range (least, divisions / (greatest - least)).
template <class C> __device__ __forceinline__ int bin_of(C v, const C* range, int bins, C& fraction) {
  const C at = (v - range[0]) * range[1] + C(0.5);
  int b = static_cast<int>(at);
  b = b < 0 ? 0 : b > bins - 1 ? bins - 1 : b;
  fraction = at - static_cast<C>(b);
  fraction = fraction < 0 ? C(0) : fraction > 1 ? C(1) : fraction;
  return b;
}

// Rank of a value by its layer's table (bins, 3): mid-rank of the bin, ranks per unit of fraction, mean fraction.
template <class C> __device__ __forceinline__ C rank_of(C v, const C* range, const C* table, int bins) {
  C fraction;
  const C* bin = table + 3 * static_cast<long long>(bin_of(v, range, bins, fraction));
  const C away = fraction - bin[2], rounding = static_cast<C>(divisions(bins)) * (sizeof(C) == 8 ? C(1e-15) : C(5e-7));
  return absolute(away) <= rounding ? bin[0] : bin[0] + bin[1] * away;
}

// Least and greatest of a tile's values in each layer, one warp a layer; NaN marks what is no pair.
template <class C> __device__ __forceinline__ void widen_ranges(const C* values, int layers, int pairs, C* ranges) {
  for (int a = static_cast<int>(threadIdx.x) / 32; a < layers; a += NT / 32) {
    C lo = ranges[2 * a], hi = ranges[2 * a + 1];
    for (int p = static_cast<int>(threadIdx.x) % 32; p < pairs; p += 32) {
      const C v = values[a * pairs + p];
      lo = v < lo ? v : lo;
      hi = v > hi ? v : hi;
    }
#pragma unroll
    for (int o = 16; o > 0; o >>= 1) {
      const C l = __shfl_xor_sync(kAllLanes, lo, o), h = __shfl_xor_sync(kAllLanes, hi, o);
      lo = l < lo ? l : lo;
      hi = h > hi ? h : hi;
    }
    __syncwarp();  // every lane has read the range so far
    if (threadIdx.x % 32 == 0) ranges[2 * a] = lo, ranges[2 * a + 1] = hi;
    __syncwarp();
  }
}

template <class C> __device__ __forceinline__ void count_values(const C* values, int layers, int pairs, const C* ranges,
                                                                int bins, Bin* histogram) {
  for (int e = static_cast<int>(threadIdx.x); e < layers * pairs; e += NT) {
    const C v = values[e];
    if (v != v) continue;  // no pair
    const int a = e / pairs;
    C fraction;
    Bin* bin = histogram + static_cast<long long>(a) * bins + bin_of(v, ranges + 2 * a, bins, fraction);
    atomicAdd(&bin->count, 1ull);
    atomicAdd(&bin->fraction, static_cast<unsigned long long>(static_cast<double>(fraction) * kFraction));
  }
}

// ranges (layers, 2) of partial (blocks, layers, 2); the greatest becomes divisions per unit.
template <class C> __global__ void __launch_bounds__(32)
    fold_ranges_kernel(const C* __restrict__ partial, int blocks, int bins, C* __restrict__ ranges) {
  const int a = static_cast<int>(blockIdx.x), layers = static_cast<int>(gridDim.x);
  C lo = partial[2 * a], hi = partial[2 * a + 1];
  for (int b = static_cast<int>(threadIdx.x); b < blocks; b += 32) {
    const C l = partial[2 * (b * layers + a)], h = partial[2 * (b * layers + a) + 1];
    lo = l < lo ? l : lo;
    hi = h > hi ? h : hi;
  }
#pragma unroll
  for (int o = 16; o > 0; o >>= 1) {
    const C l = __shfl_xor_sync(kAllLanes, lo, o), h = __shfl_xor_sync(kAllLanes, hi, o);
    lo = l < lo ? l : lo;
    hi = h > hi ? h : hi;
  }
  if (threadIdx.x == 0)
    ranges[2 * a] = lo, ranges[2 * a + 1] = hi > lo ? static_cast<C>(divisions(bins)) / (hi - lo) : C(0);
}

// table (layers, bins, 3) of rank_of; ranks are centred and divided by the number of pairs.
template <class C> __global__ void __launch_bounds__(NT)
    rank_table_kernel(const Bin* __restrict__ histogram, int bins, double pairs, C* __restrict__ table) {
  BERTFT_SHARED(double, before, [NT + 1]);
  const int t = static_cast<int>(threadIdx.x), each = (bins + NT - 1) / NT;
  const Bin* mine = histogram + static_cast<long long>(blockIdx.x) * bins;
  C* out = table + static_cast<long long>(blockIdx.x) * bins * 3;
  const int first = min(t * each, bins), last = min(first + each, bins);
  double total = 0;
#pragma unroll 1
  for (int b = first; b < last; ++b) total += static_cast<double>(mine[b].count);
  before[t + 1] = total;
  if (t == 0) before[0] = 0;
  __syncthreads();
  if (t == 0)
    for (int s = 1; s <= NT; ++s) before[s] += before[s - 1];
  __syncthreads();
  double rank = before[t];
  const bool complete = before[NT] == pairs;  // else a value was not a number, and nothing is
#pragma unroll 1  // divisions side by side would take three times the registers
  for (int b = first; b < last; ++b) {
    const double count = static_cast<double>(mine[b].count);
    const double middle = count > 0 ? static_cast<double>(mine[b].fraction) / (kFraction * count) : 0;
    out[3 * b] = static_cast<C>(complete ? (rank + (count + 1) / 2 - (pairs + 1) / 2) / pairs : nan(""));
    out[3 * b + 1] = static_cast<C>(count / pairs);
    out[3 * b + 2] = static_cast<C>(middle);
    rank += count;
  }
}

}  // namespace rdm
}  // namespace bertft
