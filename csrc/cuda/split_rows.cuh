// The kernel that splits rows into two halves; formula and work split: split_rows.cu.
#pragma once
#include "split_line.cuh"

namespace bertft {
namespace split {

// Exponent of a finite float's leading bit, -127 for subnormal numbers and 0.
__device__ __forceinline__ int exponent_of(float v) { return static_cast<int>(__float_as_uint(v) >> 23 & 255u) - 127; }

template <class T>
__global__ void __launch_bounds__(256)
    split_rows_kernel(const T* __restrict__ x, long long n, int d, int metric, const double* __restrict__ mean, Rows to,
                      float* __restrict__ stats, BadRows* bad) {
  const int lane = static_cast<int>(threadIdx.x) % 32, chunks = to.chunks;
  const long long layer = blockIdx.y, step = static_cast<long long>(gridDim.x) * 8;
  const double* m = mean + layer * d;
  for (long long r = static_cast<long long>(blockIdx.x) * 8 + threadIdx.x / 32; r < to.padded; r += step) {
    const T* row = x + (layer * n + r) * d;
    double centre = 0, factor = 0, square = 0, along = 0;
    float largest = 0;
    if (r < n) {
      row_statistics(row, layer * n + r, d, metric, bad, centre, factor);
      for (int k = lane; k < d; k += 32) {
        const double v = (static_cast<double>(to_compute(row[k])) - centre) * factor - m[k];
        square += v * v;
        along += v * m[k];
        largest = fmaxf(largest, absolute(static_cast<float>(v)));
      }
    }
#pragma unroll
    for (int o = 16; o > 0; o >>= 1) largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, o));
    square = warp_sum(square);
    along = warp_sum(along);
    const int s = largest > 0 ? 13 - exponent_of(largest) : 0;
    const double up = ldexp(1.0, s);
    __half* line = to.halves + (layer * to.padded + r) * chunks * kLine + lane;
    for (int k = lane; k < chunks * kLine / to.parts; k += 32, line += kChunk * to.parts) {
      double v = 0;
      if (r < n && k < d) v = ((static_cast<double>(to_compute(row[k])) - centre) * factor - m[k]) * up;
      const __half hi = __float2half_rn(static_cast<float>(v));
      line[0] = hi;
      if (to.parts == kBoth) {
        line[kChunk] = __float2half_rn(static_cast<float>(v - static_cast<double>(__half2float(hi))));
      }
    }
    if (lane == 0) {
      to.scale[layer * to.padded + r] = static_cast<float>(ldexp(1.0, -s));
      to.along[layer * to.padded + r] = static_cast<float>(along);
      to.square[layer * to.padded + r] = static_cast<float>(square);
      if (stats && r < n) {
        stats[2 * (layer * n + r)] = static_cast<float>(centre);
        stats[2 * (layer * n + r) + 1] = static_cast<float>(factor);
      }
    }
  }
}

}  // namespace split
}  // namespace bertft
