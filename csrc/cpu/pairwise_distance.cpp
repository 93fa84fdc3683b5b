// out[i, j] = d(x_i, y_j).
//
// dot is u.v. The quadratic kinds share one form: with rows u, v in the metric's form less a common vector,
//   |u_i - v_j|^2 = a_i + b_j - 2 u_i.v_j      sqeuclidean; euclidean is its root; cosine and correlation are half of it
// The common vector (mean of a sample) takes away most of the cancellation; entries that are small beside a_i + b_j all
// the same (`kNear`) are summed again directly from the differences, so that equal rows are exactly 0 apart.
// manhattan goes row by row, blocks of 2 x 4 pairs in registers.
//
// Work split: one task per tile of kTile x kTile, its product single-threaded in the BLAS. Without y only tiles on and
// above the diagonal are computed and written twice: half the work, exactly symmetric.
#include "pairwise_distance.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "gemm.h"
#include "simd.h"

namespace bertft {
namespace {

constexpr double kNear = 1.0 / 32;        // recompute below this share of a_i + b_j: keeps 1e-5 relative in float32
constexpr int64_t kMeanSample = 256;      // rows whose mean is subtracted
constexpr int64_t kManhattanBlock = 64;   // rows of y that stay in the second-level cache

template <class T>
double direct_square(const T* u, const T* v, int64_t d) {
  constexpr int W = kLanes<T>;
  Vector<T> s[2] = {};
  int64_t k = 0;
  for (; k + 2 * W <= d; k += 2 * W)
    for (int half = 0; half < 2; ++half) {
      const Vector<T> e = load(u + k + half * W) - load(v + k + half * W);
      s[half] += e * e;
    }
  double total = lane_sum<T>(s[0] + s[1]);
  for (; k < d; ++k) total += double(u[k] - v[k]) * double(u[k] - v[k]);
  return total;
}

// One row of a tile: g_j = u.v_j on entry, the distance on return.
template <class T>
void quadratic_row(const T* u, T a, const Prepared<T>& y, int64_t j0, int64_t begin, int64_t w, Metric metric, T* g) {
  const T* b = y.squares + j0;
  const T near = T(kNear);
  bool any = false;
  int64_t j = begin;
  Mask<T> close = {};
  for (; j + kLanes<T> <= w; j += kLanes<T>) {
    const Vector<T> sum = a + load(b + j), v = sum - T(2) * load(g + j);
    close |= v <= near * sum;
    store(g + j, v);
  }
  for (int lane = 0; lane < kLanes<T>; ++lane) any |= close[lane] != 0;
  for (; j < w; ++j) {
    const T sum = a + b[j];
    g[j] = sum - T(2) * g[j];
    any |= g[j] <= near * sum;
  }
  if (any)
    for (j = begin; j < w; ++j)
      if (g[j] <= near * (a + b[j])) g[j] = T(direct_square(u, y.u + (j0 + j) * y.dim, y.dim));
  if (normalised(metric))
    for (j = begin; j < w; ++j) g[j] *= T(0.5);
  else if (metric == Metric::euclidean)
    for (j = begin; j < w; ++j) g[j] = std::sqrt(g[j]);
}

template <class T, int R, int C>
void manhattan_block(const T* x, const T* y, int64_t d, T* out, int64_t ld) {
  constexpr int W = kLanes<T>;
  Vector<T> sum[R][C] = {};
  int64_t k = 0;
  for (; k + W <= d; k += W) {
    Vector<T> a[R];
    for (int r = 0; r < R; ++r) a[r] = load(x + r * d + k);
    for (int c = 0; c < C; ++c) {
      const Vector<T> b = load(y + c * d + k);
      for (int r = 0; r < R; ++r) sum[r][c] += magnitude<T>(a[r] - b);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) {
      double total = lane_sum<T>(sum[r][c]);
      for (int64_t tail = k; tail < d; ++tail) total += std::fabs(double(x[r * d + tail]) - double(y[c * d + tail]));
      out[r * ld + c] = T(total);
    }
}

template <class T>
void manhattan_tile(const T* x, int64_t m, const T* y, int64_t w, int64_t d, bool diagonal, T* out, int64_t ld) {
  for (int64_t jb = 0; jb < w; jb += kManhattanBlock) {
    const int64_t end = std::min(w, jb + kManhattanBlock), rows = diagonal ? std::min(m, end) : m;
    int64_t i = 0;
    for (; i < rows; i += 2) {
      const bool pair = i + 2 <= rows;
      int64_t j = diagonal ? std::max(jb, i & ~int64_t(3)) : jb;
      for (; j + 4 <= end; j += 4)
        (pair ? manhattan_block<T, 2, 4> : manhattan_block<T, 1, 4>)(x + i * d, y + j * d, d, out + i * ld + j, ld);
      for (; j < end; ++j)
        (pair ? manhattan_block<T, 2, 1> : manhattan_block<T, 1, 1>)(x + i * d, y + j * d, d, out + i * ld + j, ld);
    }
  }
}

}  // namespace

template <class T>
void distance_tile(const Prepared<T>& x, int64_t i0, int64_t m, const Prepared<T>& y, int64_t j0, int64_t w,
                   Metric metric, bool diagonal, T* out, int64_t ld) {
  const int64_t d = x.dim;
  const T *u = x.u + i0 * d, *v = y.u + j0 * d;
  if (metric == Metric::manhattan) {
    manhattan_tile(u, m, v, w, d, diagonal, out, ld);
  } else {
    const int64_t strip = diagonal ? kStrip : m;
    for (int64_t a = 0; a < m; a += strip) {
      const int64_t skip = diagonal ? a : 0;
      gemm(false, true, std::min(strip, m - a), w - skip, d, T(1), u + a * d, d, v + skip * d, d, T(0),
           out + a * ld + skip, ld);
    }
    if (metric != Metric::dot)
      for (int64_t i = 0; i < m; ++i)
        quadratic_row(u + i * d, x.squares[i0 + i], y, j0, diagonal ? i + 1 : 0, w, metric, out + i * ld);
  }
  if (diagonal)
    for (int64_t i = 0; i < m; ++i) {
      const T square = x.squares[i0 + i];
      out[i * ld + i] = metric == Metric::dot || std::isnan(square) ? square : T(0);
    }
}

namespace {

// A prepared copy of x and, where given, y; both less the same vector.
template <class T>
struct Copies {
  std::unique_ptr<T[]> memory;
  Prepared<T> x, y;
  BadRow bad;

