// rdm_correlation: correlations of the dissimilarity matrices of all layers of two models, a group of tiles at a time.
//
//   out[l, m] = compare over pairs i < j of ( d(x[l, i], x[l, j]), d(y[m, i], y[m, j]) )
//   x (L, N, D), y (M, N, E) or absent (y = x), out (L, M) double; six metrics; pearson, cosine, spearman, rho_a
// Types: float, double, half, bfloat16; entries float (double for double). Rows are first brought into the metric's
//   form less a provisional mean, in double, so that an entry is scale (u_i.u_j + p_i + p_j) + offset.
// Work split: (1) blocks make the entries of a tile of 128 x 128 pairs of one layer (rdm_entries.cuh): products of
//   split rows on tensor cores, of two parts or one (split_tile.cuh; wide: two tiles), or FFMA and DFMA, which
//   manhattan needs. All layers of a tile lie one after the other in a workspace; tiles on and above the diagonal go in
//   groups that it holds. (2) blocks of 256 threads take 512 entries of all layers at a time by cp.async, two such
//   slices in flight; warps take 4 x 4 layer pairs each: 16 products in float, further in double. One partial sum a
//   block, folded in a fixed order: same card, same bits. Layers that do not fit into shared memory are compared group
//   by group. Ranks: before (2) the range of each layer, a histogram in shared memory, and ranks in the entries' place
//   (rdm_ranks.cuh). Entries are made once if the workspace holds them all, else anew for each of the three.
// Shared memory: split rows 32 KB a stage (wide 48 KB); else 16.9 KB (double 17.4); slices 4 KB a layer (double 8);
//   histogram what there is.
// registers: <= 80, split_entries_kernel <= 255, high_entries_kernel <= 255, plain_entries_kernel <= 128
// registers: wide_entries_kernel <= 255, wide_high_entries_kernel <= 255
// spills: split_entries_kernel <= 24, high_entries_kernel <= 24
// spills: wide_entries_kernel <= 24, wide_high_entries_kernel <= 24
// instructions: split_entries_kernel 96 HMMA, 32 HMMA from zero, 16 LDSM, 32 LDGSTS
// instructions: high_entries_kernel 128 HMMA, 32 HMMA from zero, 32 LDSM, 32 LDGSTS
// instructions: wide_entries_kernel 96 HMMA, 32 HMMA from zero, 16 LDSM, 24 LDGSTS
// instructions: wide_high_entries_kernel 128 HMMA, 32 HMMA from zero, 32 LDSM, 24 LDGSTS
// tensor cores, cp.async, ldmatrix, 16-byte loads
// counters: split_entries_kernel no bank conflicts of ldmatrix, bank conflicts <= 8 %, load sectors <= 1.1
// counters: split_entries_kernel no bank conflicts of cp.async
// counters: plain_entries_kernel no bank conflicts, load sectors 1.0
// counters: slice_moments_kernel no bank conflicts, load sectors 1.0
// counters: range_kernel no bank conflicts, load sectors 1.0
// counters: count_kernel load sectors 1.0
// counters: rank_kernel store sectors 1.0
// float32: split_entries_kernel tensor * 128 / 96
// float32: plain_entries_kernel warps * 64 * d * terms
// float32: slice_moments_kernel slices * jobs * 256
// issued: split_entries_kernel tensor * 609 / 192 + warps * 3200
// issued: plain_entries_kernel warps * d / 8 * (541 * terms + 132)
// issued: slice_moments_kernel slices * (1253 * jobs + 200 * layers)
// Expected limit: split rows: tensor cores, 3 (L + M) N^2 D / 2 multiply-adds of float16; plain: FFMA, a third of them;
//   then memory, 2 (L + M) N^2 bytes written and read again. Target on an H200 for BERT-base, L = M = 13, N = 5000:
//   4.8 ms, if tensor cores give 400 TFLOP/s of float16. Not measured.
// Presumption: N in the thousands; below N of about L D this beats the linear-time route for all layers against all.
#include <algorithm>
#include <limits>

