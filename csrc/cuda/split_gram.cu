// split_gram: distances between all rows, from products of split rows on tensor cores (split_tile.cuh).
//
//   v = alpha r_i r_j (u_i.w_j) + beta_i + beta_j + gamma;  u, w = r (hi + lo): rows of x and y less one common mean m
//     dot                  alpha  1, beta m.u, gamma |m|^2
//     cosine, correlation  alpha -1, beta |u|^2 / 2: half the squared distance of unit rows
//     sqeuclidean          alpha -2, beta |u|^2;  euclidean: its root
//   rows in one part (fast): u, w = r hi in the product, the same beta and gamma
//   out as pairwise_distance.cu has it: (B, N, M), without y symmetric with a diagonal of zeros, or condensed
// Types: x, y float, half, bfloat16; out float.
// Near rows: below 1/32 of beta_i + beta_j a difference of products has lost digits. Such pairs go onto a list (one
//   atomic a warp) and a second kernel recomputes them from x and y by differences, in double, a warp a pair: equal
//   rows are at distance exactly 0. So do pairs whose v is no number. If a layer has more of them than fit on the
//   list, pairwise_distance_launch computes it; it reads the count.
// Work split: a block owns 128 x 128 pairs (wide: 128 x 256); without y on and above the diagonal, written twice.
// Shared memory: 32 KB a stage, two or three stages (wide: 48 KB, three or four).
// registers: <= 255, repair_kernel <= 64
// spills: split_gram_kernel <= 24, high_gram_kernel <= 24, wide_gram_kernel <= 24, wide_high_gram_kernel <= 24
// instructions: split_gram_kernel 96 HMMA, 32 HMMA from zero, 16 LDSM, 32 LDGSTS
// instructions: high_gram_kernel 128 HMMA, 32 HMMA from zero, 32 LDSM, 32 LDGSTS
// instructions: wide_gram_kernel 96 HMMA, 32 HMMA from zero, 16 LDSM, 24 LDGSTS
// instructions: wide_high_gram_kernel 128 HMMA, 32 HMMA from zero, 32 LDSM, 24 LDGSTS
// tensor cores, cp.async, ldmatrix, 16-byte loads
// counters: split_gram_kernel no bank conflicts, load sectors 1.0, store sectors <= 1.1
// float32: split_gram_kernel tensor * 128 / 96
// issued: split_gram_kernel tensor * 609 / 192 + warps * 11000
// Expected limit: tensor cores. 3 N M D multiply-adds of float16 (half of that without y); a tile reads 32 KB from L2
//   for 32 columns, 1.6e6 multiply-adds; a wide one 48 KB for 3.1e6. Target on an H200 for 4 x 4,096 x 768: 0.5 ms, if
//   tensor cores give 400 TFLOP/s of float16. Not measured. Rows in one part: a third of the multiply-adds, half the
//   bytes.
// Presumption: hundreds of rows and columns or more; pairwise_distance.cu is for smaller inputs.
#include "pairwise_tile.cuh"
#include "split_tile.cuh"

