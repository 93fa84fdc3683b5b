// Sums over stimuli i of products of u_i, p_i, a_i = |u_i|^2 and v_i, q_i, b_i = |v_i|^2.
//
// In chunks of kChunk rows: rows are prepared in double and rounded to T (one task per kBlock rows, which also sums the
// vectors and scalars, in T within a block and in double beyond), then U'U, U'V, V'V are products of column blocks (one
// task each; of the symmetric ones only blocks on and above the diagonal, diagonal blocks in strips: half the work),
// accumulated in T over at most kChunksPerFlush chunks and then in double.
#include "cross_moments.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "gemm.h"
#include "simd.h"

namespace bertft {
namespace {

constexpr int64_t kChunk = 2048;          // rows: 12 MB of prepared rows at d = 768 for two spaces
constexpr int64_t kChunksPerFlush = 4;    // T accumulates this many chunks before double takes over
constexpr int64_t kBlock = 64;            // rows of a preparation task
constexpr int64_t kShort = 16;            // rows summed in T before double takes over
constexpr int64_t kColumns = 384;         // columns of a product's block
constexpr int64_t kStripColumns = 64;     // strip of a diagonal block

// One space of the chunk.
template <class T>
struct Side {
  const Matrix* x;
  Metric metric;
  const double* mean;
  int64_t dim;
  std::vector<T> u;          // (kChunk, dim)
  std::vector<double> p, a;  // (kChunk,)

  Side(const Matrix& matrix, Metric metric, const double* mean, int64_t rows)
      : x(&matrix), metric(metric), mean(mean), dim(matrix.dim), u(rows * dim), p(rows), a(rows) {}

