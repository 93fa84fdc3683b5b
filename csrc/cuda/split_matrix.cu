// split_matrix: products A B and A'B of layers of matrices, on tensor cores (split_tile.cuh); nothing is transposed.
//
//   product: out[l, i, j] = sum over k of a[l, i, k] b[l, k, j],  a (L, N, K), b (L, K, M)
//            or sums[l, i] own[l, i, j] less that product: a gradient of distances (split_gradient.cu)
//   sum:     out[l, i, j] = sum over n of u[l, n, i] v[l, n, j],  u (L, N, D), v (L, N, E)
//   matrices as two halves (split_across.cuh); a is taken by rows, b, u and v across. FAST: by the high parts alone.
// Types: float, half, bfloat16 are split; out float; a sum is float for 1,024 rows, then double.
// Work split: a grid finds the largest element of a layer; one warp splits a row; a block owns 128 x 128 entries of a
//   layer (of a sum, over 1,024 rows) and takes 32 terms a stage. Partial sums (ranges, L, D, E) are folded in a fixed
//   order.
// Shared memory: 32 KB a stage, two or three stages.
// registers: <= 40, product_kernel <= 255, sum_kernel <= 255
// spills: product_kernel <= 24, sum_kernel <= 24
// instructions: product_kernel 64 HMMA, 32 HMMA from zero, 12 LDSM, 32 LDGSTS
// instructions: sum_kernel 64 HMMA, 32 HMMA from zero, 12 LDSM, 32 LDGSTS
//   (means of instances: 96, 32, 16, 32 to float32 accuracy; FAST 32, 32, 8, 32)
// tensor cores, cp.async, ldmatrix, 16-byte loads
// counters: product_kernel no bank conflicts, sectors 1.0
// counters: sum_kernel no bank conflicts, sectors 1.0
// float32: product_kernel tensor * 128 / 96
// float32: sum_kernel tensor * 128 / 96
// Expected limit: tensor cores. 3 multiply-adds of float16 a term; a tile reads 32 KB from L2 for 32 terms, 1.6e6
//   multiply-adds. Not measured.
// Presumption: hundreds of rows; columns in multiples of 128, as ranks of probes and widths of encoders.
#include "split_across.cuh"

