// split_gradient: the operands of the products that the gradient of distances consists of, split into two halves.
//
//   grad_i = (sum over j of w_ij) u_i - sum over j of w_ij v_j       (dot: only + sum over j of w_ij v_j)
//   w_ij: g_ij (dot, cosine, correlation), 2 g_ij (sqeuclidean), g_ij / d_ij, 0 where d_ij = 0 (euclidean)
//   x with itself: w_ij + w_ji, and 0 for i = j (not for dot); condensed: g of the pairs i < j
//   u, v: rows of x and y in the metric's form less one mean, which differences do not notice. Cosine is half the
//   squared distance of unit rows; what this adds along u_i the gradient of normalising removes.
// The products are those of split_matrix.cu: w is taken by rows, with a power of two of each; v across, with one of
//   each of its columns, because a sum over rows has no place for a power of each.
//   w (L, N, M) -> halves (L, P, C, 2, 32) as split_across.cuh has them, largest (L, N), sums (L, N); and turned over
//   x (L, N, D) -> u (L, N, D) float, halves (L, P, C, 2, 32), largest (L, D)
// Types: x float, half, bfloat16; g, d float; forms of rows and sums of w in double.
// Work split: a block adds a tile of 128 x 128 weights and finds the largest of rows and columns; partial sums are
//   folded in a fixed order. Then a block splits 32 x 128 weights for either side; of x with itself also those
//   opposite. Rows: a warp brings one into its form; a block finds the largest of 32 columns; a warp splits a row.
// registers: <= 64
// counters: weight_sums_kernel no bank conflicts, sectors 1.0
// counters: split_weights_kernel no bank conflicts, sectors 1.0
// counters: largest_of_columns_kernel no bank conflicts, load sectors 1.0
// counters: split_points_kernel sectors 1.0
// float64: weight_sums_kernel elements / 32 * 6
// float64: prepare_rows_kernel elements / 32 * 25
// issued: weight_sums_kernel warps * 2500
// issued: split_weights_kernel warps * 2150
// Expected limit: memory. A weight is read twice, 4 bytes each (euclidean 8), and written once, 4 bytes for either
//   side. On an H200 on paper, for 4 x 4,096 x 4,096 of x with itself: 0.8 GB, 0.2 ms. Not measured.
// Presumption: hundreds of rows and columns or more; the plain gradient is for smaller inputs.
#include "split_across.cuh"

namespace bertft {
namespace {

using namespace split;

constexpr int kPatch = kChunk;  // rows and columns of weights that a block splits at once

// The gradient g of distances as weights: what g_ij contributes to w_ij and, of x with itself, to w_ji.
struct Weights {
  const float *g, *dist;  // dist: euclidean only, else null
  int n, m;
  float factor;
  bool symmetric, condensed, diagonal;

