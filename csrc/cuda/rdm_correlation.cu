// rdm_correlation: correlations of the dissimilarity matrices of all layers of two models, no matrix ever stored.
//
//   out[l, m] = compare over pairs i < j of ( d(x[l, i], x[l, j]), d(y[m, i], y[m, j]) )
//   x (L, N, D), y (M, N, E) or absent (y = x), out (L, M) double; six metrics; pearson, cosine, spearman, rho_a
// Types: float, double, half, bfloat16. Rows are first brought into the metric's form less a provisional mean, in float
//   (double; bfloat16 for path kBf16), so that an entry is scale (u_i.u_j + p_i + p_j) + offset (rows.cuh).
// Work split: blocks of 256 threads walk tiles of 64 x TJ pairs on and above the diagonal. For a tile a block makes the
//   values of *all* layers, one layer after the other, in a ring of three stages filled by cp.async (16-byte loads),
//   16 columns a stage (bf16: 32), and keeps them in shared memory. Then warps take 4 x 4 layer pairs each and add up
//   products over the tile: 16 in float, further in double. One partial sum a block, folded in a fixed order: same
//   card, same bits.
//   Products: FFMA, or tensor cores (mma.m16n8k8 tf32, three terms to a product: float accuracy; mma.m16n8k16 bf16).
//   Spearman: two passes before (range, histogram), then ranks take the values' place (rdm_ranks.cuh).
// Shared memory: 256 TJ bytes a layer (double twice), 12.8 to 30.7 KB of stages; TJ = 64, 32 or 16 is the largest that
//   fits; layers that do not fit at TJ = 16 are compared group by group.
// registers: <= 64, rdm_tiles_kernel <= 224 (double; float at TJ = 64 below 192; else 128, two blocks a processor)
// Expected limit: (L + M) N^2 D / 2 multiply-adds; a tile reads (64 + TJ) D floats a layer from L2. BERT-base, L = M =
//   13, N = 5000, on paper on an H100: 2.5e11, 7.5 ms of FFMA (67 TFLOP/s) or 3 ms of three-term tf32 (495 TFLOP/s);
//   47 GB of L2 traffic at TJ = 32, 8.5 ms at 5.5 TB/s: the traffic is the limit there.
// Measured on an H200 (docs/gpu.md): 60 ms, float or tf32, 27 ms bf16: 26 layers leave TJ = 16, and the time goes into
//   waiting for stages of 16 columns. Products of blocks of rows (ops/rdm_products.py) serve what ranks do not need.
// Presumption: N in the thousands; below N of about L D tiles beat the linear-time route for all layers against all.
#include <algorithm>

#include "rdm_moments.cuh"