namespace bertft {
namespace {

using namespace split;

constexpr int kRows = 1024;  // of a float sum

// Grid (blocks, layers): largest[l] = bits of the largest |u|; NaN counts as more than infinity.
template <class T>
__global__ void __launch_bounds__(256)
    largest_of_layer_kernel(const T* __restrict__ u, long long size, unsigned* __restrict__ largest) {
  const T* own = u + blockIdx.y * size;
  unsigned most = 0;
  const long long step = static_cast<long long>(gridDim.x) * 256;
  for (long long e = static_cast<long long>(blockIdx.x) * 256 + threadIdx.x; e < size; e += step) {
    most = max(most, __float_as_uint(to_compute(own[e])) & 0x7fffffffu);
  }
#pragma unroll
  for (int o = 16; o > 0; o >>= 1) most = max(most, __shfl_xor_sync(kAllLanes, most, o));
  if (threadIdx.x % 32 == 0) atomicMax(largest + blockIdx.y, most);
}

// Grid (blocks, layers): halves (layers, padded, lines, 2, 32) of u (layers, n, d).
template <class T>
__global__ void __launch_bounds__(256)
    split_matrix_kernel(const T* __restrict__ u, long long n, int d, const unsigned* __restrict__ largest,
                        __half* __restrict__ halves, long long padded, int lines) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const long long layer = blockIdx.y, step = static_cast<long long>(gridDim.x) * 8;
  const double up = ldexp(1.0, power_of(largest[layer]));
  for (long long r = static_cast<long long>(blockIdx.x) * 8 + threadIdx.x / 32; r < padded; r += step) {
    const T* row = u + (layer * n + r) * d;
    __half* line = halves + (layer * padded + r) * lines * kLine + lane;
    for (int k = lane; k < lines * kChunk; k += 32, line += kLine) {
      const double v = r < n && k < d ? static_cast<double>(to_compute(row[k])) * up : 0;
      const __half hi = __float2half_rn(static_cast<float>(v));
      line[0] = hi;
      line[kChunk] = __float2half_rn(static_cast<float>(v - static_cast<double>(__half2float(hi))));
    }
  }
}

// Largest elements of layers, or (each) of a's rows (layers, n) and b's columns (layers, m); sums (layers, n) and own
// (layers, n, m), or null.
struct Outcome {
  const unsigned *left, *right;
  const float *sums, *own;
  bool each;
};

__device__ __forceinline__ void write_product(const float* tile, const Outcome& of, float* __restrict__ out,
                                              long long layer, long long n, int m, int i0, int j0) {
  const int rows = at_most(n - i0, kTile), cols = at_most(m - j0, kTile), lane = thread_anew() % 32;
  float right[kTile / 32];
#pragma unroll
  for (int q = 0; q < kTile / 32; ++q) {
    right[q] = q * 32 + lane < cols ? scale_of(of.right[of.each ? layer * m + j0 + q * 32 + lane : layer]) : 0.f;
  }
  for (int r = thread_anew() / 32; r < rows; r += kThreads / 32) {
    const long long i = layer * n + i0 + r, at = i * m + j0 + lane;
    const float left = scale_of(of.left[of.each ? i : layer]), sum = of.own ? of.sums[i] : 0.f;
#pragma unroll
    for (int q = 0; q < kTile / 32; ++q) {
      if (q * 32 + lane >= cols) break;
      const float v = tile[pair_at(r, q * 32 + lane)] * left * right[q];
      out[at + q * 32] = of.own ? __fmaf_rn(sum, of.own[at + q * 32], -v) : v;
    }
  }
}

// Block (tile, layer): out (layers, n, m) of a (layers, n, depth) and b (layers, depth, m).
template <int STAGES, bool FAST>
__global__ void __launch_bounds__(kThreads, 2)
    product_kernel(const __half* __restrict__ a, const __half* __restrict__ b, Outcome of, float* __restrict__ out,
                   long long n, int depth, int m) {
  BERTFT_DYN_SHARED(__half, ring);
  BERTFT_SHARED(Operand, operands, [2]);
  BERTFT_SHARED(int, place, [3]);  // the tile's first row and column, steps of 32 terms
  const long long layer = blockIdx.y;
  if (threadIdx.x == 0) {
    const int tiles = (m + kTile - 1) / kTile, lines_a = whole_lines(depth), lines_b = whole_lines(m);
    const int bi = static_cast<int>(blockIdx.x) / tiles, bj = static_cast<int>(blockIdx.x) % tiles;
    const long long rows_a = (n + kTile - 1) / kTile * kTile, rows_b = lines_a * kChunk;
    operands[0] = {a + (layer * rows_a + bi * kTile) * lines_a * kLine, lines_a * 8u};
    operands[1] = {b + (layer * rows_b * lines_b + bj * kOfTile) * kLine, lines_b * 8u};
    place[0] = bi * kTile, place[1] = bj * kTile, place[2] = (depth + kDepth - 1) / kDepth;
  }
  Sums sums;
  sums.clear();
  through_ring<STAGES>(
      ring, place[2],
      [&](__half* stage, int step) {
        copy_by_rows(stage, operands[0], step);
        copy_across(stage + kOperandHalves, operands[1], step);
      },
      [&](const __half* stage) {
#pragma unroll 1  // both halves at once would keep the fragments of both alive
        for (int k = 0; k < 2; ++k) {
          const int t = thread_anew();
          add_terms<FAST>(sums, ByRows{stage, left_by_rows(t) ^ (2 * k << 3)},
                          Across{stage + k * 16 * kRowHalves, right_across(t)});
        }
      });
  const float* tile = leave(sums, ring);
  write_product(tile, of, out, layer, n, m, place[0], place[1]);
}

// Block (tile, range of rows, layer): partial (ranges, layers, d, e), not yet scaled. Of `padded` rows a layer the
// first range begins at `first`.
template <int STAGES, bool FAST>
__global__ void __launch_bounds__(kThreads, 2)
    sum_kernel(const __half* __restrict__ u, const __half* __restrict__ v, float* __restrict__ partial,
               long long padded, long long first, int d, int e) {
  BERTFT_DYN_SHARED(__half, ring);
  BERTFT_SHARED(Operand, operands, [2]);
  BERTFT_SHARED(int, place, [3]);
  if (threadIdx.x == 0) {
    const int tiles = (e + kTile - 1) / kTile;
    const long long begin = first + static_cast<long long>(blockIdx.y) * kRows, row = blockIdx.z * padded + begin;
    for (int side = 0; side < 2; ++side) {
      const int block = static_cast<int>(side ? blockIdx.x % tiles : blockIdx.x / tiles);
      const int lines = whole_lines(side ? e : d);
      operands[side] = {(side ? v : u) + (row * lines + block * kOfTile) * kLine, lines * 8u};
      place[side] = block * kTile;
    }
    place[2] = static_cast<int>(min(static_cast<long long>(kRows), padded - begin)) / kDepth;
  }
  Sums sums;
  sums.clear();
  through_ring<STAGES>(
      ring, place[2],
      [&](__half* stage, int step) {
        for (int side = 0; side < 2; ++side) copy_across(stage + side * kOperandHalves, operands[side], step);
      },
      [&](const __half* stage) {
#pragma unroll 1  // as above
        for (int k = 0; k < 2; ++k) {
          const int t = thread_anew(), from = k * 16 * kRowHalves;
          add_terms<FAST>(sums, Across{stage, from + left_across(t)}, Across{stage, from + right_across(t)});
        }
      });
  const float* tile = leave(sums, ring);
  const int i0 = place[0], j0 = place[1];
  const int rows = at_most(d - i0, kTile), cols = at_most(e - j0, kTile);
  const long long which = static_cast<long long>(blockIdx.y) * gridDim.z + blockIdx.z;
  float* to = partial + (which * d + i0) * e + j0;
  for (int r = thread_anew() / 32; r < rows; r += kThreads / 32) {
    for (int c = thread_anew() % 32; c < cols; c += 32) to[static_cast<long long>(r) * e + c] = tile[pair_at(r, c)];
  }
}

// Grid (blocks, layers): out (layers, size) = sum of partial (ranges, layers, size), scaled, always in the same order,
// after `before` (layers, size) unless it is null; `after` takes the sum if there are further ranges.
__global__ void __launch_bounds__(256)
    fold_sums_kernel(const float* __restrict__ partial, int ranges, long long size,
                     const unsigned* __restrict__ largest_u, const unsigned* __restrict__ largest_v,
                     double* __restrict__ total, bool begins, bool ends, float* __restrict__ out) {
  const long long e = static_cast<long long>(blockIdx.x) * 256 + threadIdx.x, layer = blockIdx.y, layers = gridDim.y;
  if (e >= size) return;
  const long long at = layer * size + e;
  double sum = begins ? 0.0 : total[at];
  for (int r = 0; r < ranges; ++r) sum += static_cast<double>(partial[(r * layers + layer) * size + e]);
  if (ends)
    out[at] = static_cast<float>(ldexp(sum, -power_of(largest_u[layer]) - power_of(largest_v[layer])));
  else
    total[at] = sum;
}

// Calls f with the number of stages and whether only high parts count, both as constants.
template <class F>
int with_constants(bool fast, F&& f) {
  return with_stages([&](auto stages) { return fast ? f(stages, std::true_type{}) : f(stages, std::false_type{}); });
}

int multiply(const void* a, const void* b, const Outcome& of, float* out, int layers, long long n, int depth, int m,
             bool fast, cudaStream_t stream) {
  const long long tiles = ceil_div(n, kTile) * ceil_div(m, kTile);
  if (layers < 0 || layers > 65535 || n < 0 || depth < 1 || m < 1 || depth > 1 << 20 || m > 1 << 20 ||
      tiles > 0x7fffffffll) {
    return kInvalid;
  }
  if (layers == 0 || n == 0) return 0;
  return with_constants(fast, [&](auto stages, auto high) {
    constexpr int kStages = decltype(stages)::value;
    constexpr bool kFast = decltype(high)::value;
    if (int rc = allow_shared(product_kernel<kStages, kFast>, kRing<kStages>)) return rc;
    BERTFT_LAUNCH((product_kernel<kStages, kFast>), dim3(unsigned(tiles), unsigned(layers)), dim3(kThreads),
                  kRing<kStages>, stream, static_cast<const __half*>(a), static_cast<const __half*>(b), of, out, n,
                  depth, m);
    return static_cast<int>(cudaGetLastError());
  });
}

}  // namespace
}  // namespace bertft

