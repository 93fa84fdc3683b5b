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

struct Sums {
  double sum, squares;
};

// As many floats as a vector holds doubles.
typedef float Floats __attribute__((vector_size(BERTFT_VECTOR_BYTES / 2)));
constexpr int W = kLanes<double>;

Vector<double> wide(const float* from) {
  Floats f;
  std::memcpy(&f, from, sizeof f);
  return __builtin_convertvector(f, Vector<double>);
}
Vector<double> wide(const double* from) { return load(from); }

// Rounds v to T, stores it, and returns it as it was stored.
Vector<double> rounded(float* to, Vector<double> v) {
  const Floats f = __builtin_convertvector(v, Floats);
  std::memcpy(to, &f, sizeof f);
  return __builtin_convertvector(f, Vector<double>);
}
Vector<double> rounded(double* to, Vector<double> v) {
  store(to, v);
  return v;
}

// Copies a row into doubles. NaN or infinity anywhere makes both sums NaN or infinite.
template <class T>
Sums read_row(const T* from, int64_t d, double* row) {
  Vector<double> s[2] = {}, q[2] = {};
  int64_t k = 0;
  for (; k + 2 * W <= d; k += 2 * W)
    for (int half = 0; half < 2; ++half) {
      const Vector<double> v = wide(from + k + half * W);
      store(row + k + half * W, v);
      s[half] += v;
      q[half] += v * v;
    }
  Sums total{lane_sum<double>(s[0] + s[1]), lane_sum<double>(q[0] + q[1])};
  for (; k < d; ++k) {
    row[k] = from[k];
    total.sum += row[k], total.squares += row[k] * row[k];
  }
  return total;
}

Sums sums(double* row, int64_t d) { return read_row(row, d, row); }

Sums read_row(const Matrix& x, int64_t i, double* row) {
  const int64_t at = i * x.stride;
  if (x.element == Element::float32) return read_row(static_cast<const float*>(x.data) + at, x.dim, row);
  if (x.element == Element::float64) return read_row(static_cast<const double*>(x.data) + at, x.dim, row);
  widen(x.element == Element::float16, static_cast<const uint16_t*>(x.data) + at, x.dim, row);
  return sums(row, x.dim);
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

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

MetricRow unit_norm(double* row, int64_t d, Metric metric, Sums total) {
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
  if (!(total.squares > (metric == Metric::correlation ? kConstantRow * kConstantRow * before : 0)))
    return {kNaN, BadRow::no_norm};
  return {1 / std::sqrt(total.squares), BadRow::none};
}

}  // namespace

MetricRow metric_row(const Matrix& x, int64_t i, Metric metric, double* row) {
  const Sums total = read_row(x, i, row);
  if (!std::isfinite(total.squares) && !all_finite(row, x.dim)) return {kNaN, BadRow::not_finite};
  return normalised(metric) ? unit_norm(row, x.dim, metric, total) : MetricRow{1, BadRow::none};
}

template <class T>
double round_row(const double* row, double scale, const double* mean, int64_t dim, T* u, double* with_mean) {
  Vector<double> s[2] = {}, t[2] = {};
  int64_t k = 0;
  for (; k + 2 * W <= dim; k += 2 * W)
    for (int half = 0; half < 2; ++half) {
      const int64_t at = k + half * W;
      const Vector<double> m = load(mean + at), v = rounded(u + at, load(row + at) * scale - m);
      s[half] += v * v;
      t[half] += v * m;
    }
  double square = lane_sum<double>(s[0] + s[1]), product = lane_sum<double>(t[0] + t[1]);
  for (; k < dim; ++k) {
    u[k] = T(row[k] * scale - mean[k]);
    square += double(u[k]) * double(u[k]), product += double(u[k]) * mean[k];
  }
  *with_mean = product;
  return square;
}

template double round_row<float>(const double*, double, const double*, int64_t, float*, double*);
template double round_row<double>(const double*, double, const double*, int64_t, double*, double*);

namespace {

constexpr int64_t kRowsPerTask = 128;

int64_t row_tasks(int64_t rows) { return (rows + kRowsPerTask - 1) / kRowsPerTask; }

BadRow first_bad(const std::vector<BadRow>& found) {
  for (const BadRow& bad : found)
    if (bad.row >= 0) return bad;
  return {};
}

// f(i, row, scale) for every row of x.
template <class F>
BadRow each_row(const Matrix& x, Metric metric, const Pool& pool, const F& f) {
  std::vector<BadRow> found(row_tasks(x.rows));
  parallel_tasks(pool, row_tasks(x.rows), [&](int, int64_t task) {
    std::vector<double> row(x.dim);
    const int64_t end = std::min(x.rows, (task + 1) * kRowsPerTask);
    for (int64_t i = task * kRowsPerTask; i < end; ++i) {
      const MetricRow form = metric_row(x, i, metric, row.data());
      if (form.why != BadRow::none && found[task].row < 0) found[task] = {i, form.why};
      f(i, row.data(), form.scale);
    }
  });
  return first_bad(found);
}

}  // namespace

BadRow find_bad_row(const Matrix& x, Metric metric, const Pool& pool) {
  return each_row(x, metric, pool, [](int64_t, const double*, double) {});
}

template <class T>
BadRow prepare_rows(const Matrix& x, Metric metric, const double* mean, T* u, T* squares, const Pool& pool) {
  return each_row(x, metric, pool, [&](int64_t i, const double* row, double scale) {
    double unused;
    squares[i] = T(round_row(row, scale, mean, x.dim, u + i * x.dim, &unused));
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
    const MetricRow form = metric_row(x, s * x.rows / count, metric, row.data());
    if (form.why != BadRow::none) continue;
    for (int64_t k = 0; k < x.dim; ++k) mean[k] += form.scale * row[k];
    ++used;
  }
  for (int64_t k = 0; k < x.dim && used; ++k) mean[k] /= double(used);
}

}  // namespace bertft