#include "rdm_moments.cuh"
#include "rdm_prepare.cuh"
#include "rdm_ranks.cuh"

namespace bertft {
namespace {

using namespace rdm;

// Workspace and steps of a comparison, once rows are prepared.
template <class C, class S>
struct Run {
  const Problem& q;
  S sides[2];
  Group most;       // of layers that slices of shared memory hold at once
  long long tiles;  // of a group, as many as entries_bytes hold, one at least
  int blocks;       // that take slices
  C *entries, *ranges, *range_partial, *table;
  Bin* histogram;
  double *partial, *sums;

  // Calls f(layers, place of their partial sums) for each group of layers; the number of all their sums.
  template <class F>
  long long each_group(F&& f) const {
    const int width = q.self() ? q.layers[0] : q.layers[1];
    const bool split = most.nx < q.layers[0] || most.others() < width;
    long long place = 0;
    for (int x0 = 0; x0 < q.layers[0]; x0 += most.nx) {
      for (int y0 = q.self() ? x0 : 0; y0 < width; y0 += split ? most.others() : width) {
        Group g{x0, std::min(most.nx, q.layers[0] - x0), y0, std::min(split ? most.others() : width, width - y0)};
        if (q.self() && x0 == y0) g.ny = 0;
        f(g, place);
        place += g.sums();
      }
    }
    return place;
  }

  void carve(Carver& carver) {
    const size_t limit = static_cast<size_t>(device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin));
    const int width = q.self() ? q.layers[0] : q.layers[1];
    most = {0, q.layers[0], 0, q.self() ? 0 : q.layers[1]};
    for (int size = std::max(most.nx, most.ny); slice_bytes<C>(most) > limit && size > 1;) {
      --size;
      most = {0, std::min(q.layers[0], size), 0, std::min(width, size)};
    }
    const long long bytes = static_cast<long long>(sizeof(C)) * std::max(1, q.all()) * kPairs;
    tiles = std::max(1ll, std::min(q.tiles(), q.entries_bytes / bytes));
    blocks = at_most(tiles * (kPairs / kSlice), 2 * device_attribute(cudaDevAttrMultiProcessorCount));
    entries = carver.take<C>(tiles * q.all() * kPairs);
    const long long all = each_group([](const Group&, long long) {});
    partial = carver.take<double>(blocks * all);
    sums = carver.take<double>(all);
    const long long ranked = q.ranked() ? q.all() : 0;
    ranges = carver.take<C>(ranked * 2);
    range_partial = carver.take<C>(ranked * 2 * blocks);
    histogram = carver.take<Bin>(ranked * q.bins);
    table = carver.take<C>(ranked * q.bins * 3);
  }

  // Calls f(number of tiles, whether they are the first) for each group of tiles, whose entries are then there.
  template <class F>
  int each_tiles(F&& f, bool& made) const {
    for (long long first = 0; first < q.tiles(); first += tiles) {
      const long long count = std::min(tiles, q.tiles() - first);
      for (int s = 0; s < (q.self() ? 1 : 2) && !made; ++s) {
        const C nothing = q.ranked() ? std::numeric_limits<C>::quiet_NaN() : C(0);
        const Target<C> to{entries, first, count, q.n, q.all(), s ? q.layers[0] : 0, !q.ranked(), nothing};
        if (q.layers[s] == 0) continue;
        if (int rc = make_entries(sides[s], to, count, q.stream)) return rc;
      }
      f(count, first == 0);
      if (int rc = static_cast<int>(cudaGetLastError())) return rc;
    }
    made = tiles == q.tiles();
    return 0;
  }