  Copies(const Matrix& mx, const Matrix& my, Metric metric, const Pool& pool) {
    const int64_t d = mx.dim, n = mx.rows, k = my.data ? my.rows : 0;
    memory.reset(new T[size_t((n + k) * (d + 1))]);
    std::vector<double> mean(d, 0.0);
    if (metric != Metric::dot && metric != Metric::manhattan) sample_mean(mx, metric, kMeanSample, mean.data());
    T *u = memory.get(), *v = u + n * d, *a = v + k * d, *b = a + n;
    bad = prepare_rows(mx, metric, mean.data(), u, a, pool);
    x = y = {u, a, n, d};
    if (my.data) {
      const BadRow bad_y = prepare_rows(my, metric, mean.data(), v, b, pool);
      if (bad.row < 0 && bad_y.row >= 0) bad = {n + bad_y.row, bad_y.why};
      y = {v, b, k, d};
    }
  }
};

// A hundred megabytes of fresh memory cost 25,000 page faults, a tenth of the time of filling them with distances.
void prefer_large_pages(void* memory, int64_t bytes) {
#ifdef MADV_HUGEPAGE
  constexpr uintptr_t kLarge = 1 << 21;
  const uintptr_t from = (reinterpret_cast<uintptr_t>(memory) + kLarge - 1) / kLarge * kLarge;
  const uintptr_t to = (reinterpret_cast<uintptr_t>(memory) + uintptr_t(bytes)) / kLarge * kLarge;
  if (to > from) madvise(reinterpret_cast<void*>(from), to - from, MADV_HUGEPAGE);  // a wish: failure is no matter
#else
  (void)memory, (void)bytes;
#endif
}

struct TileAt {
  int64_t i, j;
};

// The tile edge that leaves every thread a few tasks, but no less than a strip.
int64_t tile_edge(int64_t n, int64_t m, int threads) {
  int64_t edge = kTile;
  while (edge > kStrip && ((n + edge - 1) / edge) * ((m + edge - 1) / edge) < 4 * threads) edge /= 2;
  return edge;
}

template <class T>
void transpose_into(const T* from, int64_t ld, int64_t m, int64_t w, T* to, int64_t ld_to) {
  constexpr int64_t B = 16;
  for (int64_t jb = 0; jb < w; jb += B)
    for (int64_t ib = 0; ib < m; ib += B)
      for (int64_t j = jb; j < std::min(w, jb + B); ++j)
        for (int64_t i = ib; i < std::min(m, ib + B); ++i) to[j * ld_to + i] = from[i * ld + j];
}

int64_t condensed_row(int64_t i, int64_t n) { return i * n - i * (i + 1) / 2 - i - 1; }  // + j is the place of (i, j)

}  // namespace

template <class T>
BadRow pairwise_distance_cpu(const PairwiseDistance<T>& p, const Pool& pool) {
  const bool same = !p.y.data;
  const int64_t n = p.x.rows, m = same ? n : p.y.rows;
  prefer_large_pages(p.out, (p.condensed ? n * (n - 1) / 2 : n * m) * int64_t(sizeof(T)));
  const Copies<T> copies(p.x, p.y, p.metric, pool);
  const int64_t edge = tile_edge(n, m, pool.threads);
  std::vector<TileAt> tiles;
  for (int64_t i = 0; i < n; i += edge)
    for (int64_t j = same ? i : 0; j < m; j += edge) tiles.push_back({i, j});
  std::vector<std::vector<T>> scratch(pool.threads);
  parallel_tasks(pool, int64_t(tiles.size()), [&](int worker, int64_t task) {
    const auto [i0, j0] = tiles[task];
    const int64_t h = std::min(edge, n - i0), w = std::min(edge, m - j0);
    const bool diagonal = same && i0 == j0;
    if (p.condensed) {
      scratch[worker].resize(edge * edge);
      T* g = scratch[worker].data();
      distance_tile(copies.x, i0, h, copies.y, j0, w, p.metric, diagonal, g, edge);
      for (int64_t i = 0; i < h; ++i) {
        const int64_t from = diagonal ? i + 1 : 0;
        std::copy(g + i * edge + from, g + i * edge + w, p.out + condensed_row(i0 + i, n) + j0 + from);
      }
      return;
    }
    T* g = p.out + i0 * m + j0;
    distance_tile(copies.x, i0, h, copies.y, j0, w, p.metric, diagonal, g, m);
    if (diagonal)
      for (int64_t i = 1; i < h; ++i)
        for (int64_t j = 0; j < i; ++j) g[i * m + j] = g[j * m + i];
    if (same && !diagonal) transpose_into(g, m, h, w, p.out + j0 * m + i0, m);
  });
  return copies.bad;
}

namespace {

// W[i, j] = dL/d(|u_i - v_j|^2) (dot: dL/d(u_i.v_j), manhattan: dL/dd_ij) for a tile; without y plus its transpose,
// which is read in squares of kSquare, so that its cache lines are used whole.
template <class T>
void weight_tile(const PairwiseDistanceGrad<T>& p, int64_t n, int64_t m, int64_t i0, int64_t h, int64_t j0, int64_t w,
                 T* out, int64_t ld) {
  constexpr int64_t kSquare = 16;
  const bool same = !p.y.data;
  const T scale = normalised(p.metric) || p.metric == Metric::euclidean ? T(0.5) : T(1);
  for (int64_t ib = 0; ib < h; ib += kSquare)
    for (int64_t jb = 0; jb < w; jb += kSquare)
      for (int64_t i = ib; i < std::min(h, ib + kSquare); ++i) {
        const int64_t r = i0 + i;
        T* row = out + i * ld;
        for (int64_t j = jb; j < std::min(w, jb + kSquare); ++j) {
          const int64_t c = j0 + j;
          const int64_t at = !p.condensed ? r * m + c : r < c ? condensed_row(r, n) + c : condensed_row(c, n) + r;
          T g = 0;
          if (p.condensed) {
            if (r != c) g = p.grad[at * p.col_stride];
          } else {
            g = p.grad[r * p.row_stride + c * p.col_stride];
            if (same) g += p.grad[c * p.row_stride + r * p.col_stride];
            if (same && r == c && p.metric != Metric::dot) g = 0;
          }
          if (p.metric == Metric::euclidean) {
            const T d = p.condensed && r == c ? T(0) : p.out[at];
            g = d == 0 ? T(0) : g / d;  // the subgradient 0 at zero distance
          }
          row[j] = scale * g;
        }
      }
}

}  // namespace

// One task per panel of rows, which it alone writes. d/du_i of sum_j W_ij |u_i - v_j|^2 = 2 (u_i sum_j W_ij - W V).
template <class T>
void pairwise_distance_backward_cpu(const PairwiseDistanceGrad<T>& p, const Pool& pool) {
  const bool same = !p.y.data;
  const int64_t n = p.x.rows, m = same ? n : p.y.rows, d = p.x.dim;
  const Copies<T> copies(p.x, p.y, p.metric, pool);
  const int64_t edge = tile_edge(n, m, pool.threads), panels = (n + edge - 1) / edge;
  const int64_t all = panels + (same ? 0 : (m + edge - 1) / edge);
  std::vector<std::vector<T>> scratch(pool.threads);
  parallel_tasks(pool, all, [&](int worker, int64_t task) {
    const bool of_x = task < panels;
    const Prepared<T>&own = of_x ? copies.x : copies.y, &other = of_x ? copies.y : copies.x;
    const int64_t r0 = (of_x ? task : task - panels) * edge, h = std::min(edge, own.rows - r0);
    T* grad = (of_x ? p.grad_x : p.grad_y) + r0 * d;
    std::vector<double> sums(h, 0.0);
    scratch[worker].resize(edge * edge);
    T* g = scratch[worker].data();
    const bool quadratic = p.metric != Metric::dot && p.metric != Metric::manhattan;
    std::fill_n(grad, h * d, T(0));
    for (int64_t c0 = 0; c0 < other.rows; c0 += edge) {
      const int64_t w = std::min(edge, other.rows - c0);
      if (of_x)
        weight_tile(p, n, m, r0, h, c0, w, g, edge);
      else
        weight_tile(p, n, m, c0, w, r0, h, g, edge);  // (w, h): used transposed
      if (p.metric == Metric::manhattan) {
        for (int64_t i = 0; i < h; ++i)
          for (int64_t j = 0; j < w; ++j) {
            const T weight = of_x ? g[i * edge + j] : g[j * edge + i];
            const T *u = own.u + (r0 + i) * d, *v = other.u + (c0 + j) * d;
            T* to = grad + i * d;
            for (int64_t k = 0; k < d; ++k) to[k] += u[k] > v[k] ? weight : u[k] < v[k] ? -weight : T(0);
          }
        continue;
      }
      for (int64_t i = 0; quadratic && i < h; ++i)
        for (int64_t j = 0; j < w; ++j) sums[i] += of_x ? g[i * edge + j] : g[j * edge + i];
      gemm(!of_x, false, h, d, w, quadratic ? T(-2) : T(1), g, edge, other.u + c0 * d, d, T(1), grad, d);
    }
    for (int64_t i = 0; quadratic && i < h; ++i)
      for (int64_t k = 0; k < d; ++k) grad[i * d + k] += T(2 * sums[i]) * own.u[(r0 + i) * d + k];
  });
}

#define BERTFT_INSTANTIATE(T)                                                                                       \
  template void distance_tile<T>(const Prepared<T>&, int64_t, int64_t, const Prepared<T>&, int64_t, int64_t, Metric, \
                                 bool, T*, int64_t);                                                                \
  template BadRow pairwise_distance_cpu<T>(const PairwiseDistance<T>&, const Pool&);                                \
  template void pairwise_distance_backward_cpu<T>(const PairwiseDistanceGrad<T>&, const Pool&);
BERTFT_INSTANTIATE(float)
BERTFT_INSTANTIATE(double)

}  // namespace bertft
