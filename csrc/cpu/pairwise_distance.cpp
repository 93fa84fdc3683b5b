// out[i, j] = d(x_i, y_j).
//
// dot is u.v. The quadratic kinds share one form: with rows u, v in the metric's form less a common vector,
//   |u_i - v_j|^2 = a_i + b_j - 2 u_i.v_j      sqeuclidean; euclidean is its root; cosine and correlation are half of
//   it
// Subtracting the common vector (the mean of a sample) avoids most of the cancellation. Entries that are small beside
// a_i + b_j even so (`kNear`) are summed again directly from the differences, so that equal rows are exactly 0 apart.
// manhattan works row by row, with blocks of 2 x 4 pairs in registers.
//
// Work split: one task per tile of kTile x kTile, its product single-threaded in the BLAS. Without y only tiles on and
// above the diagonal are computed and written twice: half the work, exactly symmetric.
#include "pairwise_distance.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cmath>
#include <vector>

#include "gemm.h"
#include "pairwise_copies.h"
#include "simd.h"

namespace bertft {
namespace {

constexpr int64_t kManhattanBlock = 64;  // rows of y that stay in the second-level cache

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

// A hundred megabytes of fresh memory cost 25,000 page faults, a tenth of the time of filling them with distances.
void prefer_large_pages(void* memory, int64_t bytes) {
#ifdef MADV_HUGEPAGE
  constexpr uintptr_t kLarge = 1 << 21;
  const uintptr_t from = (reinterpret_cast<uintptr_t>(memory) + kLarge - 1) / kLarge * kLarge;
  const uintptr_t to = (reinterpret_cast<uintptr_t>(memory) + uintptr_t(bytes)) / kLarge * kLarge;
  if (to > from) madvise(reinterpret_cast<void*>(from), to - from, MADV_HUGEPAGE);  // a hint, which may fail
#else
  (void)memory, (void)bytes;
#endif
}

struct TileAt {
  int64_t i, j;
};

template <class T>
void transpose_into(const T* from, int64_t ld, int64_t m, int64_t w, T* to, int64_t ld_to) {
  constexpr int64_t B = 16;
  for (int64_t jb = 0; jb < w; jb += B)
    for (int64_t ib = 0; ib < m; ib += B)
      for (int64_t j = jb; j < std::min(w, jb + B); ++j)
        for (int64_t i = ib; i < std::min(m, ib + B); ++i) to[j * ld_to + i] = from[i * ld + j];
}

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

#define BERTFT_INSTANTIATE(T)                                                                                        \
  template void distance_tile<T>(const Prepared<T>&, int64_t, int64_t, const Prepared<T>&, int64_t, int64_t, Metric, \
                                 bool, T*, int64_t);                                                                 \
  template BadRow pairwise_distance_cpu<T>(const PairwiseDistance<T>&, const Pool&);
BERTFT_INSTANTIATE(float)
BERTFT_INSTANTIATE(double)

}  // namespace bertft