namespace bertft {
namespace {

using namespace split;
using pairwise::Shape;

struct Form {
  float alpha, beta;
  int metric;
};

// Pairs to be taken anew: count (layers), pairs (layers, capacity).
struct Near {
  int* count;
  int2* pairs;
  int capacity;
};

constexpr float kNear = 1.f / 32;

// A value, or below 0 (of dot: no number) for a pair of near rows. `both` is beta_i + beta_j + gamma.
__device__ __forceinline__ float value(float sum, float left, float right, float both, const Form& form) {
  const float v = sum * left * right + both;  // one after the other: the product of two powers may underflow
  if (form.metric == kDot) return v;
  return v >= kNear * both ? v : -1.f;
}
__device__ __forceinline__ bool marked(float v, const Form& form) { return form.metric == kDot ? v != v : v < 0; }
__device__ __forceinline__ float finish(float v, const Form& form) {
  return form.metric == kEuclidean && v > 0 ? __fsqrt_rn(v) : v;
}

// Appends the pair of each lane that asks for it; by all lanes of a warp.
__device__ __forceinline__ void append(const Near& near, int layer, bool ask, int i, int j) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const unsigned asking = __ballot_sync(kAllLanes, ask);
  if (asking == 0) return;
  int first = 0;
  if (lane == 0) first = atomicAdd(near.count + layer, __popc(asking));
  const int at = __shfl_sync(kAllLanes, first, 0) + __popc(asking & ((1u << lane) - 1));
  if (ask && at < near.capacity) near.pairs[static_cast<long long>(layer) * near.capacity + at] = make_int2(i, j);
}

// The values of block (tile, layer). square (layers): |m|^2, read for dot only.
template <int STAGES, int PARTS, int W>
__device__ __forceinline__ void gram_tile(__half* ring, Place* place, const Rows& x, const Rows& y,
                                          const float* __restrict__ beta_x, const float* __restrict__ beta_y,
                                          const double* __restrict__ square, float* __restrict__ out, const Shape& s,
                                          const Form& form, const Near& near) {
  const int layer = static_cast<int>(blockIdx.y);
  if (threadIdx.x == 0) {
    const int tiles = static_cast<int>(y.padded / kTile);
    const int across = (tiles + W / 2 - 1) / (W / 2);
    int bi = static_cast<int>(blockIdx.x) / across, bj = static_cast<int>(blockIdx.x) % across * (W / 2);
    if (s.symmetric) tile_of<W>(blockIdx.x, tiles, bi, bj);
    const long long width = x.chunks * kLine;
    place[0] =
        place_of<W>(x.halves + layer * x.padded * width, y.halves + layer * y.padded * width, width, bi, bj, tiles);
  }
  const float* tile = tile_products<STAGES, PARTS, W>(ring, place[0], x.chunks);

  const int t = thread_anew(), warp = t / 32, lane = t % 32, i0 = place[0].row, j0 = place[0].col;
  const int rows = at_most(s.n - i0, kTile), cols = at_most(s.m - j0, kColumns<W>);
  const int end = W == kNarrow ? kTile : cols;  // nothing is known of columns of a half that is missing
  const bool diagonal = s.symmetric && i0 == j0;
  const float gamma = form.metric == kDot ? static_cast<float>(square[layer]) : 0.f;
  const float *scale_i = x.scale + layer * x.padded + i0, *scale_j = y.scale + layer * y.padded + j0;
  const float *beta_i = beta_x + layer * x.padded + i0, *beta_j = beta_y + layer * y.padded + j0;
  float* to = out + layer * (s.condensed ? s.n * (s.n - 1) / 2 : s.n * s.m);
  for (int k = 0; k < end; k += 32) {  // 32 columns, row by row
    const int c = lane + k, j = j0 + c;
    const float right = scale_j[c], b = form.beta * beta_j[c] + gamma;
    for (int r = warp; r < rows; r += kThreadsOf<W> / 32) {
      const int i = i0 + r;
      const bool same = diagonal && i == j, mine = c < cols && !(diagonal && i > j) && !(same && s.condensed);
      float v = value(tile[pair_at<W>(r, c)], form.alpha * scale_i[r], right, form.beta * beta_i[r] + b, form);
      if (same && form.metric != kDot) v = 0;
      append(near, layer, mine && marked(v, form), i, j);
      if (mine) to[s.condensed ? pairwise::condensed_index(i, j, s.n) : i * s.m + j] = finish(v, form);
    }
  }
  if (!s.symmetric || s.condensed) return;
  for (int k = 0; k < kTile; k += 32) {  // the mirror image: 32 rows, column by column
    const int r = lane + k, i = i0 + r;
    const float left = form.alpha * scale_i[r], b = form.beta * beta_i[r];
    for (int c = warp; c < cols; c += kThreadsOf<W> / 32) {
      const int j = j0 + c;
      const float v = value(tile[pair_at<W>(r, c)], left, scale_j[c], b + (form.beta * beta_j[c] + gamma), form);
      if (r < rows && i < j) to[j * s.m + i] = finish(v, form);
    }
  }
}

template <int STAGES>
__global__ void __launch_bounds__(kThreads, 2)
    split_gram_kernel(Rows x, Rows y, const float* __restrict__ beta_x, const float* __restrict__ beta_y,
                      const double* __restrict__ square, float* __restrict__ out, Shape s, Form form, Near near) {
  BERTFT_DYN_SHARED(__half, ring);
  BERTFT_SHARED(Place, place, [1]);
  gram_tile<STAGES, kBoth, kNarrow>(ring, place, x, y, beta_x, beta_y, square, out, s, form, near);
}

template <int STAGES>
__global__ void __launch_bounds__(kThreads, 2)
    high_gram_kernel(Rows x, Rows y, const float* __restrict__ beta_x, const float* __restrict__ beta_y,
                     const double* __restrict__ square, float* __restrict__ out, Shape s, Form form, Near near) {
  BERTFT_DYN_SHARED(__half, ring);
  BERTFT_SHARED(Place, place, [1]);
  gram_tile<STAGES, kHigh, kNarrow>(ring, place, x, y, beta_x, beta_y, square, out, s, form, near);
}

template <int STAGES>
__global__ void __launch_bounds__(kThreadsOf<kWide>, 1)
    wide_gram_kernel(Rows x, Rows y, const float* __restrict__ beta_x, const float* __restrict__ beta_y,
                     const double* __restrict__ square, float* __restrict__ out, Shape s, Form form, Near near) {
  BERTFT_DYN_SHARED(__half, ring);
  BERTFT_SHARED(Place, place, [1]);
  gram_tile<STAGES, kBoth, kWide>(ring, place, x, y, beta_x, beta_y, square, out, s, form, near);
}

template <int STAGES>
__global__ void __launch_bounds__(kThreadsOf<kWide>, 1)
    wide_high_gram_kernel(Rows x, Rows y, const float* __restrict__ beta_x, const float* __restrict__ beta_y,
                          const double* __restrict__ square, float* __restrict__ out, Shape s, Form form, Near near) {
  BERTFT_DYN_SHARED(__half, ring);
  BERTFT_SHARED(Place, place, [1]);
  gram_tile<STAGES, kHigh, kWide>(ring, place, x, y, beta_x, beta_y, square, out, s, form, near);
}

// The pairs of the lists, a warp each, by differences of rows in their form, in double.
template <class T>
__global__ void __launch_bounds__(256)
    repair_kernel(const T* __restrict__ x, const T* __restrict__ y, float* __restrict__ out, Shape s, Near near) {
  const int layer = static_cast<int>(blockIdx.y), lane = static_cast<int>(threadIdx.x) % 32, count = near.count[layer];
  if (count > near.capacity) return;  // all of the layer is made anew elsewhere
  const int2* list = near.pairs + static_cast<long long>(layer) * near.capacity;
  float* to = out + layer * (s.condensed ? s.n * (s.n - 1) / 2 : s.n * s.m);
  for (int e = static_cast<int>(blockIdx.x * 8 + threadIdx.x / 32); e < count; e += static_cast<int>(gridDim.x) * 8) {
    const int i = list[e].x, j = list[e].y;
    const T *a = x + (layer * s.n + i) * s.d, *b = y + (layer * s.m + j) * s.d;
    double mean[2], norm[2], sum = 0;
#pragma unroll 1
    for (int side = 0; side < 2; ++side) {
      row_statistics(side ? b : a, 0, s.d, s.metric, nullptr, mean[side], norm[side]);
    }
    for (int k = lane; k < s.d; k += 32) {
      const double u = (static_cast<double>(to_compute(a[k])) - mean[0]) * norm[0];
      const double v = (static_cast<double>(to_compute(b[k])) - mean[1]) * norm[1];
      sum += s.metric == kDot ? u * v : (u - v) * (u - v);
    }
    sum = warp_sum(sum);
    if (lane != 0) continue;
    if (scales_rows(s.metric)) sum /= 2;
    const float v = static_cast<float>(s.metric == kEuclidean ? sqrt(sum) : sum);
    to[s.condensed ? pairwise::condensed_index(i, j, s.n) : i * s.m + j] = v;
    if (s.symmetric && !s.condensed) to[j * s.m + i] = v;
  }
}

// Launches the kernel of a width for rows of one part or two.
template <int STAGES, int W, class... A>
int launch_gram(int parts, dim3 grid, cudaStream_t stream, const A&... arguments) {
  constexpr size_t kBytes = kRing<STAGES, W>;
  const dim3 block(kThreadsOf<W>);
  if constexpr (W == kWide) {
    if (parts == kHigh) {
      if (int rc = allow_shared(wide_high_gram_kernel<STAGES>, kBytes)) return rc;
      BERTFT_LAUNCH((wide_high_gram_kernel<STAGES>), grid, block, kBytes, stream, arguments...);
    } else {
      if (int rc = allow_shared(wide_gram_kernel<STAGES>, kBytes)) return rc;
      BERTFT_LAUNCH((wide_gram_kernel<STAGES>), grid, block, kBytes, stream, arguments...);
    }
  } else {
    if (parts == kHigh) {
      if (int rc = allow_shared(high_gram_kernel<STAGES>, kBytes)) return rc;
      BERTFT_LAUNCH((high_gram_kernel<STAGES>), grid, block, kBytes, stream, arguments...);
    } else {
      if (int rc = allow_shared(split_gram_kernel<STAGES>, kBytes)) return rc;
      BERTFT_LAUNCH((split_gram_kernel<STAGES>), grid, block, kBytes, stream, arguments...);
    }
  }
  return static_cast<int>(cudaGetLastError());
}

}  // namespace
}  // namespace bertft

