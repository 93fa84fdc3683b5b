// Sums over stimuli behind linear-time similarity; see cross_moments.cpp and bertft/ops/moments/layout.py.
#pragma once
#include <cstdint>

#include "parallel.h"
#include "rows.h"

namespace bertft {

struct CrossMoments {
  Matrix x, y;  // rows of the same stimuli; y.data null: one space
  Metric metric_x, metric_y;
  const double *mean_x, *mean_y;                                   // (D,), (E,)
  double *gram_x, *stats_x, *cross, *stats_xy, *gram_y, *stats_y;  // added to; null: left out
  bool add;                                                        // false: gram_x, cross, gram_y are written
};

// Rows and products have type T. If a row is bad and `check` is set, nothing is added; rows of y count on from those of
// x.
template <class T>
BadRow cross_moments_cpu(const CrossMoments& problem, bool check, const Pool& pool);

}  // namespace bertft