namespace bertft {
namespace {

using namespace rdm;

template <class E, class C, int TJ> size_t shared_bytes(const Group& g) {
  return sizeof(E) * kStages * Stage<E, TJ>::kSize + sizeof(C) * g.all() * kRows * TJ +
         std::max(sizeof(double) * g.sums(), sizeof(C) * 2 * g.all());
}

// Columns of the widest tile at which the group's values fit into shared memory, 0 if none.
template <class E, class C> int tile_columns(const Group& g) {
  const size_t limit = static_cast<size_t>(device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin));
  if (shared_bytes<E, C, 64>(g) <= limit) return 64;
  if (shared_bytes<E, C, 32>(g) <= limit) return 32;
  return shared_bytes<E, C, 16>(g) <= limit ? 16 : 0;
}

template <class E, class C, int PATH> struct Run {
  Side<E, C> x, y;
  long long n;
  int blocks;
  Work<C> work;
  cudaStream_t stream;

  template <int TJ> int tiles(const Group& g, Pass pass) const {
    const size_t bytes = shared_bytes<E, C, TJ>(g);
    if (int rc = allow_shared(rdm_tiles_kernel<E, C, TJ, PATH>, bytes)) return rc;
    BERTFT_LAUNCH((rdm_tiles_kernel<E, C, TJ, PATH>), dim3(blocks), dim3(NT), bytes, stream, x, y, g, n, pass, work);
    return static_cast<int>(cudaGetLastError());
  }
  int tiles(const Group& g, Pass pass) const {
    switch (tile_columns<E, C>(g)) {
      case 64:
        return tiles<64>(g, pass);
      case 32:
        return tiles<32>(g, pass);
      case 16:
        return tiles<16>(g, pass);
      default:
        return kInvalid;
    }
  }
  // The sums of a group's layers, ranked first where that is asked for, and from them the correlations.
  int group(const Group& g, int compare, double* sums, const double* square_x, const double* square_y, double* out,
            int width, bool mirrored) const {
    const bool ranked = compare == kSpearman || compare == kRhoA;
    const double pairs = 0.5 * static_cast<double>(n) * static_cast<double>(n - 1);
    if (ranked) {
      if (int rc = tiles(g, kRange)) return rc;
      BERTFT_LAUNCH((fold_ranges_kernel<C>), dim3(g.all()), dim3(32), 0, stream, work.range_partial, blocks, work.bins,
                    work.ranges);
      const size_t bytes = sizeof(Bin) * g.all() * work.bins;
      if (int rc = static_cast<int>(cudaMemsetAsync(work.histogram, 0, bytes, stream))) return rc;
      if (int rc = tiles(g, kHistogram)) return rc;
      BERTFT_LAUNCH((rank_table_kernel<C>), dim3(g.all()), dim3(NT), 0, stream, work.histogram, work.bins, pairs,
                    work.table);
    }
    if (int rc = tiles(g, ranked ? kRankMoments : kMoments)) return rc;
    BERTFT_LAUNCH(fold_sums_kernel, dim3(g.sums()), dim3(NT), 0, stream, work.partial, blocks, sums);
    BERTFT_LAUNCH((compare_kernel<C>), dim3(ceil_div(g.nx * g.others(), NT)), dim3(NT), 0, stream, sums, g, compare,
                  pairs, Entries<C>{x.metric, x.shift, square_x}, Entries<C>{y.metric, y.shift, square_y}, out, width,
                  mirrored);
    return static_cast<int>(cudaGetLastError());
  }
};

struct Problem {
  const void *x, *y;
  double* out;
  long long* bad;
  int metric[2], compare, layers[2], d[2], bins;
  long long n;
  cudaStream_t stream;
};

// Prepares the rows of both sides and compares all their layers; with a null workspace only measures it.
template <class T, class E, int PATH> int correlate(const Problem& q, char* workspace, size_t* bytes) {
  using C = Compute<E>;
  Carver carver{workspace};
  const bool self = q.y == nullptr;
  const long long blocks = std::max(1ll, ceil_div(q.n, kRows)), padded = blocks * kRows;
  Run<E, C, PATH> run;
  run.n = q.n;
  run.stream = q.stream;
  run.blocks = at_most(blocks * (blocks + 1) * 2, 2 * device_attribute(cudaDevAttrMultiProcessorCount));
  const double* squares[2];
  Side<E, C> sides[2];
  for (int s = 0; s < (self ? 1 : 2); ++s) {
    constexpr int kChunk = Stage<E, 16>::kChunk;
    const int layers = q.layers[s], ld = static_cast<int>(std::max(1ll, ceil_div(q.d[s], kChunk))) * kChunk;
    E* rows = carver.take<E>(layers * padded * ld);
    C *p = carver.take<C>(layers * padded), *shift = carver.take<C>(layers);
    double *mean = carver.take<double>(static_cast<long long>(layers) * q.d[s]), *square = carver.take<double>(layers);
    sides[s] = {rows, p, shift, padded, ld, layers, q.metric[s]};
    squares[s] = square;
    if (!workspace || layers == 0) continue;
    const T* from = static_cast<const T*>(s ? q.y : q.x);
    BERTFT_LAUNCH((sample_mean_kernel<T>), dim3(layers), dim3(NT), 0, q.stream, from, q.n, q.d[s], q.metric[s], mean,
                  square);
    BERTFT_LAUNCH((prepare_rows_kernel<T, E, C>), dim3(at_most(padded / 8, 4096), layers), dim3(NT), 0, q.stream, from,
                  q.n, q.d[s], q.metric[s], mean, rows, padded, ld, static_cast<double*>(nullptr), p,
                  reinterpret_cast<BadRows*>(q.bad) + s);
    BERTFT_LAUNCH((shift_kernel<E, C>), dim3(layers), dim3(NT), 0, q.stream, sides[s], q.n, shift);
    if (int rc = static_cast<int>(cudaGetLastError())) return rc;
  }
  if (self) sides[1] = sides[0], squares[1] = squares[0];
  run.x = sides[0];
  run.y = sides[1];

  // all layers at once if they fit, else groups of as many of each side as do
  const int width = self ? q.layers[0] : q.layers[1];
  Group whole{0, q.layers[0], 0, self ? 0 : q.layers[1]}, most = whole;
  for (int size = std::max(whole.nx, whole.ny); tile_columns<E, C>(most) == 0 && size > 1;) {
    --size;
    most = {0, std::min(whole.nx, size), 0, std::min(width, size)};
  }
  const bool split = most.nx < whole.nx || most.ny < whole.ny;
  run.work.bins = q.bins;
  run.work.ranges = carver.take<C>(most.all() * 2);
  run.work.range_partial = carver.take<C>(static_cast<long long>(run.blocks) * most.all() * 2);
  run.work.partial = carver.take<double>(static_cast<long long>(run.blocks) * most.sums());
  double* sums = carver.take<double>(most.sums());
  const bool ranked = q.compare == kSpearman || q.compare == kRhoA;
  run.work.histogram = carver.take<Bin>(ranked ? static_cast<long long>(most.all()) * q.bins : 0);
  run.work.table = carver.take<C>(ranked ? static_cast<long long>(most.all()) * q.bins * 3 : 0);
  *bytes = carver.used;
  if (!workspace || whole.nx == 0 || width == 0) return 0;
  if (tile_columns<E, C>(most) == 0) return kInvalid;
  for (int x0 = 0; x0 < whole.nx; x0 += most.nx) {
    for (int y0 = self ? x0 : 0; y0 < width; y0 += split ? most.ny : width) {
      Group g{x0, std::min(most.nx, whole.nx - x0), y0, std::min(split ? most.ny : width, width - y0)};
      if (self && x0 == y0) g.ny = 0;
      const int rc = run.group(g, q.compare, sums, squares[0], squares[1], q.out, width, self);
      if (rc) return rc;
    }
  }
  return 0;
}

int dispatch(int dtype, int path, const Problem& q, char* workspace, size_t* bytes) {
  if (dtype == kFloat64) return correlate<double, double, kPlain>(q, workspace, bytes);
  return with_dtype(dtype, [&](auto zero) {
    using T = std::conditional_t<sizeof(zero) == 8, float, decltype(zero)>;
    if (path == kBf16) return correlate<T, __nv_bfloat16, kBf16>(q, workspace, bytes);
    if (path == kTf32) return correlate<T, float, kTf32>(q, workspace, bytes);
    return correlate<T, float, kPlain>(q, workspace, bytes);
  });
}

}  // namespace
}  // namespace bertft

