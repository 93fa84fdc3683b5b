// Ranks of a layer's entries without sorting them: range, histogram, table; then ranks take the entries' place.
//
// Bin b holds count c_b, of ranks cum_b + 1 .. cum_b + c_b. A value at the fraction f of its bin gets the rank
//   cum_b + (c_b + 1) / 2 + c_b (f - mean fraction of the bin),
// so that the ranks of every bin have the right sum, and values that are all alike get exactly their mid-rank: what
// lies as close to the mean fraction as rounding scatters equal values counts as equal to it. A rank is off by less
// than c_b. Fractions are counted in 2^-20, in integers: the order of the atomics does not show.
#pragma once
#include "rdm_entries.cuh"

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
template <class C>
__device__ __forceinline__ int bin_of(C v, const C* range, int bins, C& fraction) {
  const C at = (v - range[0]) * range[1] + C(0.5);
  int b = static_cast<int>(at);
  b = b < 0 ? 0 : b > bins - 1 ? bins - 1 : b;
  fraction = at - static_cast<C>(b);
  fraction = fraction < 0 ? C(0) : fraction > 1 ? C(1) : fraction;
  return b;
}

// Rank of a value by its layer's table (bins, 3): mid-rank of the bin, ranks per unit of fraction, mean fraction.
template <class C>
__device__ __forceinline__ C rank_of(C v, const C* range, const C* table, int bins) {
  C fraction;
  const C* bin = table + 3 * static_cast<long long>(bin_of(v, range, bins, fraction));
  const C away = fraction - bin[2], rounding = static_cast<C>(divisions(bins)) * (sizeof(C) == 8 ? C(1e-15) : C(5e-7));
  return absolute(away) <= rounding ? bin[0] : bin[0] + bin[1] * away;
}

// Least and greatest of a layer's entries in this group of tiles, block (share of the tiles, layer); what is no pair is
// NaN. partial (blocks, layers, 2) is widened, or begun where it holds nothing yet (`anew`).
template <class C>
__global__ void __launch_bounds__(NT)
    range_kernel(const C* __restrict__ entries, long long tiles, bool anew, C* __restrict__ partial) {
  BERTFT_SHARED(C, bounds, [NT / 32][2]);
  const int t = static_cast<int>(threadIdx.x), layers = static_cast<int>(gridDim.y);
  C lo = static_cast<C>(INFINITY), hi = -lo;
  for (long long tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const C* from = entries + (tile * layers + blockIdx.y) * kPairs;
    for (int p = 4 * t; p < kPairs; p += 4 * NT) {
      C v[4];
      load4(from + p, v);
#pragma unroll
      for (int e = 0; e < 4; ++e) lo = v[e] < lo ? v[e] : lo, hi = v[e] > hi ? v[e] : hi;
    }
  }
#pragma unroll
  for (int o = 16; o > 0; o >>= 1) {
    const C l = __shfl_xor_sync(kAllLanes, lo, o), h = __shfl_xor_sync(kAllLanes, hi, o);
    lo = l < lo ? l : lo;
    hi = h > hi ? h : hi;
  }
  if (t % 32 == 0) bounds[t / 32][0] = lo, bounds[t / 32][1] = hi;
  __syncthreads();
  if (t != 0) return;
  C* mine = partial + 2 * (static_cast<long long>(blockIdx.x) * layers + blockIdx.y);
  if (!anew) lo = min(lo, mine[0]), hi = max(hi, mine[1]);
#pragma unroll
  for (int w = 1; w < NT / 32; ++w) lo = min(lo, bounds[w][0]), hi = max(hi, bounds[w][1]);
  mine[0] = lo;
  mine[1] = hi;
}

// A bin of a block's histogram, in two words of 32 bits whose sums cannot overflow for 2^20 entries: the fractions' low
// word, and the count (21 bits) with the fractions' carries above it.
constexpr int kCountThreads = 1024, kCountBits = 21, kTilesOfBlock = (1 << 20) / kPairs;

inline int bins_of_part(int bins) {
  const int room = (device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin) - 1024) / 8;
  if (room < 1) return 0;
  const int parts = (bins + room - 1) / room;
  return (bins + parts - 1) / parts;
}

// Adds a share of a layer's entries to its histogram (layers, bins), block (64 tiles, layer, part of the bins).
template <class C>
__global__ void __launch_bounds__(kCountThreads)
    count_kernel(const C* __restrict__ entries, long long tiles, const C* __restrict__ ranges, int bins, int part,
                 Bin* __restrict__ histogram) {
  BERTFT_DYN_SHARED(unsigned, low);
  unsigned* high = low + part;
  const int t = static_cast<int>(threadIdx.x), layers = static_cast<int>(gridDim.y),
            layer = static_cast<int>(blockIdx.y);
  const int first = static_cast<int>(blockIdx.z) * part, count = min(part, bins - first);
  for (int b = t; b < count; b += kCountThreads) low[b] = high[b] = 0;
  __syncthreads();
  const long long begin = static_cast<long long>(blockIdx.x) * kTilesOfBlock, end = min(begin + kTilesOfBlock, tiles);
  for (long long tile = begin; tile < end; ++tile) {
    const C* from = entries + (tile * layers + layer) * kPairs;
    for (int p = 4 * t; p < kPairs; p += 4 * kCountThreads) {
      C v[4];
      load4(from + p, v);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        if (v[e] != v[e]) continue;  // no pair
        C fraction;
        const int b = bin_of(v[e], ranges + 2 * layer, bins, fraction) - first;
        if (b < 0 || b >= count) continue;
        const unsigned add = static_cast<unsigned>(fraction * static_cast<C>(kFraction));
        const unsigned carry = atomicAdd(low + b, add) > 0xffffffffu - add;
        atomicAdd(high + b, 1u + (carry << kCountBits));
      }
    }
  }
  __syncthreads();
  for (int b = t; b < count; b += kCountThreads) {
    const unsigned long long number = high[b] & ((1u << kCountBits) - 1), carries = high[b] >> kCountBits;
    if (number == 0) continue;
    Bin* bin = histogram + static_cast<long long>(layer) * bins + first + b;
    atomicAdd(&bin->count, number);
    atomicAdd(&bin->fraction, (carries << 32) + low[b]);
  }
}

// Ranks in the place of entries, block (tile, layer); what is no pair becomes 0.
template <class C>
__global__ void __launch_bounds__(NT)
    rank_kernel(C* __restrict__ entries, const C* __restrict__ ranges, const C* __restrict__ table, int bins) {
  const long long layer = blockIdx.y;
  C* from = entries + (static_cast<long long>(blockIdx.x) * gridDim.y + layer) * kPairs;
  for (int p = 4 * static_cast<int>(threadIdx.x); p < kPairs; p += 4 * NT) {
    C v[4];
    load4(from + p, v);
#pragma unroll
    for (int e = 0; e < 4; ++e)
      v[e] = v[e] == v[e] ? rank_of(v[e], ranges + 2 * layer, table + layer * bins * 3, bins) : C(0);
    store4(from + p, v);
  }
}

// ranges (layers, 2) of partial (blocks, layers, 2); the greatest becomes divisions per unit.
template <class C>
__global__ void __launch_bounds__(32)
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
template <class C>
__global__ void __launch_bounds__(NT)
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
#pragma unroll 1                              // divisions side by side would take three times the registers
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
