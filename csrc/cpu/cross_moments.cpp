// Sums over stimuli i of products of u_i, p_i, a_i = |u_i|^2 and v_i, q_i, b_i = |v_i|^2.
//
// In chunks of kChunk rows: rows are prepared in double and rounded to T, in tasks of kBlock rows. A task also sums
// vectors and scalars, in T within a few rows and in double beyond. Then U'U, U'V and V'V are products of column
// blocks, one task each (column_products.h); symmetric ones take the blocks on and above the diagonal only, half the
// work. They are accumulated in T over at most kChunksPerFlush chunks, and then in double.
#include "cross_moments.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "column_products.h"
#include "simd.h"

namespace bertft {
namespace {

constexpr int64_t kChunk = 2048;        // rows: 12 MB of prepared rows at d = 768 for two spaces
constexpr int64_t kChunksPerFlush = 4;  // T accumulates this many chunks before double takes over
constexpr int64_t kBlock = 128;         // rows of a preparation task
constexpr int64_t kShort = 16;          // rows summed in T before double takes over

// One space of the chunk.
template <class T>
struct Side {
  const Matrix* x;
  Metric metric;
  const double* mean;
  int64_t dim;
  Panels<T> u;
  std::vector<double> p, a;  // (kChunk,)

  Side(const Matrix& matrix, Metric metric, const double* mean, int64_t rows)
      : x(&matrix), metric(metric), mean(mean), dim(matrix.dim), u(matrix.dim, rows), p(rows), a(rows) {}