  BadRow::Why prepare(int64_t row, int64_t at, double* buffer) {
    const MetricRow form = metric_row(*x, row, metric, buffer);
    a[at] = round_row(buffer, form.scale, mean, dim, u.data() + at * dim, &p[at]);
    if (metric == Metric::sqeuclidean) p[at] = -a[at] / 2;
    return form.why;
  }
};

// out[w] (dim) += sum over rows of weight[w][row] u[row], W weights at once.
template <class T, int W>
void weighted_sums(const T* u, int64_t dim, int64_t rows, const double* const (&weight)[W], double* const (&out)[W]) {
  T short_weight[W][kShort];
  for (int64_t r0 = 0; r0 < rows; r0 += kShort) {
    const int64_t count = std::min(kShort, rows - r0);
    for (int w = 0; w < W; ++w)
      for (int64_t r = 0; r < count; ++r) short_weight[w][r] = weight[w] ? T(weight[w][r0 + r]) : T(1);
    int64_t k = 0;
    for (; k + kLanes<T> <= dim; k += kLanes<T>) {
      Vector<T> sum[W] = {};
      for (int64_t r = 0; r < count; ++r) {
        const Vector<T> v = load(u + (r0 + r) * dim + k);
        for (int w = 0; w < W; ++w) sum[w] += short_weight[w][r] * v;
      }
      for (int w = 0; w < W; ++w)
        for (int lane = 0; lane < kLanes<T>; ++lane) out[w][k + lane] += double(sum[w][lane]);
    }
    for (; k < dim; ++k)
      for (int w = 0; w < W; ++w)
        for (int64_t r = 0; r < count; ++r) out[w][k] += double(short_weight[w][r]) * double(u[(r0 + r) * dim + k]);
  }
}

template <class T>
void space_stats(const Side<T>& side, int64_t at, int64_t rows, double* stats) {
  const int64_t d = side.dim;
  const double *p = side.p.data() + at, *a = side.a.data() + at;
  weighted_sums<T, 3>(side.u.data() + at * d, d, rows, {nullptr, p, a}, {stats, stats + d, stats + 2 * d});
  double* s = stats + 3 * d;
  s[0] += double(rows);
  for (int64_t i = 0; i < rows; ++i) {
    s[1] += a[i], s[2] += p[i];
    s[3] += a[i] * a[i], s[4] += a[i] * p[i], s[5] += p[i] * p[i];
  }
}

template <class T>
void pair_stats(const Side<T>& x, const Side<T>& y, int64_t at, int64_t rows, double* stats) {
  const int64_t d = x.dim, e = y.dim;
  const double *p = x.p.data() + at, *a = x.a.data() + at, *q = y.p.data() + at, *b = y.a.data() + at;
  weighted_sums<T, 2>(x.u.data() + at * d, d, rows, {q, b}, {stats, stats + d});
  weighted_sums<T, 2>(y.u.data() + at * e, e, rows, {p, a}, {stats + 2 * d, stats + 2 * d + e});
  double* s = stats + 2 * (d + e);
  for (int64_t i = 0; i < rows; ++i) s[0] += a[i] * b[i], s[1] += p[i] * q[i], s[2] += q[i] * a[i], s[3] += p[i] * b[i];
}

// A product A'B of the chunk's columns: C (dim_a, dim_b), accumulated in T, then added to `total`.
template <class T>
struct Product {
  const Side<T>*a, *b;
  double* total;
  std::vector<T> c;
  bool symmetric() const { return a == b; }
};

struct Block {
  int product;
  int64_t i, j;
};

template <class T>
void multiply(Product<T>& product, int64_t i, int64_t j, int64_t rows, T beta) {
  const int64_t d = product.a->dim, e = product.b->dim;
  const int64_t h = std::min(kColumns, d - i), w = std::min(kColumns, e - j);
  const int64_t strip = product.symmetric() && i == j ? kStripColumns : h;
  for (int64_t s = 0; s < h; s += strip) {
    const int64_t skip = strip < h ? s : 0;
    gemm(true, false, std::min(strip, h - s), w - skip, rows, T(1), product.a->u.data() + i + s, d,
         product.b->u.data() + j + skip, e, beta, product.c.data() + (i + s) * e + j + skip, e);
  }
}

template <class T>
void flush(Product<T>& product, int64_t i0, int64_t j0) {
  const int64_t d = product.a->dim, e = product.b->dim;
  const int64_t i1 = std::min(d, i0 + kColumns), j1 = std::min(e, j0 + kColumns);
  const bool diagonal = product.symmetric() && i0 == j0;
  constexpr int64_t B = 16;
  for (int64_t ib = i0; ib < i1; ib += B)
    for (int64_t jb = diagonal ? ib : j0; jb < j1; jb += B)
      for (int64_t i = ib; i < std::min(i1, ib + B); ++i)
        for (int64_t j = diagonal ? std::max(i, jb) : jb; j < std::min(j1, jb + B); ++j) {
          const double value = product.c[i * e + j];
          product.total[i * e + j] += value;
          if (product.symmetric() && i != j) product.total[j * e + i] += value;
        }
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
  if (check && n > kChunk * kChunksPerFlush) {  // fewer rows are checked on the way: nothing is added before the flush
    BadRow bad = find_bad_row(m.x, m.metric_x, pool);
    if (bad.row < 0 && m.y.data && (bad = find_bad_row(m.y, m.metric_y, pool)).row >= 0) bad.row += n;
    if (bad.row >= 0) return bad;
  }
  const int64_t chunk = std::min(n, kChunk);
  Side<T> x(m.x, m.metric_x, m.mean_x, chunk), y(m.y, m.metric_y, m.mean_y, m.y.data ? chunk : 0);

  std::vector<Product<T>> products;
  if (m.gram_x) products.push_back({&x, &x, m.gram_x, std::vector<T>(d * d)});
  if (m.cross) products.push_back({&x, &y, m.cross, std::vector<T>(d * e)});
  if (m.gram_y) products.push_back({&y, &y, m.gram_y, std::vector<T>(e * e)});
  std::vector<Block> blocks;
  for (int k = 0; k < int(products.size()); ++k)
    for (int64_t i = 0; i < products[k].a->dim; i += kColumns)
      for (int64_t j = products[k].symmetric() ? i : 0; j < products[k].b->dim; j += kColumns) blocks.push_back({k, i, j});

  const Stats stats{m.stats_x ? 3 * d + 6 : 0, m.stats_y ? 3 * e + 6 : 0, m.stats_xy ? 2 * (d + e) + 4 : 0};
  std::vector<double> partial(stats.size() * ((chunk + kBlock - 1) / kBlock)), pending(stats.size());
  for (int64_t start = 0, index = 0; start < n; start += kChunk, ++index) {
    const int64_t rows = std::min(kChunk, n - start), tasks = (rows + kBlock - 1) / kBlock;
    std::fill(partial.begin(), partial.end(), 0.0);
    std::vector<BadRow> found(2 * tasks);  // of x, then of y
    parallel_tasks(pool, tasks, [&](int, int64_t task) {
      std::vector<double> buffer(std::max(d, e));
      const int64_t at = task * kBlock, count = std::min(kBlock, rows - at);
      double* sums = partial.data() + task * stats.size();
      for (int side = 0; side < (m.y.data ? 2 : 1); ++side)
        for (int64_t r = at; r < at + count; ++r) {
          const BadRow::Why why = (side ? y : x).prepare(start + r, r, buffer.data());
          BadRow& first = found[side * tasks + task];
          if (why != BadRow::none && first.row < 0) first = {side * n + start + r, why};
        }
      if (m.stats_x) space_stats(x, at, count, sums);
      if (m.stats_y) space_stats(y, at, count, sums + stats.of_x);
      if (m.stats_xy) pair_stats(x, y, at, count, sums + stats.of_x + stats.of_y);
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
      multiply(products[block.product], block.i, block.j, rows, first ? T(0) : T(1));
      if (last) flush(products[block.product], block.i, block.j);
    });
    if (last) stats.flush(pending, m);
  }
  return {};
}

template BadRow cross_moments_cpu<float>(const CrossMoments&, bool, const Pool&);
template BadRow cross_moments_cpu<double>(const CrossMoments&, bool, const Pool&);

}  // namespace bertft
