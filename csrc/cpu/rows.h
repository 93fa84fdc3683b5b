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

// Reads row i into `row` (dim doubles); correlation subtracts its mean, it and cosine divide by the norm. A row of norm
// 0 becomes NaN there. Correlation calls a row constant when its centred norm is below 1e-13 of its norm.
BadRow::Why metric_row(const Matrix& x, int64_t i, Metric metric, double* row);

// The first bad row of x, in order of rows.
BadRow find_bad_row(const Matrix& x, Metric metric, const Pool& pool);

// u (rows, dim) = metric rows - mean, squares[i] = |u_i|^2 of the rounded u; mean null for 0.
template <class T>
BadRow prepare_rows(const Matrix& x, Metric metric, const double* mean, T* u, T* squares, const Pool& pool);

// mean (dim) of at most the first `most` metric rows.
void sample_mean(const Matrix& x, Metric metric, int64_t most, double* mean);

}  // namespace bertft
