// Rows of any element type, brought into the form in which a metric takes them: the shared first step of
// pairwise_distance, rdm_correlation and cross_moments. Arithmetic in double, whatever goes in and comes out.
#pragma once
#include <cstdint>
#include <cstring>
#include <vector>

#include "parallel.h"

namespace bertft {

enum class Metric : int { dot, cosine, correlation, sqeuclidean, euclidean, manhattan };  // order of ops/metrics.py
enum class Element : int { float32, float64, bfloat16, float16 };

struct Matrix {  // n rows of dim elements, unit stride inside a row
  const void* data = nullptr;
  Element element = Element::float32;
  int64_t rows = 0, dim = 0, stride = 0;
};

// A row that a metric cannot take. `row` is -1 where all are fine.
struct BadRow {
  enum Why : int { none, not_finite, no_norm };
  int64_t row = -1;
  Why why = none;
};

inline bool normalised(Metric metric) { return metric == Metric::cosine || metric == Metric::correlation; }

// A row in its metric's form is scale * row; NaN for a bad row.
struct MetricRow {
  double scale;
  BadRow::Why why;
};

// Reads row i into `row` (dim doubles) and finds its scale: 1, or 1 / norm for cosine and correlation, which also has its
// mean subtracted. Correlation calls a row constant when its centred norm is below 1e-13 of its norm.
MetricRow metric_row(const Matrix& x, int64_t i, Metric metric, double* row);

// u = scale * row - mean, rounded to T; returns |u|^2 and sets *with_mean to u.mean, both of the rounded u.
template <class T>
double round_row(const double* row, double scale, const double* mean, int64_t dim, T* u, double* with_mean);

// The first bad row of x, in order of rows.
BadRow find_bad_row(const Matrix& x, Metric metric, const Pool& pool);

// u (rows, dim) = metric rows - mean, squares[i] = |u_i|^2 of the rounded u.
template <class T>
BadRow prepare_rows(const Matrix& x, Metric metric, const double* mean, T* u, T* squares, const Pool& pool);

// mean (dim) of at most the first `most` metric rows.
void sample_mean(const Matrix& x, Metric metric, int64_t most, double* mean);

}  // namespace bertft
