// Copies of rows and tile sizes, shared by pairwise_distance and its gradient.
#pragma once
#include <memory>
#include <vector>

#include "pairwise_distance.h"

namespace bertft {

constexpr int64_t kMeanSample = 256;  // rows whose mean is subtracted

// A prepared copy of x and, if given, of y, both less the same vector.
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

// The tile edge that leaves every thread a few tasks, but no less than a strip.
inline int64_t tile_edge(int64_t n, int64_t m, int threads) {
  int64_t edge = kTile;
  while (edge > kStrip && ((n + edge - 1) / edge) * ((m + edge - 1) / edge) < 4 * threads) edge /= 2;
  return edge;
}

inline int64_t condensed_row(int64_t i, int64_t n) {
  return i * n - i * (i + 1) / 2 - i - 1;
}  // + j is the place of (i, j)

}  // namespace bertft