using namespace bertft;

// x (L, N, D) and y (M, N, E) of type dtype, y null: x with itself; out (L, M); bad (2, 2): see row_statistics_launch,
// of x and of y. path: kPlain, kTf32 or kBf16 (rdm_tile.cuh), without effect on double and manhattan. With a null
// workspace only *workspace_bytes is written; else it says how large the workspace is.
extern "C" int rdm_correlation_launch(const void* x, const void* y, double* out, long long* bad, void* workspace,
                                      long long* workspace_bytes, int dtype, int path, int metric_x, int metric_y,
                                      int compare, int layers_x, int layers_y, long long n, int d, int e, int bins,
                                      cudaStream_t stream) {
  const bool known = metric_x >= kDot && metric_x <= kManhattan && metric_y >= kDot && metric_y <= kManhattan;
  if (!known || compare < kPearson || compare > kRhoA || path < kPlain || path > kBf16 || layers_x < 0 ||
      layers_y < 0 || layers_x > 65535 || layers_y > 65535 || n < 0 || n > 1 << 23 || d < 0 || e < 0 || bins < 1) {
    return kInvalid;
  }
  if (metric_x == kManhattan || metric_y == kManhattan) path = kPlain;
  if (path != kPlain && device_attribute(cudaDevAttrComputeCapabilityMajor) < 8) return kInvalid;
  const Problem q{x,      y,    out, bad,   {metric_x, y ? metric_y : metric_x}, compare, {layers_x, layers_y},
                  {d, e}, bins, n,   stream};
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