  // Contributions of four pairs, (i, j) and those ROWS and COLUMNS on: all are asked for before any is waited for.
  template <int ROWS, int COLUMNS>
  __device__ __forceinline__ void load(float (&v)[4], int layer, int i, int j) const {
    long long at[4];
    bool there[4];
    const long long first = layer * (condensed ? (n - 1ll) * n / 2 : 1ll * n * m);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int row = i + e * ROWS, column = j + e * COLUMNS;
      there[e] = row < n && column < m && (!condensed || row < column);
      const long long line = 1ll * row * (condensed ? 2 * n - row - 3 : m);
      at[e] = first + column + (condensed ? line / 2 - 1 : line);
    }
#pragma unroll
    for (int e = 0; e < 4; ++e) v[e] = there[e] ? factor * g[at[e]] : 0.f;
#pragma unroll
    for (int e = 0; e < 4; ++e) v[e] = diagonal || i + e * ROWS != j + e * COLUMNS ? v[e] : 0.f;
    if (!dist) return;
    float d[4];
#pragma unroll
    for (int e = 0; e < 4; ++e) d[e] = there[e] ? dist[at[e]] : 0.f;
#pragma unroll
    for (int e = 0; e < 4; ++e) v[e] = d[e] > 0 ? __fdiv_rn(v[e], d[e]) : 0.f;
  }
};

// One side of the weights: halves of its rows; of each row the bits of the largest (of x with itself twice the largest
// contribution) and the sum; sums (layers, tiles, rows) of 128 weights.
struct Side {
  __half* halves;
  unsigned* largest;
  float* sums;
  double* partial;
};

// Grid (tiles across, tiles down, layers): partial sums and largest elements of both sides.
__global__ void __launch_bounds__(256) weight_sums_kernel(Weights w, Side left, Side right) {
  BERTFT_SHARED(double, sums, [8][kTile]);
  BERTFT_SHARED(unsigned, largest, [8][kTile]);
  const int t = static_cast<int>(threadIdx.x), warp = t / 32, lane = t % 32;
  const int layer = static_cast<int>(blockIdx.z), i0 = static_cast<int>(blockIdx.y) * kTile,
            j0 = static_cast<int>(blockIdx.x) * kTile;
  const int rows = min(w.n - i0, kTile), cols = min(w.m - j0, kTile);
  const float bound = w.symmetric ? 2.f : 1.f;
  double down[4] = {};
  unsigned top[4] = {};
  for (int r = warp; r < rows; r += 8) {
    double across = 0;
    unsigned most = 0;
    float v[4];
    w.load<0, 32>(v, layer, i0 + r, j0 + lane);
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const unsigned bits = __float_as_uint(bound * v[c]) & 0x7fffffffu;
      across += static_cast<double>(v[c]);
      down[c] += static_cast<double>(v[c]);
      most = max(most, bits);
      top[c] = max(top[c], bits);
    }
    across = warp_sum(across);
#pragma unroll
    for (int o = 16; o > 0; o >>= 1) most = max(most, __shfl_xor_sync(kAllLanes, most, o));
    if (lane != 0) continue;
    left.partial[static_cast<long long>(layer * gridDim.x + blockIdx.x) * w.n + i0 + r] = across;
    atomicMax(left.largest + static_cast<long long>(layer) * w.n + i0 + r, most);
  }
#pragma unroll
  for (int c = 0; c < 4; ++c) sums[warp][c * 32 + lane] = down[c], largest[warp][c * 32 + lane] = top[c];
  __syncthreads();
  if (t >= cols) return;
  double sum = 0;
  unsigned most = 0;
#pragma unroll
  for (int k = 0; k < 8; ++k) sum += sums[k][t], most = max(most, largest[k][t]);
  right.partial[static_cast<long long>(layer * gridDim.y + blockIdx.y) * w.m + j0 + t] = sum;
  atomicMax(right.largest + static_cast<long long>(layer) * w.m + j0 + t, most);
}

// Grid (blocks, layers): sums of all weights of a row, of the partial sums of one side or, for x with itself, of both.
__global__ void __launch_bounds__(256)
    fold_weights_kernel(const double* __restrict__ partial, const double* __restrict__ other, int tiles, long long n,
                        float* __restrict__ sums) {
  const long long i = static_cast<long long>(blockIdx.x) * 256 + threadIdx.x, layer = blockIdx.y;
  if (i >= n) return;
  double sum = 0;
  for (int t = 0; t < tiles; ++t) sum += partial[(layer * tiles + t) * n + i];
  for (int t = 0; other && t < tiles; ++t) sum += other[(layer * tiles + t) * n + i];
  sums[layer * n + i] = static_cast<float>(sum);
}

// Two neighbours times 2^s as halves; low parts lie a chunk behind high ones.
__device__ __forceinline__ void write_halves(float a, float b, float up, __half* line) {
  a *= up, b *= up;
  const __half2 high = __floats2half2_rn(a, b);
  *reinterpret_cast<__half2*>(line) = high;
  *reinterpret_cast<__half2*>(line + kChunk) = __floats2half2_rn(a - __low2float(high), b - __high2float(high));
}