using namespace bertft;

// Bytes of a layer's halves; rows of a partial sum.
extern "C" int split_matrix_bytes(long long* bytes, int* rows_of_range, long long n, int d) {
  *bytes = ceil_div(n, kTile) * kTile * whole_lines(d) * kLine * static_cast<long long>(sizeof(__half));
  *rows_of_range = kRows;
  return 0;
}

// u (layers, n, d) -> halves (layers, split_matrix_bytes) and largest (layers), the bits of the largest |u|.
extern "C" int split_matrix_launch(const void* u, void* halves, unsigned* largest, int dtype, int layers, long long n,
                                   int d, cudaStream_t stream) {
  if (layers < 0 || layers > 65535 || n < 0 || d < 1 || d > 1 << 20 || dtype == kFloat64) return kInvalid;
  if (int rc = static_cast<int>(cudaMemsetAsync(largest, 0, sizeof(unsigned) * layers, stream))) return rc;
  if (layers == 0 || n == 0) return 0;
  const long long padded = ceil_div(n, kTile) * kTile;
  const dim3 all(at_most(ceil_div(n * d, 4096), 2048), unsigned(layers)),
      rows(at_most(padded / 8, 4096), unsigned(layers));
  return with_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    if constexpr (sizeof(T) == 8) {
      return kInvalid;
    } else {
      const T* from = static_cast<const T*>(u);
      BERTFT_LAUNCH((largest_of_layer_kernel<T>), all, dim3(256), 0, stream, from, n * d, largest);
      BERTFT_LAUNCH((split_matrix_kernel<T>), rows, dim3(256), 0, stream, from, n, d, largest,
                    static_cast<__half*>(halves), padded, whole_lines(d));
      return static_cast<int>(cudaGetLastError());
    }
  });
}

