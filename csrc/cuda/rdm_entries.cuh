// Entries of the dissimilarity matrices of rdm_correlation, tile by tile, all layers in the same order.
//
// entries (tiles of a group, layers, 128, 128): for pairs i < j < n the result of entry(), less the layer's shift if
// that is requested; elsewhere `nothing`. Made from products of split rows, or from rows as they are.
#pragma once
#include "pairwise_tile.cuh"
#include "split_tile.cuh"

namespace bertft {
namespace rdm {

using split::kTile;

constexpr int NT = 256;
constexpr int kPairs = kTile * kTile;  // entries of a tile and layer

// How entries come about: FFMA or DFMA, the only way for manhattan and double | split rows on tensor cores | the same,
// of their high parts alone.
enum Path : int { kPlain = 0, kSplit = 1, kFast = 2 };

// The layers of one side. Rows as they are: (layers, padded, d) in the metric's form less m, zeros beyond n.
template <class C>
struct PlainSide {
  C *rows, *p, *shift;  // p (layers, padded); shift (layers): a value typical of the layer
  double* square;       // (layers) |m|^2
  long long padded;
  int d, layers, metric;
};
struct SplitSide {
  split::Rows rows;
  float* shift;
  double* square;
  int layers, metric;
  __device__ __forceinline__ float p(long long row) const {
    return metric == kSqEuclidean || metric == kEuclidean ? -rows.square[row] / 2 : rows.along[row];
  }
};

// Where entries go: `all` layers a tile, those of this side from `layer` on; the group's first tile of the triangle and
// number of tiles.
template <class C>
struct Target {
  C* entries;
  long long first_tile, count, n;
  int all, layer;
  bool shifted;
  C nothing;
  __device__ __forceinline__ C* tile(long long t, int of_side) const {
    return entries + (t * all + layer + of_side) * kPairs;
  }
};

// Entry of the matrix that statistics are taken of, from sum and p: u.v + p_i + p_j, the root for euclidean. The
// metric's own value is scale * entry + offset, with scale and offset from rdm_finish.cuh.
template <class C>
__device__ __forceinline__ C entry(C sum, C pi, C pj, int metric) {
  if (metric == kManhattan) return sum;
  const C k = sum + pi + pj;
  return metric == kEuclidean ? root(k < 0 ? -2 * k : C(0)) : k;
}

// Entry of rows i and i + 1 of a layer, by all lanes of a warp.
template <class C>
__device__ __forceinline__ C neighbours(const PlainSide<C>& side, int layer, long long i) {
  const long long at = layer * side.padded + i;
  const C *a = side.rows + at * side.d, *b = a + side.d;
  C sum = 0;
  for (int k = static_cast<int>(threadIdx.x) % 32; k < side.d; k += 32) {
    sum += side.metric == kManhattan ? absolute(a[k] - b[k]) : a[k] * b[k];
  }
  return entry(warp_sum(sum), side.p[at], side.p[at + 1], side.metric);
}
__device__ __forceinline__ float neighbours(const SplitSide& side, int layer, long long i) {
  const long long at = layer * side.rows.padded + i;
  const int lane = static_cast<int>(threadIdx.x) % 32, width = side.rows.chunks * split::kLine;
  const __half *a = side.rows.halves + at * width + lane, *b = a + width;
  const bool high = side.rows.parts == split::kHigh;
  const auto value = [&](const __half* v) {
    return __half2float(v[0]) + (high ? 0.f : __half2float(v[split::kChunk]));
  };
  float sum = 0;
  for (int k = 0; k < width; k += high ? split::kChunk : split::kLine) sum += value(a + k) * value(b + k);
  sum = warp_sum(sum) * side.rows.scale[at] * side.rows.scale[at + 1];
  return entry(sum, side.p(at), side.p(at + 1), side.metric);
}

// side.shift[l]: mean entry of 128 pairs of neighbours, one block a layer. Products are taken of entries less it.
template <class S>
__global__ void __launch_bounds__(NT) shift_kernel(S side, long long n) {
  BERTFT_SHARED(double, scratch, [NT / 32]);
  const int sample = static_cast<int>(min(n - 1, 128ll)), lane = static_cast<int>(threadIdx.x) % 32;
  double total = 0;
  for (int s = static_cast<int>(threadIdx.x) / 32; s < sample; s += NT / 32) {
    const auto v = neighbours(side, static_cast<int>(blockIdx.x), s * (n - 1) / sample);
    if (lane == 0) total += static_cast<double>(v);
  }
  total = block_sum<NT>(total, scratch);
  if (threadIdx.x == 0) side.shift[blockIdx.x] = sample > 0 ? total / sample : 0.0;
}

// Block (tile of the group, or a quarter of it for double, layer of the side).
template <class C, int KIND>
__global__ void __launch_bounds__(NT, 2) plain_entries_kernel(PlainSide<C> side, Target<C> to) {
  constexpr int R = sizeof(C) == 8 ? 4 : 8;
  using P = pairwise::Panel<C, R>;
  constexpr int kParts = kTile / P::kRows;  // a side of the tile
  BERTFT_SHARED(__align__(16) C, stage, [2][2][pairwise::KC * P::kStride]);
  const int t = static_cast<int>(threadIdx.x), part = static_cast<int>(blockIdx.x) % (kParts * kParts);
  const long long tile = blockIdx.x / (kParts * kParts), rows = blockIdx.y * side.padded;
  int bi, bj;
  triangle_tile(to.first_tile + tile, static_cast<int>(side.padded / kTile), bi, bj);
  const int i0 = bi * kTile + part / kParts * P::kRows, j0 = bj * kTile + part % kParts * P::kRows;
  C acc[R][R];
  pairwise::tile_sums<KIND>(acc, stage, side.rows + (rows + i0) * side.d, side.rows + (rows + j0) * side.d,
                            static_cast<const C*>(nullptr), static_cast<const C*>(nullptr), P::kRows, P::kRows, side.d);
  const C shift = to.shifted ? side.shift[blockIdx.y] : C(0);
  C* out = to.tile(tile, static_cast<int>(blockIdx.y)) + part / kParts * P::kRows * kTile + part % kParts * P::kRows;
#pragma unroll
  for (int r = 0; r < R; ++r) {
    const int row = pairwise::owned(t / 16, r), i = i0 + row;
    const C pi = side.p[rows + i];
#pragma unroll
    for (int q = 0; q < R; q += 4) {
      const int col = pairwise::owned(t % 16, q);
      C v[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int j = j0 + col + e;
        v[e] = i < j && j < to.n ? entry(acc[r][q + e], pi, side.p[rows + j], side.metric) - shift : to.nothing;
      }
      store4(out + row * kTile + col, v);
    }
  }
}

// The entries of block (tile of the group, layer of the side). A wide tile is two of them, and at the ends of a group
// one may belong to another group.
template <int STAGES, int PARTS, int W>
__device__ __forceinline__ void product_entries(__half* ring, split::Place* place, const SplitSide& side,
                                                const Target<float>& to) {
  const int layer = static_cast<int>(blockIdx.y);
  if (threadIdx.x == 0) {
    const int blocks = static_cast<int>(side.rows.padded / kTile);
    const long long width = side.rows.chunks * split::kLine;
    const __half* lines = side.rows.halves + layer * side.rows.padded * width;
    int bi, bj;
    split::tile_of<W>((W == split::kWide ? pair_of_tile(to.first_tile, blocks) : to.first_tile) + blockIdx.x, blocks,
                      bi, bj);
    place[0] = split::place_of<W>(lines, lines, width, bi, bj, blocks);
  }
  const float* sums = split::tile_products<STAGES, PARTS, W>(ring, place[0], side.rows.chunks);
  const int t = split::thread_anew(), i0 = place[0].row;
  const long long rows = layer * side.rows.padded;
  const float shift = to.shifted ? side.shift[layer] : 0.f;
#pragma unroll 1
  for (int half = 0; half < W / 2; ++half) {
    const int col = half * kTile + t % 32 * 4, j0 = place[0].col + col;
    long long tile = blockIdx.x;
    if constexpr (W == split::kWide) {
      const int blocks = static_cast<int>(side.rows.padded / kTile), bi = i0 / kTile, bj = place[0].col / kTile + half;
      tile = bi * (2ll * blocks - bi + 1) / 2 + bj - bi - to.first_tile;
      if (bj == blocks || tile < 0 || tile >= to.count) continue;
    }
    float scale[4], p[4];
#pragma unroll
    for (int e = 0; e < 4; ++e) scale[e] = side.rows.scale[rows + j0 + e], p[e] = side.p(rows + j0 + e);
    float* out = to.tile(tile, layer) + t % 32 * 4;
    for (int row = t / 32; row < kTile; row += split::kThreadsOf<W> / 32) {
      const int i = i0 + row;
      const float left = side.rows.scale[rows + i], pi = side.p(rows + i);
      float v[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float sum = sums[split::pair_at<W>(row, col + e)] * left * scale[e];
        v[e] = i < j0 + e && j0 + e < to.n ? entry(sum, pi, p[e], side.metric) - shift : to.nothing;
      }
      store4(out + row * kTile, v);
    }
  }
}

template <int STAGES>
__global__ void __launch_bounds__(split::kThreads, 2) split_entries_kernel(SplitSide side, Target<float> to) {
  BERTFT_DYN_SHARED(__half, ring);
  BERTFT_SHARED(split::Place, place, [1]);
  product_entries<STAGES, split::kBoth, split::kNarrow>(ring, place, side, to);
}

template <int STAGES>
__global__ void __launch_bounds__(split::kThreads, 2) high_entries_kernel(SplitSide side, Target<float> to) {
  BERTFT_DYN_SHARED(__half, ring);
  BERTFT_SHARED(split::Place, place, [1]);
  product_entries<STAGES, split::kHigh, split::kNarrow>(ring, place, side, to);
}

template <int STAGES>
__global__ void __launch_bounds__(split::kThreadsOf<split::kWide>, 1)
    wide_entries_kernel(SplitSide side, Target<float> to) {
  BERTFT_DYN_SHARED(__half, ring);
  BERTFT_SHARED(split::Place, place, [1]);
  product_entries<STAGES, split::kBoth, split::kWide>(ring, place, side, to);
}

template <int STAGES>
__global__ void __launch_bounds__(split::kThreadsOf<split::kWide>, 1)
    wide_high_entries_kernel(SplitSide side, Target<float> to) {
  BERTFT_DYN_SHARED(__half, ring);
  BERTFT_SHARED(split::Place, place, [1]);
  product_entries<STAGES, split::kHigh, split::kWide>(ring, place, side, to);
}

}  // namespace rdm
}  // namespace bertft