  // Ranges, histograms and tables of ranks; entries stay as they are.
  int count_ranks(bool& made) const {
    const int layers = q.all(), part = bins_of_part(q.bins), shares = at_most(tiles, blocks);
    const size_t bytes = sizeof(unsigned) * 2 * part;
    if (part == 0) return kInvalid;
    if (int rc = allow_shared(count_kernel<C>, bytes)) return rc;
    if (int rc = each_tiles(
            [&](long long count, bool anew) {
              BERTFT_LAUNCH((range_kernel<C>), dim3(shares, layers), dim3(NT), 0, q.stream, entries, count, anew,
                            range_partial);
            },
            made)) {
      return rc;
    }
    BERTFT_LAUNCH((fold_ranges_kernel<C>), dim3(layers), dim3(32), 0, q.stream, range_partial, shares, q.bins, ranges);
    const size_t all = sizeof(Bin) * layers * q.bins;
    if (int rc = static_cast<int>(cudaMemsetAsync(histogram, 0, all, q.stream))) return rc;
    if (int rc = each_tiles(
            [&](long long count, bool) {
              const dim3 grid(unsigned(ceil_div(count, kTilesOfBlock)), layers, unsigned(ceil_div(q.bins, part)));
              BERTFT_LAUNCH((count_kernel<C>), grid, dim3(kCountThreads), bytes, q.stream, entries, count, ranges,
                            q.bins, part, histogram);
            },
            made)) {
      return rc;
    }
    const double pairs = 0.5 * static_cast<double>(q.n) * static_cast<double>(q.n - 1);
    BERTFT_LAUNCH((rank_table_kernel<C>), dim3(layers), dim3(NT), 0, q.stream, histogram, q.bins, pairs, table);
    return static_cast<int>(cudaGetLastError());
  }

  int add_up() const {
    bool made = false;
    if (q.ranked() && q.n > 0) {
      if (int rc = count_ranks(made)) return rc;
    }
    return each_tiles(
        [&](long long count, bool anew) {
          if (q.ranked()) {
            BERTFT_LAUNCH((rank_kernel<C>), dim3(unsigned(count), q.all()), dim3(NT), 0, q.stream, entries, ranges,
                          table, q.bins);
          }
          each_group([&](const Group& g, long long place) {
            BERTFT_LAUNCH((slice_moments_kernel<C>), dim3(blocks), dim3(NT), slice_bytes<C>(g), q.stream, entries,
                          count, q.all(), q.self() ? 0 : q.layers[0], g, anew, partial + place * blocks);
          });
        },
        made);
  }

  int correlate() const {
    const size_t bytes = slice_bytes<C>(most);
    if (bytes > static_cast<size_t>(device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin))) return kInvalid;
    if (int rc = allow_shared(slice_moments_kernel<C>, bytes)) return rc;
    if (int rc = add_up()) return rc;
    const double pairs = 0.5 * static_cast<double>(q.n) * static_cast<double>(q.n - 1);
    const S &x = sides[0], &y = sides[q.self() ? 0 : 1];
    each_group([&](const Group& g, long long place) {
      BERTFT_LAUNCH(fold_sums_kernel, dim3(g.sums()), dim3(NT), 0, q.stream, partial + place * blocks,
                    q.tiles() ? blocks : 0, sums + place);
      BERTFT_LAUNCH((compare_kernel<C>), dim3(unsigned(ceil_div(g.nx * g.others(), NT))), dim3(NT), 0, q.stream,
                    sums + place, g, q.compare, pairs, Entries<C>{x.metric, x.shift, x.square},
                    Entries<C>{y.metric, y.shift, y.square}, q.out, y.layers, q.self());
    });
    return static_cast<int>(cudaGetLastError());
  }
};

