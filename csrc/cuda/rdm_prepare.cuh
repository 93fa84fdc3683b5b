// Arguments of rdm_correlation, and the launches that prepare its rows and make its entries.
#pragma once
#include "rdm_entries.cuh"
#include "rdm_finish.cuh"
#include "split_rows.cuh"

namespace bertft {
namespace rdm {

struct Problem {
  const void *x, *y;
  double* out;
  long long* bad;
  long long entries_bytes;
  int metric[2], compare, layers[2], d[2], bins, parts;  // parts: of split rows
  long long n;
  cudaStream_t stream;
  bool self() const { return y == nullptr; }
  bool ranked() const { return compare == kSpearman || compare == kRhoA; }
  int all() const { return layers[0] + (self() ? 0 : layers[1]); }
  long long tiles() const {
    const long long rows = ceil_div(n, kTile);
    return rows * (rows + 1) / 2;
  }
};

// Rows of side s of q in the metric's form; with a null workspace only their place counts.
template <class T, class C>
int prepare(const Problem& q, int s, Carver& carver, double* mean, PlainSide<C>& side) {
  side.padded = ceil_div(q.n, kTile) * kTile;
  side.d = q.d[s], side.layers = q.layers[s], side.metric = q.metric[s];
  side.rows = carver.take<C>(side.layers * side.padded * side.d);
  side.p = carver.take<C>(side.layers * side.padded);
  if (!carver.base || side.layers == 0 || q.n == 0) return 0;
  BERTFT_LAUNCH((prepare_rows_kernel<T, C, C>), dim3(at_most(side.padded / 8, 4096), side.layers), dim3(NT), 0,
                q.stream, static_cast<const T*>(s ? q.y : q.x), q.n, side.d, side.metric, mean, side.rows, side.padded,
                side.d, static_cast<double*>(nullptr), side.p, reinterpret_cast<BadRows*>(q.bad) + s);
  return static_cast<int>(cudaGetLastError());
}
template <class T, class C>
int prepare(const Problem& q, int s, Carver& carver, double* mean, SplitSide& side) {
  side.layers = q.layers[s], side.metric = q.metric[s];
  size_t bytes = 0;
  split::rows_at(nullptr, side.layers, q.n, q.d[s], &bytes, q.parts);
  char* base = carver.take<char>(static_cast<long long>(bytes));
  side.rows = split::rows_at(base, side.layers, q.n, q.d[s], nullptr, q.parts);
  if (!carver.base || side.layers == 0 || q.n == 0) return 0;
  BERTFT_LAUNCH((split::split_rows_kernel<T>), dim3(at_most(side.rows.padded / 8, 4096), side.layers), dim3(NT), 0,
                q.stream, static_cast<const T*>(s ? q.y : q.x), q.n, q.d[s], side.metric, mean, side.rows,
                static_cast<float*>(nullptr), reinterpret_cast<BadRows*>(q.bad) + s);
  return static_cast<int>(cudaGetLastError());
}

// The entries of `count` tiles for the layers of a side.
template <class C>
int make_entries(const PlainSide<C>& side, const Target<C>& to, long long count, cudaStream_t stream) {
  constexpr int kParts = sizeof(C) == 8 ? 4 : 1;
  const auto grid = dim3(unsigned(count * kParts), unsigned(side.layers));
  if (side.metric == kManhattan) {
    BERTFT_LAUNCH((plain_entries_kernel<C, pairwise::kAbsolute>), grid, dim3(NT), 0, stream, side, to);
  } else {
    BERTFT_LAUNCH((plain_entries_kernel<C, pairwise::kProduct>), grid, dim3(NT), 0, stream, side, to);
  }
  return static_cast<int>(cudaGetLastError());
}
inline int make_entries(const SplitSide& side, const Target<float>& to, long long count, cudaStream_t stream) {
  return split::with_tile([&](auto stages, auto width) {
    constexpr int kStages = decltype(stages)::value, kW = decltype(width)::value;
    constexpr size_t kBytes = split::kRing<kStages, kW>;
    const bool high = side.rows.parts == split::kHigh;
    const dim3 block(split::kThreadsOf<kW>);
    if constexpr (kW == split::kWide) {
      const int blocks = static_cast<int>(side.rows.padded / kTile);
      const long long tiles = pair_of_tile(to.first_tile + count - 1, blocks) - pair_of_tile(to.first_tile, blocks) + 1;
      const auto grid = dim3(unsigned(tiles), unsigned(side.layers));
      if (high) {
        if (int rc = allow_shared(wide_high_entries_kernel<kStages>, kBytes)) return rc;
        BERTFT_LAUNCH((wide_high_entries_kernel<kStages>), grid, block, kBytes, stream, side, to);
      } else {
        if (int rc = allow_shared(wide_entries_kernel<kStages>, kBytes)) return rc;
        BERTFT_LAUNCH((wide_entries_kernel<kStages>), grid, block, kBytes, stream, side, to);
      }
    } else {
      const auto grid = dim3(unsigned(count), unsigned(side.layers));
      if (high) {
        if (int rc = allow_shared(high_entries_kernel<kStages>, kBytes)) return rc;
        BERTFT_LAUNCH((high_entries_kernel<kStages>), grid, block, kBytes, stream, side, to);
      } else {
        if (int rc = allow_shared(split_entries_kernel<kStages>, kBytes)) return rc;
        BERTFT_LAUNCH((split_entries_kernel<kStages>), grid, block, kBytes, stream, side, to);
      }
    }
    return static_cast<int>(cudaGetLastError());
  });
}

}  // namespace rdm
}  // namespace bertft