using namespace bertft;

// rows_x, rows_y: split_rows_launch of x (batch, n, d) and, unless it is null, of y (batch, m, d), in `parts` parts,
// less the mean of split_mean_launch of x, whose square (batch) is |mean|^2. count (batch) and pairs (batch, capacity,
// 2): the list of near pairs; a layer whose count exceeds capacity is not complete.
extern "C" int split_gram_launch(const void* x, const void* y, void* rows_x, void* rows_y, const double* square,
                                 float* out, int* count, int* pairs, int capacity, int dtype, int metric, int batch,
                                 long long n, long long m, int d, int condensed, int parts, cudaStream_t stream) {
  const Shape s{n, y ? m : n, d, batch, metric, y == nullptr, condensed != 0};
  if (metric < kDot || metric > kEuclidean || batch < 0 || batch > 65535 || n < 0 || s.m < 0 || d < 1 || n > 1 << 23 ||
      s.m > 1 << 23 || (condensed && y) || capacity < 1 || (parts != kHigh && parts != kBoth)) {
    return kInvalid;
  }
  if (int rc = static_cast<int>(cudaMemsetAsync(count, 0, sizeof(int) * batch, stream))) return rc;
  if (s.n == 0 || s.m == 0 || batch == 0 || (condensed && n == 1)) return 0;
  const Rows of_x = rows_at(rows_x, batch, n, d, nullptr, parts);
  const Rows of_y = y ? rows_at(rows_y, batch, m, d, nullptr, parts) : of_x;
  const long long rows = of_x.padded / kTile, cols = of_y.padded / kTile;
  const long long tiles = s.symmetric ? rows * (rows + 1) / 2 : rows * cols;
  if (tiles > 0x7fffffffll || kTile * 8ll * of_x.chunks > 0xffffffffll) return kInvalid;
  const bool dot = metric == kDot, unit = scales_rows(metric);
  const Form form{dot ? 1.f : unit ? -1.f : -2.f, unit ? 0.5f : 1.f, metric};
  const Near near{count, reinterpret_cast<int2*>(pairs), capacity};
  const float *beta_x = dot ? of_x.along : of_x.square, *beta_y = dot ? of_y.along : of_y.square;
  if (int rc = with_tile([&](auto stages, auto width) {
        constexpr int kStages = decltype(stages)::value, kW = decltype(width)::value;
        const long long grid = s.symmetric ? triangle_tiles<kW>(rows) : rows * ceil_div(cols, kW / 2);
        return launch_gram<kStages, kW>(parts, dim3(unsigned(grid), unsigned(batch)), stream, of_x, of_y, beta_x,
                                        beta_y, square, out, s, form, near);
      })) {
    return rc;
  }
  return with_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    if constexpr (sizeof(T) == 8) {
      return kInvalid;
    } else {
      const T *px = static_cast<const T*>(x), *py = y ? static_cast<const T*>(y) : px;
      BERTFT_LAUNCH((repair_kernel<T>), dim3(at_most(ceil_div(capacity, 8), 512), unsigned(batch)), dim3(256), 0,
                    stream, px, py, out, s, near);
      return static_cast<int>(cudaGetLastError());
    }
  });
}
