// Distances between all pairs of rows, by tiles; see pairwise_distance.cpp.
#pragma once
#include <cstdint>

#include "parallel.h"
#include "rows.h"

namespace bertft {

// Rows in a metric's form, with a common vector subtracted (except for dot), and |u|^2.
template <class T>
struct Prepared {
  const T* u;        // (rows, dim)
  const T* squares;  // (rows,)
  int64_t rows, dim;
};

constexpr int64_t kTile = 512;      // rows and columns of a tile: long enough for the BLAS, small enough for the cache
constexpr double kNear = 1.0 / 32;  // entries below this share of a_i + b_j are summed again: 1e-5 relative in float32
constexpr int64_t kStrip = 64;  // a diagonal tile is computed in strips of this many rows, right of the diagonal only

// out (m, w) = d(x[i0 + i], y[j0 + j]). `diagonal`: x is y and i0 = j0; then only j >= i is computed, the diagonal is
// set to 0 (|u|^2 for dot), and entries below it are undefined.
template <class T>
void distance_tile(const Prepared<T>& x, int64_t i0, int64_t m, const Prepared<T>& y, int64_t j0, int64_t w,
                   Metric metric, bool diagonal, T* out, int64_t ld);

template <class T>
struct PairwiseDistance {
  Matrix x, y;  // y.data null: x against itself
  Metric metric;
  bool condensed;
  T* out;  // (N, M), or (N (N - 1) / 2,) when condensed
};

template <class T>
BadRow pairwise_distance_cpu(const PairwiseDistance<T>& problem, const Pool& pool);

template <class T>
struct PairwiseDistanceGrad {
  Matrix x, y;
  Metric metric;
  bool condensed;
  const T* grad;  // of out, with strides in elements (condensed: only col_stride)
  int64_t row_stride, col_stride;
  const T* out;        // contiguous; read for euclidean only
  T *grad_x, *grad_y;  // (N, D), (M, D): with respect to the rows in their metric's form
};

template <class T>
void pairwise_distance_backward_cpu(const PairwiseDistanceGrad<T>& problem, const Pool& pool);

}  // namespace bertft
