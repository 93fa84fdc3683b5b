// One row at a time, through a buffer of doubles that stays in the first-level cache.
#include "rows.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "half.h"
#include "simd.h"

namespace bertft {
namespace {

constexpr double kConstantRow = 1e-13;  // centred norm over norm below which a row counts as constant

void read_row(const Matrix& x, int64_t i, double* row) {
  const int64_t d = x.dim, at = i * x.stride;
  switch (x.element) {
    case Element::float32: {
      const float* from = static_cast<const float*>(x.data) + at;
      for (int64_t k = 0; k < d; ++k) row[k] = from[k];
      break;
    }
    case Element::float64:
      std::copy_n(static_cast<const double*>(x.data) + at, d, row);
      break;
    default:
      widen(x.element == Element::float16, static_cast<const uint16_t*>(x.data) + at, d, row);
  }
}

struct Sums {
  double sum, squares;
};

// NaN or infinity anywhere makes both sums NaN or infinite.
Sums sums(const double* row, int64_t d) {
  constexpr int W = kLanes<double>;
  Vector<double> s[2] = {}, q[2] = {};
  int64_t k = 0;
  for (; k + 2 * W <= d; k += 2 * W)
    for (int half = 0; half < 2; ++half) {
      const Vector<double> v = load(row + k + half * W);
      s[half] += v;
      q[half] += v * v;
    }
  Sums total{lane_sum<double>(s[0] + s[1]), lane_sum<double>(q[0] + q[1])};
  for (; k < d; ++k) total.sum += row[k], total.squares += row[k] * row[k];
  return total;
}

double largest(const double* row, int64_t d) {
  double most = 0;
  for (int64_t k = 0; k < d; ++k) most = std::max(most, std::fabs(row[k]));
  return most;
}

bool all_finite(const double* row, int64_t d) {
  for (int64_t k = 0; k < d; ++k)
    if (!std::isfinite(row[k])) return false;
  return true;
}

BadRow::Why unit_norm(double* row, int64_t d, Metric metric, Sums total) {
  if (!(total.squares > 1e-280 && total.squares < 1e280)) {  // rescale what would underflow or overflow when squared
    const double most = largest(row, d);
    if (most > 0)
      for (int64_t k = 0; k < d; ++k) row[k] /= most;
    total = sums(row, d);
  }
  const double before = total.squares;
  if (metric == Metric::correlation) {
    const double mean = total.sum / double(d);
    for (int64_t k = 0; k < d; ++k) row[k] -= mean;
    total = sums(row, d);
  }
  const bool zero = !(total.squares > (metric == Metric::correlation ? kConstantRow * kConstantRow * before : 0));
  const double scale = zero ? std::numeric_limits<double>::quiet_NaN() : 1 / std::sqrt(total.squares);
  for (int64_t k = 0; k < d; ++k) row[k] *= scale;
  return zero ? BadRow::no_norm : BadRow::none;
}

}  // namespace

BadRow::Why metric_row(const Matrix& x, int64_t i, Metric metric, double* row) {
  read_row(x, i, row);
  const Sums total = sums(row, x.dim);
  if (!std::isfinite(total.squares) && !all_finite(row, x.dim)) {
    std::fill_n(row, x.dim, std::numeric_limits<double>::quiet_NaN());
    return BadRow::not_finite;
  }
  return normalised(metric) ? unit_norm(row, x.dim, metric, total) : BadRow::none;
}

namespace {

constexpr int64_t kRowsPerTask = 128;

int64_t row_tasks(int64_t rows) { return (rows + kRowsPerTask - 1) / kRowsPerTask; }

BadRow first_bad(const std::vector<BadRow>& found) {
  for (const BadRow& bad : found)
    if (bad.row >= 0) return bad;
  return {};
}

// f(i, row) for every row of x, in its metric's form.
template <class F>
BadRow each_row(const Matrix& x, Metric metric, const Pool& pool, const F& f) {
  std::vector<BadRow> found(row_tasks(x.rows));
  parallel_tasks(pool, row_tasks(x.rows), [&](int, int64_t task) {
    std::vector<double> row(x.dim);
    const int64_t end = std::min(x.rows, (task + 1) * kRowsPerTask);
    for (int64_t i = task * kRowsPerTask; i < end; ++i) {
      const BadRow::Why why = metric_row(x, i, metric, row.data());
      if (why != BadRow::none && found[task].row < 0) found[task] = {i, why};
      f(i, row.data());
    }
  });
  return first_bad(found);
}

}  // namespace

BadRow find_bad_row(const Matrix& x, Metric metric, const Pool& pool) {
  return each_row(x, metric, pool, [](int64_t, const double*) {});
}

template <class T>
BadRow prepare_rows(const Matrix& x, Metric metric, const double* mean, T* u, T* squares, const Pool& pool) {
  const int64_t d = x.dim;
  return each_row(x, metric, pool, [&](int64_t i, double* row) {
    T* out = u + i * d;
    for (int64_t k = 0; k < d; ++k) out[k] = T(mean ? row[k] - mean[k] : row[k]);
    for (int64_t k = 0; k < d; ++k) row[k] = out[k];
    squares[i] = T(sums(row, d).squares);
  });
}

template BadRow prepare_rows<float>(const Matrix&, Metric, const double*, float*, float*, const Pool&);
template BadRow prepare_rows<double>(const Matrix&, Metric, const double*, double*, double*, const Pool&);

void sample_mean(const Matrix& x, Metric metric, int64_t most, double* mean) {
  std::vector<double> row(x.dim);
  std::fill_n(mean, x.dim, 0.0);
  int64_t used = 0;
  const int64_t count = std::min(most, x.rows);
  for (int64_t s = 0; s < count; ++s) {  // spread over all rows: the first may all come from one sentence
    if (metric_row(x, s * x.rows / count, metric, row.data()) != BadRow::none) continue;
    for (int64_t k = 0; k < x.dim; ++k) mean[k] += row[k];
    ++used;
  }
  for (int64_t k = 0; k < x.dim && used; ++k) mean[k] /= double(used);
}

}  // namespace bertft