  // Rows `row`.. of x become rows `at`.. of the chunk; the first bad one of them.
  BadRow prepare(int64_t row, int64_t at, int64_t count, double* buffer) {
    BadRow first;
    for (int64_t r = 0; r < count; r += kGroupRows) {
      const int64_t rows = std::min(kGroupRows, count - r);
      const BadRow bad =
          prepare_group(*x, row + r, rows, metric, mean, buffer, u.place(at + r), &a[at + r], &p[at + r]);
      if (first.row < 0) first = bad;
    }
    if (metric == Metric::sqeuclidean)
      for (int64_t r = at; r < at + count; ++r) p[r] = -a[r] / 2;
    return first;
  }
};

// out[w] (dim) += sum over rows of weight[w][row] u[row], W weights at once.
template <class T, int W>
void weighted_sums(const Panels<T>& u, int64_t at, int64_t rows, const double* const (&weight)[W],
                   double* const (&out)[W]) {
  T short_weight[W][kShort];
  for (int64_t r0 = 0; r0 < rows; r0 += kShort) {
    const int64_t count = std::min(kShort, rows - r0);
    for (int w = 0; w < W; ++w)
      for (int64_t r = 0; r < count; ++r) short_weight[w][r] = weight[w] ? T(weight[w][r0 + r]) : T(1);
    for (int64_t k = 0; k < u.columns(); k += kLanes<T>) {
      const T* from = u.at(k / kPanel<T>, at + r0) + k % kPanel<T>;
      Vector<T> sum[W] = {};
      for (int64_t r = 0; r < count; ++r) {
        const Vector<T> v = load(from + r * kPanel<T>);
        for (int w = 0; w < W; ++w) sum[w] += short_weight[w][r] * v;
      }
      const int64_t lanes = std::min<int64_t>(kLanes<T>, u.columns() - k);
      for (int w = 0; w < W; ++w)
        for (int64_t lane = 0; lane < lanes; ++lane) out[w][k + lane] += double(sum[w][lane]);
    }
  }
}

// The vectors of sums of one side: of u, p u, a u for its own space, and of q u, b u for a pair with scalars q and b.
template <class T>
void vector_stats(const Side<T>& side, const Side<T>* other, int64_t at, int64_t rows, double* own, double* both) {
  const int64_t d = side.dim;
  const double *p = side.p.data() + at, *a = side.a.data() + at;
  const double *q = other ? other->p.data() + at : nullptr, *b = other ? other->a.data() + at : nullptr;
  if (own && other)
    weighted_sums<T, 5>(side.u, at, rows, {nullptr, p, a, q, b}, {own, own + d, own + 2 * d, both, both + d});
  else if (own)
    weighted_sums<T, 3>(side.u, at, rows, {nullptr, p, a}, {own, own + d, own + 2 * d});
  else if (other)
    weighted_sums<T, 2>(side.u, at, rows, {q, b}, {both, both + d});
}

template <class T>
void space_scalars(const Side<T>& side, int64_t at, int64_t rows, double* s) {
  const double *p = side.p.data() + at, *a = side.a.data() + at;
  s[0] += double(rows);
  for (int64_t i = 0; i < rows; ++i) {
    s[1] += a[i], s[2] += p[i];
    s[3] += a[i] * a[i], s[4] += a[i] * p[i], s[5] += p[i] * p[i];
  }
}

template <class T>
void pair_scalars(const Side<T>& x, const Side<T>& y, int64_t at, int64_t rows, double* s) {
  const double *p = x.p.data() + at, *a = x.a.data() + at, *q = y.p.data() + at, *b = y.a.data() + at;
  for (int64_t i = 0; i < rows; ++i) s[0] += a[i] * b[i], s[1] += p[i] * q[i], s[2] += q[i] * a[i], s[3] += p[i] * b[i];
}

// A product A'B of the chunk's columns, accumulated in T in whole panels, then added to `total` (dim_a, dim_b).
template <class T>
struct Product {
  const Side<T>*a, *b;
  double* total;
  Aligned<T> sums;
  Product(const Side<T>& a, const Side<T>& b, double* total)
      : a(&a), b(&b), total(total), sums(aligned<T>(a.u.panels() * kPanel<T> * width())) {}
  bool symmetric() const { return a == b; }
  int64_t width() const { return b->u.panels() * kPanel<T>; }
};

struct Block {
  int product;
  int64_t i, j;  // panels
};

template <class T>
void multiply(Product<T>& p, int64_t i, int64_t j, int64_t rows, bool add) {
  column_products(p.a->u, p.b->u, rows, i, std::min(i + kBlockPanels, p.a->u.panels()), j,
                  std::min(j + kBlockPanels, p.b->u.panels()), p.symmetric(), add,
                  p.sums.get() + i * kPanel<T> * p.width(), p.width());
}

// total[j, i] = total[i, j] for i0 <= i < i1, j0 <= j < j1, i < j, in squares that use cache lines whole.
void mirror(double* total, int64_t d, int64_t i0, int64_t i1, int64_t j0, int64_t j1) {
  constexpr int64_t B = 16;
  for (int64_t jb = j0; jb < j1; jb += B)
    for (int64_t ib = i0; ib < i1; ib += B)
      for (int64_t j = jb; j < std::min(j1, jb + B); ++j)
        for (int64_t i = ib; i < std::min({i1, ib + B, j}); ++i) total[j * d + i] = total[i * d + j];
}

// Adds the block's sums to the total, or writes them. With `mirrored` also fills the other half of a symmetric product,
// while the block is in a near cache.
template <class T>
void flush(Product<T>& p, int64_t i, int64_t j, bool add, bool mirrored) {
  const int64_t d = p.a->dim, e = p.b->dim, edge = kBlockPanels * kPanel<T>;
  const int64_t i0 = i * kPanel<T>, i1 = std::min(d, i0 + edge), j0 = j * kPanel<T>, j1 = std::min(e, j0 + edge);
  for (int64_t row = i0; row < i1; ++row) {
    const T* from = p.sums.get() + row * p.width();
    double* to = p.total + row * e;
    const int64_t begin = p.symmetric() ? std::max(row, j0) : j0;
    if (add)
      for (int64_t k = begin; k < j1; ++k) to[k] += double(from[k]);
    else
      for (int64_t k = begin; k < j1; ++k) to[k] = double(from[k]);
  }
  if (p.symmetric() && mirrored) mirror(p.total, d, i0, i1, j0, j1);
}

// Lengths of the vectors of sums, which lie one after the other.
struct Stats {
  int64_t of_x, of_y, of_xy;
  int64_t size() const { return of_x + of_y + of_xy; }