// Grid (four times the tiles, layers): halves of 32 x 128 weights by rows, a patch of 32 x 32 at a time, and turned
// over for the other side. Of x with itself the two sides are one, and the patches are those on and above the diagonal.
__global__ void __launch_bounds__(256) split_weights_kernel(Weights w, Side left, Side right) {
  BERTFT_SHARED(float, patch, [2][kPatch][kPatch + 1]);
  const int t = static_cast<int>(threadIdx.x), warp = t / 32, lane = t % 32, layer = static_cast<int>(blockIdx.y);
  const int down = whole_lines(w.n), across = whole_lines(w.m), tile = static_cast<int>(blockIdx.x) / kOfTile;
  int bi = tile / (across / kOfTile), bj = tile % (across / kOfTile);
  if (w.symmetric) triangle_tile(tile, across / kOfTile, bi, bj);
  bi = bi * kOfTile + static_cast<int>(blockIdx.x) % kOfTile;
  const int i0 = bi * kPatch, r = t / 16, c = t % 16 * 2;
#pragma unroll 1
  for (int p = 0; p < kOfTile; ++p) {
    const int column = bj * kOfTile + p, j0 = column * kPatch;
    if (w.symmetric && column < bi) continue;
    __syncthreads();  // the patch before has been read
    float v[4];
#pragma unroll 1  // both sides at once would double the code
    for (int side = 0; side < 2; ++side) {
      if (side == 0 || w.symmetric) w.load<8, 0>(v, layer, (side ? j0 : i0) + warp, (side ? i0 : j0) + lane);
#pragma unroll
      for (int e = 0; e < 4; ++e) patch[side][warp + e * 8][lane] = side == 0 || w.symmetric ? v[e] : 0.f;
    }
    __syncthreads();
    const int sides = w.symmetric && column == bi ? 1 : 2;
#pragma unroll 1
    for (int side = 0; side < sides; ++side) {
      const Side& to = side ? right : left;
      const int first = side ? j0 : i0, rows = side ? w.m : w.n, lines = side ? down : across;
      const long long above = static_cast<long long>(layer) * (side ? across : down) * kPatch;
      const float (*own)[kPatch + 1] = patch[side], (*other)[kPatch + 1] = patch[1 - side];
#pragma unroll
      for (int q = 0; q < 2; ++q) {
        const int e = r + q * 16, i = first + e;
        const unsigned largest = i < rows ? to.largest[static_cast<long long>(layer) * rows + i] : 0u;
        write_halves(own[e][c] + other[c][e], own[e][c + 1] + other[c + 1][e], two_to(power_of(largest)),
                     to.halves + ((above + i) * lines + (side ? bi : column)) * kLine + c);
      }
    }
  }
}

// Grid (blocks of 32 columns, ranges of rows, layers): largest (layers, d), the bits of the largest |u| of a column.
__global__ void __launch_bounds__(256)
    largest_of_columns_kernel(const float* __restrict__ u, long long n, int d, unsigned* __restrict__ largest) {
  BERTFT_SHARED(unsigned, found, [8][32]);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int k = static_cast<int>(blockIdx.x) * 32 + lane;
  const long long layer = blockIdx.z, step = static_cast<long long>(gridDim.y) * 8;
  unsigned most = 0;
  for (long long r = static_cast<long long>(blockIdx.y) * 8 + warp; k < d && r < n; r += step) {
    most = max(most, __float_as_uint(u[(layer * n + r) * d + k]) & 0x7fffffffu);
  }
  found[warp][lane] = most;
  __syncthreads();
  if (warp != 0 || k >= d) return;
#pragma unroll
  for (int e = 1; e < 8; ++e) most = max(most, found[e][lane]);
  atomicMax(largest + layer * d + k, most);
}

// Grid (blocks, layers): halves (layers, padded, lines, 2, 32) of u (layers, n, d), with the power of each column.
__global__ void __launch_bounds__(256)
    split_points_kernel(const float* __restrict__ u, long long n, int d, const unsigned* __restrict__ largest,
                        __half* __restrict__ halves, long long padded, int lines) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const long long layer = blockIdx.y, step = static_cast<long long>(gridDim.x) * 8;
  for (long long r = static_cast<long long>(blockIdx.x) * 8 + threadIdx.x / 32; r < padded; r += step) {
    const float* row = u + (layer * n + r) * d;
    __half* line = halves + (layer * padded + r) * lines * kLine + lane;
    for (int k = lane; k < lines * kChunk; k += 32, line += kLine) {
      const float v = r < n && k < d ? row[k] * two_to(power_of(largest[layer * d + k])) : 0.f;
      line[0] = __float2half_rn(v);
      line[kChunk] = __float2half_rn(v - __half2float(line[0]));
    }
  }
}

}  // namespace
}  // namespace bertft

using namespace bertft;

// Bytes of a layer's halves by rows and turned over, and of a layer's partial sums of either side.
extern "C" int split_weights_bytes(long long* bytes, long long n, long long m) {
  const auto halves = [](long long rows, long long columns) {
    return ceil_div(rows, kTile) * kTile * whole_lines(static_cast<int>(columns)) * kLine * 2;
  };
  bytes[0] = halves(n, m), bytes[1] = halves(m, n);
  bytes[2] = ceil_div(m, kTile) * n * 8, bytes[3] = ceil_div(n, kTile) * m * 8;
  return 0;
}