// Prepares the rows of both sides and compares all their layers; with a null workspace only measures it.
template <class T, class C, class S>
int correlate(const Problem& q, char* workspace, size_t* bytes) {
  Carver carver{workspace};
  Run<C, S> run{q};
  for (int s = 0; s < (q.self() ? 1 : 2); ++s) {
    S& side = run.sides[s];
    double* mean = carver.take<double>(static_cast<long long>(q.layers[s]) * q.d[s]);
    side.square = carver.take<double>(q.layers[s]);
    side.shift = carver.take<C>(q.layers[s]);
    if (workspace && q.layers[s] > 0) {
      BERTFT_LAUNCH((sample_mean_kernel<T>), dim3(q.layers[s]), dim3(NT), 0, q.stream,
                    static_cast<const T*>(s ? q.y : q.x), q.n, q.d[s], q.metric[s], mean, side.square);
    }
    if (int rc = prepare<T, C>(q, s, carver, mean, side)) return rc;
    if (workspace && q.layers[s] > 0) {
      BERTFT_LAUNCH((shift_kernel<S>), dim3(q.layers[s]), dim3(NT), 0, q.stream, side, q.n);
      if (int rc = static_cast<int>(cudaGetLastError())) return rc;
    }
  }
  run.carve(carver);
  *bytes = carver.used;
  if (!workspace || q.layers[0] == 0 || q.layers[q.self() ? 0 : 1] == 0) return 0;
  return run.correlate();
}

int dispatch(int dtype, int path, const Problem& q, char* workspace, size_t* bytes) {
  if (dtype == kFloat64) return correlate<double, double, PlainSide<double>>(q, workspace, bytes);
  return with_dtype(dtype, [&](auto zero) {
    using T = std::conditional_t<sizeof(zero) == 8, float, decltype(zero)>;
    if (path != kPlain) return correlate<T, float, SplitSide>(q, workspace, bytes);
    return correlate<T, float, PlainSide<float>>(q, workspace, bytes);
  });
}

}  // namespace
}  // namespace bertft

using namespace bertft;

// x (L, N, D) and y (M, N, E) of type dtype, y null: x with itself; out (L, M); bad (2, 2): see row_statistics_launch,
// of x and of y. path (rdm_entries.cuh): kPlain, or kSplit or kFast, which are not for double and manhattan.
// entries_bytes: what the entries of a group of tiles may take. With a null workspace only *workspace_bytes is written;
// else it says how large the workspace is.
extern "C" int rdm_correlation_launch(const void* x, const void* y, double* out, long long* bad, void* workspace,
                                      long long* workspace_bytes, long long entries_bytes, int dtype, int path,
                                      int metric_x, int metric_y, int compare, int layers_x, int layers_y, long long n,
                                      int d, int e, int bins, cudaStream_t stream) {
  const bool known = metric_x >= kDot && metric_x <= kManhattan && metric_y >= kDot && metric_y <= kManhattan;
  if (!known || compare < kPearson || compare > kRhoA || path < kPlain || path > kFast || layers_x < 0 ||
      layers_y < 0 || layers_x + layers_y > 65535 || n < 0 || n > 1 << 21 || d < 0 || e < 0 || bins < 1) {
    return kInvalid;
  }
  if (path != kPlain && (dtype == kFloat64 || metric_x == kManhattan || metric_y == kManhattan || d < 1 || e < 1)) {
    return kInvalid;
  }
  const int parts = path == kFast ? split::kHigh : split::kBoth;
  const Problem q{
      x,      y,    out,   bad, entries_bytes, {metric_x, y ? metric_y : metric_x}, compare, {layers_x, layers_y},
      {d, e}, bins, parts, n,   stream};
  size_t bytes = 0;
  if (workspace) {
    if (int rc = dispatch(dtype, path, q, nullptr, &bytes)) return rc;
    if (static_cast<size_t>(*workspace_bytes) < bytes) return kInvalid;
    if (int rc = static_cast<int>(cudaMemsetAsync(bad, 0x7f, 2 * sizeof(BadRows), stream))) return rc;
  }
  const int rc = dispatch(dtype, path, q, static_cast<char*>(workspace), &bytes);
  if (!workspace) *workspace_bytes = static_cast<long long>(bytes);
  return rc;
}
