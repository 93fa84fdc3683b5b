// Element types, metrics, reductions and tile walks shared by the kernels of this folder.
#pragma once
#include <cstdint>
#include <type_traits>

#include "gpu.h"

namespace bertft {

// Codes of the launchers' `dtype` and `metric` arguments; bind_cuda.cpp maps torch's types, ops/metrics.py the names.
enum DType : int { kFloat32 = 0, kFloat64 = 1, kFloat16 = 2, kBFloat16 = 3, kUInt8 = 4 };
enum Metric : int { kDot = 0, kCosine = 1, kCorrelation = 2, kSqEuclidean = 3, kEuclidean = 4, kManhattan = 5 };

// Launchers return 0, or a cudaError_t.
constexpr int kInvalid = 1;  // cudaErrorInvalidValue
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr long long kNoRow = 0x7f7f7f7f7f7f7f7fll;  // "no offending row": what memset(0x7f) leaves

// Sums run in float for float, half and bfloat16 inputs, in double for double.
template <class T>
struct ComputeOf {
  using type = float;
};
template <>
struct ComputeOf<double> {
  using type = double;
};
template <class T>
using Compute = typename ComputeOf<T>::type;

__device__ __forceinline__ float to_compute(float v) { return v; }
__device__ __forceinline__ double to_compute(double v) { return v; }
__device__ __forceinline__ float to_compute(__half v) { return __half2float(v); }
__device__ __forceinline__ float to_compute(__nv_bfloat16 v) { return __bfloat162float(v); }

__device__ __forceinline__ void store(float* p, float v) { *p = v; }
__device__ __forceinline__ void store(double* p, double v) { *p = v; }
__device__ __forceinline__ void store(__half* p, float v) { *p = __float2half_rn(v); }
__device__ __forceinline__ void store(__nv_bfloat16* p, float v) { *p = __float2bfloat16_rn(v); }

__device__ __forceinline__ float absolute(float v) { return fabsf(v); }
__device__ __forceinline__ double absolute(double v) { return fabs(v); }
__device__ __forceinline__ float root(float v) { return sqrtf(v); }
__device__ __forceinline__ double root(double v) { return sqrt(v); }

// Calls f with a value of the element type that `dtype` names.
template <class F>
int with_dtype(int dtype, F&& f) {
  switch (dtype) {
    case kFloat32:
      return f(float{});
    case kFloat64:
      return f(double{});
    case kFloat16:
      return f(__half{});
    case kBFloat16:
      return f(__nv_bfloat16{});
    default:
      return kInvalid;
  }
}

template <class C>
__device__ __forceinline__ C warp_sum(C v) {
#pragma unroll
  for (int o = 16; o > 0; o >>= 1) v += __shfl_xor_sync(kAllLanes, v, o);
  return v;
}

// Sum over a block of NT threads in a fixed order; `scratch` holds NT / 32 values; every thread gets the sum.
template <int NT, class C>
__device__ __forceinline__ C block_sum(C v, C* scratch) {
  const int t = static_cast<int>(threadIdx.x);
  v = warp_sum(v);
  __syncthreads();  // an earlier use of scratch has been read
  if (t % 32 == 0) scratch[t / 32] = v;
  __syncthreads();
  C sum = 0;
#pragma unroll
  for (int w = 0; w < NT / 32; ++w) sum += scratch[w];
  return sum;
}

// Four consecutive values of memory, 16-byte aligned, by the widest loads.
__device__ __forceinline__ void load4(const float* p, float* v) {
  const float4 q = *reinterpret_cast<const float4*>(p);
  v[0] = q.x, v[1] = q.y, v[2] = q.z, v[3] = q.w;
}
__device__ __forceinline__ void load4(const double* p, double* v) {
  const double2 a = *reinterpret_cast<const double2*>(p), b = *reinterpret_cast<const double2*>(p + 2);
  v[0] = a.x, v[1] = a.y, v[2] = b.x, v[3] = b.y;
}

// The same four to memory, likewise aligned.
__device__ __forceinline__ void store4(float* p, const float* v) {
  *reinterpret_cast<float4*>(p) = make_float4(v[0], v[1], v[2], v[3]);
}
__device__ __forceinline__ void store4(double* p, const double* v) {
  *reinterpret_cast<double2*>(p) = make_double2(v[0], v[1]);
  *reinterpret_cast<double2*>(p + 2) = make_double2(v[2], v[3]);
}

// Tile `t` of an upper triangle of `tiles` x `tiles`, row by row: (0,0) (0,1) ... (1,1) (1,2) ...
__host__ __device__ __forceinline__ void triangle_tile(long long t, int tiles, int& row, int& col) {
  const double b = 2.0 * tiles + 1.0;
  long long r = static_cast<long long>((b - sqrt(b * b - 8.0 * static_cast<double>(t))) * 0.5);
  const auto start = [tiles](long long i) { return i * tiles - i * (i - 1) / 2; };
  while (r > 0 && start(r) > t) --r;  // the square root may be off by one either way
  while (start(r + 1) <= t) ++r;
  row = static_cast<int>(r);
  col = static_cast<int>(r + (t - start(r)));
}

// Pairs of neighbouring tiles in the rows of that triangle, each row's from the diagonal on; the last of a row may be
// half a pair. Their number, row and first column of pair t, and the pair of tile t.
__host__ __device__ inline long long tile_pairs(long long tiles) { return (tiles + 1) * (tiles + 1) / 4; }
__device__ __forceinline__ void triangle_pair(long long t, int tiles, int& row, int& col) {
  const long long left = tile_pairs(tiles) - t;  // this one and those after it
  long long rows = static_cast<long long>(2 * sqrt(static_cast<double>(left)));
  while (tile_pairs(rows - 1) >= left) --rows;  // the root is not exact
  while (tile_pairs(rows) < left) ++rows;
  row = static_cast<int>(tiles - rows);
  col = row + static_cast<int>(2 * (tile_pairs(rows) - left));
}
__host__ __device__ inline long long pair_of_tile(long long t, int tiles) {
  int row, col;
  triangle_tile(t, tiles, row, col);
  return tile_pairs(tiles) - tile_pairs(tiles - row) + (col - row) / 2;
}

inline long long ceil_div(long long a, long long b) { return (a + b - 1) / b; }
__host__ __device__ inline int at_most(long long v, long long limit) { return static_cast<int>(v < limit ? v : limit); }

// Parts of a workspace, each on a 256-byte boundary with a gap behind it; with a null base only the size counts.
struct Carver {
  char* base;
  size_t used = 0;
  template <class V>
  V* take(long long count) {
    V* part = base ? reinterpret_cast<V*>(base + used) : nullptr;
    used += (static_cast<size_t>(count) * sizeof(V) + 511) / 256 * 256;
    return part;
  }
};

inline int device_attribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&value, attribute, device);
  return value;
}

// Dynamic shared memory above 48 KiB has to be asked for.
template <class K>
int allow_shared(K kernel, size_t bytes) {
  if (bytes <= 48 * 1024) return 0;
  return static_cast<int>(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)));
}

}  // namespace bertft
