// Rows of any element type, brought into the form in which a metric takes them: the shared first step of
// pairwise_distance, rdm_correlation and cross_moments. Arithmetic is in double for all types of input and output.
#pragma once
#include <cstdint>
#include <cstring>
#include <vector>

#include "../metric_codes.h"
#include "parallel.h"

namespace bertft {

enum class Element : int { float32, float64, bfloat16, float16 };

struct Matrix {  // n rows of dim elements, unit stride inside a row
  const void* data = nullptr;
  Element element = Element::float32;
  int64_t rows = 0, dim = 0, stride = 0;
};

// A row that a metric cannot take; `row` is -1 if there is none.
struct BadRow {
  enum Why : int { none, not_finite, no_norm };
  int64_t row = -1;
  Why why = none;
};

// Where the numbers of rows are written: of row r, `run` of them start at `at + r row`, the next `run` start `stride`
// further, and so on.
template <class T>
struct Runs {
  T* at;
  int64_t row, run, stride;
};

constexpr int64_t kGroupRows = 16;  // rows prepared together

// A row in its metric's form is scale (row - centre); NaN for a bad row.
struct Form {
  double scale, centre;
  BadRow::Why why;
};

// Rows i.. of at most kGroupRows in their metric's form, less the mean, rounded to T: cosine and correlation divide by
// the norm; correlation first subtracts the row's own mean, and a row whose centred norm is below 1e-13 of its norm
// counts as constant. `buffer` holds kGroupRows dim doubles; `known` is null or the result of row_forms for these rows.
// Sets squares[r] = |u|^2 and with_mean[r] = u.mean of the rounded u, NaN for a bad row, and returns the first bad row.
template <class T>
BadRow prepare_group(const Matrix& x, int64_t i, int64_t rows, Metric metric, const double* mean, double* buffer,
                     Runs<T> to, double* squares, double* with_mean, const Form* known = nullptr);

// The first bad row of x, in order of rows.
BadRow find_bad_row(const Matrix& x, Metric metric, const Pool& pool);

// The same; also sets forms[i] of every row i, for several preparations of the same rows.
BadRow row_forms(const Matrix& x, Metric metric, Form* forms, const Pool& pool);

// u (rows, dim) = metric rows - mean, squares[i] = |u_i|^2 of the rounded u.
template <class T>
BadRow prepare_rows(const Matrix& x, Metric metric, const double* mean, T* u, T* squares, const Pool& pool);

// mean (dim) of at most `most` rows in their metric's form, spread over all rows.
void sample_mean(const Matrix& x, Metric metric, int64_t most, double* mean);

}  // namespace bertft