// g (layers, n, m), or condensed (layers, n (n - 1) / 2), and the distances (euclidean) -> halves, largest and sums of
// its rows and, of two sets of points (symmetric = 0), of its columns. partial: as split_weights_bytes has them.
extern "C" int split_weights_launch(const float* g, const float* dist, void* left, unsigned* largest_left,
                                    float* sums_left, void* right, unsigned* largest_right, float* sums_right,
                                    double* partial_left, double* partial_right, int metric, int layers, long long n,
                                    long long m, int symmetric, int condensed, cudaStream_t stream) {
  if (metric < kDot || metric > kEuclidean || (metric == kEuclidean) != (dist != nullptr) || layers < 0 ||
      layers > 65535 || n < 0 || m < 0 || n > 1 << 20 || m > 1 << 20 || (symmetric && n != m) ||
      (condensed && !symmetric) || (symmetric == 0) != (right != nullptr)) {
    return kInvalid;
  }
  if (layers == 0 || n == 0 || m == 0) return 0;
  Weights w{g, dist, static_cast<int>(n), static_cast<int>(m), metric == kSqEuclidean ? 2.f : 1.f};
  w.symmetric = symmetric != 0, w.condensed = condensed != 0, w.diagonal = metric == kDot || !symmetric;
  const Side of_rows{static_cast<__half*>(left), largest_left, sums_left, partial_left};
  Side of_columns{static_cast<__half*>(right), largest_right, sums_right, partial_right};
  if (symmetric) of_columns = {of_rows.halves, largest_left, nullptr, partial_right};
  const long long tiles = ceil_div(n, kTile), across = ceil_div(m, kTile);
  const long long blocks = kOfTile * (symmetric ? tiles * (tiles + 1) / 2 : tiles * across);
  if (blocks > 0x7fffffffll) return kInvalid;
  const auto clear = [=](unsigned* of, long long rows) {
    return of ? static_cast<int>(cudaMemsetAsync(of, 0, sizeof(unsigned) * layers * rows, stream)) : 0;
  };
  if (int rc = clear(largest_left, n)) return rc;
  if (int rc = clear(largest_right, m)) return rc;
  const auto grid = [layers](long long blocks) { return dim3(unsigned(blocks), unsigned(layers)); };
  BERTFT_LAUNCH(weight_sums_kernel, dim3(unsigned(across), unsigned(tiles), unsigned(layers)), dim3(256), 0, stream, w,
                of_rows, of_columns);
  BERTFT_LAUNCH(fold_weights_kernel, grid(ceil_div(n, 256)), dim3(256), 0, stream, partial_left,
                symmetric ? partial_right : nullptr, static_cast<int>(across), n, sums_left);
  if (!symmetric) {
    BERTFT_LAUNCH(fold_weights_kernel, grid(ceil_div(m, 256)), dim3(256), 0, stream, partial_right, nullptr,
                  static_cast<int>(tiles), m, sums_right);
  }
  BERTFT_LAUNCH(split_weights_kernel, grid(blocks), dim3(256), 0, stream, w, of_rows, of_columns);
  return static_cast<int>(cudaGetLastError());
}

// x (layers, n, d) less mean (layers, d), in the metric's form -> u (layers, n, d), halves, largest (layers, d).
// ignored (layers, n): scratch.
extern "C" int split_points_launch(const void* x, const double* mean, float* u, float* ignored, void* halves,
                                   unsigned* largest, int dtype, int metric, int layers, long long n, int d,
                                   cudaStream_t stream) {
  if (metric < kDot || metric > kEuclidean || layers < 0 || layers > 65535 || n < 0 || d < 1 || d > 1 << 20 ||
      dtype == kFloat64) {
    return kInvalid;
  }
  if (int rc = static_cast<int>(cudaMemsetAsync(largest, 0, sizeof(unsigned) * layers * d, stream))) return rc;
  if (layers == 0 || n == 0) return 0;
  const long long padded = ceil_div(n, kTile) * kTile;
  const auto grid = [layers](long long rows) { return dim3(at_most(ceil_div(rows, 8), 4096), unsigned(layers)); };
  return with_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    if constexpr (sizeof(T) == 8) {
      return kInvalid;
    } else {
      BERTFT_LAUNCH((prepare_rows_kernel<T, float, float>), grid(n), dim3(256), 0, stream, static_cast<const T*>(x), n,
                    d, metric, mean, u, n, d, static_cast<double*>(nullptr), ignored, static_cast<BadRows*>(nullptr));
      BERTFT_LAUNCH(largest_of_columns_kernel,
                    dim3(unsigned(ceil_div(d, 32)), at_most(ceil_div(n, 128), 256), unsigned(layers)), dim3(256), 0,
                    stream, u, n, d, largest);
      BERTFT_LAUNCH(split_points_kernel, grid(padded), dim3(256), 0, stream, u, n, d, largest,
                    static_cast<__half*>(halves), padded, whole_lines(d));
      return static_cast<int>(cudaGetLastError());
    }
  });
}