// out (layers, n, m) of split a (layers, n, depth) and b (layers, depth, m).
extern "C" int split_product_launch(const void* a, const unsigned* largest_a, const void* b, const unsigned* largest_b,
                                    float* out, int layers, long long n, int depth, int m, int fast,
                                    cudaStream_t stream) {
  return multiply(a, b, {largest_a, largest_b, nullptr, nullptr, false}, out, layers, n, depth, m, fast != 0, stream);
}

// The same with powers of a's rows and b's columns: the product, or sums (layers, n) own (layers, n, m) less it.
extern "C" int split_gradient_launch(const void* a, const unsigned* largest_a, const void* b, const unsigned* largest_b,
                                     const float* sums, const float* own, float* out, int layers, long long n,
                                     int depth, int m, int fast, cudaStream_t stream) {
  if ((sums == nullptr) != (own == nullptr)) return kInvalid;
  return multiply(a, b, {largest_a, largest_b, sums, own, true}, out, layers, n, depth, m, fast != 0, stream);
}

// out (layers, d, e) of split u (layers, n, d) and v (layers, n, e). partial (most, layers, d, e): as many ranges of
// rows at a time; total (layers, d, e): read and written if that is not all of them.
extern "C" int split_sum_launch(const void* u, const unsigned* largest_u, const void* v, const unsigned* largest_v,
                                float* partial, int most, double* total, float* out, int layers, long long n, int d,
                                int e, int fast, cudaStream_t stream) {
  if (layers < 0 || layers > 65535 || n < 1 || d < 1 || e < 1 || d > 1 << 20 || e > 1 << 20 || most < 1 ||
      most > 65535) {
    return kInvalid;
  }
  if (layers == 0) return 0;
  const long long padded = ceil_div(n, kTile) * kTile, ranges = ceil_div(padded, kRows);
  const long long size = static_cast<long long>(d) * e, tiles = ceil_div(d, kTile) * ceil_div(e, kTile);
  for (long long first = 0; first < ranges; first += most) {
    const int count = at_most(ranges - first, most);
    if (int rc = with_constants(fast != 0, [&](auto stages, auto high) {
          constexpr int kStages = decltype(stages)::value;
          constexpr bool kFast = decltype(high)::value;
          if (int rc = allow_shared(sum_kernel<kStages, kFast>, kRing<kStages>)) return rc;
          BERTFT_LAUNCH((sum_kernel<kStages, kFast>), dim3(unsigned(tiles), unsigned(count), unsigned(layers)),
                        dim3(kThreads), kRing<kStages>, stream, static_cast<const __half*>(u),
                        static_cast<const __half*>(v), partial, padded, first * kRows, d, e);
          return static_cast<int>(cudaGetLastError());
        })) {
      return rc;
    }
    BERTFT_LAUNCH(fold_sums_kernel, dim3(unsigned(ceil_div(size, 256)), unsigned(layers)), dim3(256), 0, stream,
                  partial, count, size, largest_u, largest_v, total, first == 0, first + count >= ranges, out);
    if (int rc = static_cast<int>(cudaGetLastError())) return rc;
  }
  return 0;
}