  void flush(std::vector<double>& pending, const CrossMoments& m) const {
    for (int64_t k = 0; k < of_x; ++k) m.stats_x[k] += pending[k];
    for (int64_t k = 0; k < of_y; ++k) m.stats_y[k] += pending[of_x + k];
    for (int64_t k = 0; k < of_xy; ++k) m.stats_xy[k] += pending[of_x + of_y + k];
    std::fill(pending.begin(), pending.end(), 0.0);
  }
};

}  // namespace

template <class T>
BadRow cross_moments_cpu(const CrossMoments& m, bool check, const Pool& pool) {
  const int64_t n = m.x.rows, d = m.x.dim, e = m.y.data ? m.y.dim : 0;
  if (check &&
      n > kChunk * kChunksPerFlush) {  // fewer rows are checked below, because nothing is added before the flush
    BadRow bad = find_bad_row(m.x, m.metric_x, pool);
    if (bad.row < 0 && m.y.data && (bad = find_bad_row(m.y, m.metric_y, pool)).row >= 0) bad.row += n;
    if (bad.row >= 0) return bad;
  }
  const int64_t chunk = std::min(n, kChunk);
  Side<T> x(m.x, m.metric_x, m.mean_x, chunk), y(m.y, m.metric_y, m.mean_y, m.y.data ? chunk : 0);

  std::vector<Product<T>> products;
  if (m.gram_x) products.emplace_back(x, x, m.gram_x);
  if (m.cross) products.emplace_back(x, y, m.cross);
  if (m.gram_y) products.emplace_back(y, y, m.gram_y);
  std::vector<Block> blocks;
  for (int k = 0; k < int(products.size()); ++k)
    for (int64_t i = 0; i < products[k].a->u.panels(); i += kBlockPanels)
      for (int64_t j = products[k].symmetric() ? i : 0; j < products[k].b->u.panels(); j += kBlockPanels)
        blocks.push_back({k, i, j});

  const Stats stats{m.stats_x ? 3 * d + 6 : 0, m.stats_y ? 3 * e + 6 : 0, m.stats_xy ? 2 * (d + e) + 4 : 0};
  std::vector<double> partial(stats.size() * ((chunk + kBlock - 1) / kBlock)), pending(stats.size());
  for (int64_t start = 0, index = 0; start < n; start += kChunk, ++index) {
    const int64_t rows = std::min(kChunk, n - start), tasks = (rows + kBlock - 1) / kBlock;
    std::fill(partial.begin(), partial.end(), 0.0);
    std::vector<BadRow> found(2 * tasks);  // of x, then of y
    parallel_tasks(pool, tasks, [&](int, int64_t task) {
      std::vector<double> buffer(kGroupRows * std::max(d, e));
      const int64_t at = task * kBlock, count = std::min(kBlock, rows - at);
      double* sums = partial.data() + task * stats.size();
      for (int side = 0; side < (m.y.data ? 2 : 1); ++side) {
        BadRow bad = (side ? y : x).prepare(start + at, at, count, buffer.data());
        if (bad.row >= 0) bad.row += side * n;
        found[side * tasks + task] = bad;
      }
      double *of_x = m.stats_x ? sums : nullptr, *of_y = m.stats_y ? sums + stats.of_x : nullptr;
      double* of_xy = m.stats_xy ? sums + stats.of_x + stats.of_y : nullptr;
      vector_stats(x, of_xy ? &y : nullptr, at, count, of_x, of_xy);
      if (m.y.data) vector_stats(y, of_xy ? &x : nullptr, at, count, of_y, of_xy ? of_xy + 2 * d : nullptr);
      if (of_x) space_scalars(x, at, count, of_x + 3 * d);
      if (of_y) space_scalars(y, at, count, of_y + 3 * e);
      if (of_xy) pair_scalars(x, y, at, count, of_xy + 2 * (d + e));
    });
    if (check)
      for (const BadRow& bad : found)
        if (bad.row >= 0) return bad;
    for (int64_t task = 0; task < tasks; ++task)
      for (int64_t k = 0; k < stats.size(); ++k) pending[k] += partial[task * stats.size() + k];
    const bool first = index % kChunksPerFlush == 0;
    const bool last = index % kChunksPerFlush == kChunksPerFlush - 1 || start + kChunk >= n;
    parallel_tasks(pool, int64_t(blocks.size()), [&](int, int64_t task) {
      const Block& block = blocks[task];
      multiply(products[block.product], block.i, block.j, rows, !first);
      if (last)
        flush(products[block.product], block.i, block.j, m.add || index >= kChunksPerFlush, start + kChunk >= n);
    });
    if (last) stats.flush(pending, m);
  }
  return {};
}

template BadRow cross_moments_cpu<float>(const CrossMoments&, bool, const Pool&);
template BadRow cross_moments_cpu<double>(const CrossMoments&, bool, const Pool&);

}  // namespace bertft
