// Gradients of distances with respect to the rows in their metric's form.
#include <algorithm>
#include <vector>

#include "gemm.h"
#include "pairwise_copies.h"

namespace bertft {
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

template void pairwise_distance_backward_cpu<float>(const PairwiseDistanceGrad<float>&, const Pool&);
template void pairwise_distance_backward_cpu<double>(const PairwiseDistanceGrad<double>&, const Pool&);

}  // namespace bertft
