// Rows are read two or three times (sums, then the form), after the first time from a near cache.
#include "rows.h"

#ifdef __AVX__
#include <immintrin.h>
#endif

#include <algorithm>
#include <cmath>
#include <limits>

#include "half.h"
#include "simd.h"

namespace bertft {
namespace {

constexpr double kConstantRow = 1e-13;  // centred norm over norm below which a row counts as constant
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kRescaled = 0;  // the scale that row_forms stores for a row whose form belongs to a rescaled copy

// As many floats as a vector holds doubles.
typedef float Floats __attribute__((vector_size(BERTFT_VECTOR_BYTES / 2)));
constexpr int W = kLanes<double>;

Vector<double> wide(Floats f) {
#if defined(__AVX__) && BERTFT_VECTOR_BYTES == 32  // GCC 12 converts the halves apart
  return Vector<double>(_mm256_cvtps_pd(__m128(f)));
#else
  return __builtin_convertvector(f, Vector<double>);
#endif
}
Vector<double> wide(const float* from) {
  Floats f;
  std::memcpy(&f, from, sizeof f);
  return wide(f);
}
Vector<double> wide(const double* from) { return load(from); }

// Rounds v to T, stores it, and returns it as it was stored.
Vector<double> rounded(float* to, Vector<double> v) {
  const Floats f = __builtin_convertvector(v, Floats);
  std::memcpy(to, &f, sizeof f);
  return wide(f);
}
Vector<double> rounded(double* to, Vector<double> v) {
  store(to, v);
  return v;
}

template <class S>
double sum(const S* row, int64_t d) {
  Vector<double> s[4] = {};
  int64_t k = 0;
  for (; k + 4 * W <= d; k += 4 * W)
    for (int part = 0; part < 4; ++part) s[part] += wide(row + k + part * W);
  double total = lane_sum<double>((s[0] + s[1]) + (s[2] + s[3]));
  for (; k < d; ++k) total += double(row[k]);
  return total;
}

// Sum of (row - centre)^2: not finite where a number of the row is not, or where it overflows.
template <class S>
double squares(const S* row, int64_t d, double centre) {
  Vector<double> s[4] = {};
  int64_t k = 0;
  for (; k + 4 * W <= d; k += 4 * W)
    for (int part = 0; part < 4; ++part) {
      const Vector<double> v = wide(row + k + part * W) - centre;
      s[part] += v * v;
    }
  double total = lane_sum<double>((s[0] + s[1]) + (s[2] + s[3]));
  for (; k < d; ++k) total += (double(row[k]) - centre) * (double(row[k]) - centre);
  return total;
}

template <class S>
bool all_finite(const S* row, int64_t d) {
  for (int64_t k = 0; k < d; ++k)
    if (!std::isfinite(row[k])) return false;
  return true;
}

template <class S>
Form unit_norm(const S* row, int64_t d, Metric metric, double total) {
  if (metric == Metric::cosine)
    return total > 0 ? Form{1 / std::sqrt(total), 0, BadRow::none} : Form{kNaN, 0, BadRow::no_norm};
  const double centre = sum(row, d) / double(d), centred = squares(row, d, centre);
  if (!(centred > kConstantRow * kConstantRow * total)) return {kNaN, 0, BadRow::no_norm};
  return {1 / std::sqrt(centred), centre, BadRow::none};
}

// f(row) of row i, the row being of float or double.
template <class F>
auto with_row(const Matrix& x, int64_t i, double* buffer, const F& f) {
  const int64_t at = i * x.stride;
  if (x.element == Element::float32) return f(static_cast<const float*>(x.data) + at);
  if (x.element == Element::float64) return f(static_cast<const double*>(x.data) + at);
  widen(x.element == Element::float16, static_cast<const uint16_t*>(x.data) + at, x.dim, buffer);
  return f(static_cast<const double*>(buffer));
}

bool extreme(double squares) { return !(squares > 1e-280 && squares < 1e280); }

// f(row, form) of row i. A row that underflows or overflows when squared is rescaled first; `form` is that of the copy.
template <class F>
auto with_form(const Matrix& x, int64_t i, Metric metric, double* buffer, const F& f) {
  return with_row(x, i, buffer, [&](const auto* row) {
    const int64_t d = x.dim;
    const double total = squares(row, d, 0);
    if (!std::isfinite(total) && !all_finite(row, d)) return f(row, Form{kNaN, 0, BadRow::not_finite});
    if (!normalised(metric)) return f(row, Form{1, 0, BadRow::none});
    if (!extreme(total)) return f(row, unit_norm(row, d, metric, total));
    double most = 0;
    for (int64_t k = 0; k < d; ++k) most = std::max(most, std::fabs(double(row[k])));
    for (int64_t k = 0; k < d; ++k) buffer[k] = most > 0 ? double(row[k]) / most : 0;
    const double* const rescaled = buffer;
    return f(rescaled, unit_norm(rescaled, d, metric, squares(rescaled, d, 0)));
  });
}

}  // namespace

namespace {

// A row of a panel (column_products.h): knowing its length at compile time saves 2 % of cross_moments.
template <class T>
inline constexpr int64_t kPanelRun = 3 * kLanes<T>;

struct Sums {
  Vector<double> squares, with_mean;
  double rest, rest_with_mean;  // of the numbers that fill no vector
};

// Prefetches numbers begin.. of the row after row i.
void fetch_next(const Matrix& x, int64_t i, int64_t begin, int64_t count) {
  if (i + 1 >= x.rows) return;
  const int64_t size = x.element == Element::float64 ? 8 : x.element == Element::float32 ? 4 : 2;
  const char* from = static_cast<const char*>(x.data) + ((i + 1) * x.stride + begin) * size;
  for (int64_t at = 0; at < count * size; at += 64) __builtin_prefetch(from + at, 0, 2);
}

// to[k] = form of row[k] less mean[k], k < count.
template <class T, class S>
[[gnu::always_inline]] inline void fill_run(const S* row, Form form, const double* mean, int64_t count, T* to,
                                            Sums& sums) {
  Vector<double> s[2] = {}, t[2] = {};
  int64_t k = 0;
  for (; k + 2 * W <= count; k += 2 * W)
    for (int half = 0; half < 2; ++half) {
      const int64_t at = k + half * W;
      const Vector<double> m = load(mean + at), v = rounded(to + at, (wide(row + at) - form.centre) * form.scale - m);
      s[half] += v * v;
      t[half] += v * m;
    }
  sums.squares += s[0] + s[1], sums.with_mean += t[0] + t[1];
  for (; k < count; ++k) {
    to[k] = T((double(row[k]) - form.centre) * form.scale - mean[k]);
    sums.rest += double(to[k]) * double(to[k]), sums.rest_with_mean += double(to[k]) * mean[k];
  }
}

}  // namespace

// Works run by run rather than row by row, so that writes are contiguous. A row is prefetched while the previous one is
// read for the first time: when its form is computed or, if that is known, here.
template <class T>
BadRow prepare_group(const Matrix& x, int64_t i, int64_t rows, Metric metric, const double* mean, double* buffer,
                     Runs<T> to, double* squares, double* with_mean, const Form* known) {
  struct {
    const float* narrow;
    const double* wide;
    Form form;
    Sums sums;
  } of[kGroupRows] = {};
  BadRow bad;
  for (int64_t r = 0; r < rows; ++r) {
    const auto take = [&](const auto* row, Form form) {
      if constexpr (sizeof *row == sizeof(float))
        of[r].narrow = row;
      else
        of[r].wide = row;
      of[r].form = form;
      return 0;
    };
    if (known && known[r].scale != kRescaled)
      with_row(x, i + r, buffer + r * x.dim, [&](const auto* row) { return take(row, known[r]); });
    else
      fetch_next(x, i + r, 0, x.dim), with_form(x, i + r, metric, buffer + r * x.dim, take);
    if (of[r].form.why != BadRow::none && bad.row < 0) bad = {i + r, of[r].form.why};
  }
  for (int64_t begin = 0; begin < x.dim; begin += to.run, to.at += to.stride) {
    const int64_t count = std::min(to.run, x.dim - begin);
    for (int64_t r = 0; r < rows; ++r) {
      auto& a = of[r];
      if (known) fetch_next(x, i + r, begin, count);
      T* const out = to.at + r * to.row;
      if (a.wide)
        fill_run(a.wide + begin, a.form, mean + begin, count, out, a.sums);
      else if (count == kPanelRun<T>)
        fill_run(a.narrow + begin, a.form, mean + begin, kPanelRun<T>, out, a.sums);
      else
        fill_run(a.narrow + begin, a.form, mean + begin, count, out, a.sums);
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    squares[r] = lane_sum<double>(of[r].sums.squares) + of[r].sums.rest;
    with_mean[r] = lane_sum<double>(of[r].sums.with_mean) + of[r].sums.rest_with_mean;
  }
  return bad;
}

template BadRow prepare_group<float>(const Matrix&, int64_t, int64_t, Metric, const double*, double*, Runs<float>,
                                     double*, double*, const Form*);
template BadRow prepare_group<double>(const Matrix&, int64_t, int64_t, Metric, const double*, double*, Runs<double>,
                                      double*, double*, const Form*);

namespace {

constexpr int64_t kRowsPerTask = 128;
static_assert(kRowsPerTask % kGroupRows == 0);

// The first bad row in order; f(i, rows, buffer) looks for it among at most kGroupRows rows from i on.
template <class F>
BadRow each_group(const Matrix& x, const Pool& pool, const F& f) {
  const int64_t tasks = (x.rows + kRowsPerTask - 1) / kRowsPerTask;
  std::vector<BadRow> found(tasks);
  parallel_tasks(pool, tasks, [&](int, int64_t task) {
    std::vector<double> buffer(kGroupRows * x.dim);
    const int64_t end = std::min(x.rows, (task + 1) * kRowsPerTask);
    for (int64_t i = task * kRowsPerTask; i < end; i += kGroupRows) {
      const BadRow bad = f(i, std::min(kGroupRows, end - i), buffer.data());
      if (found[task].row < 0) found[task] = bad;
    }
  });
  for (const BadRow& bad : found)
    if (bad.row >= 0) return bad;
  return {};
}

}  // namespace

BadRow find_bad_row(const Matrix& x, Metric metric, const Pool& pool) {
  return each_group(x, pool, [&](int64_t first, int64_t rows, double* buffer) {
    for (int64_t i = first; i < first + rows; ++i) {
      const auto why = with_form(x, i, metric, buffer, [](const auto*, Form form) { return form.why; });
      if (why != BadRow::none) return BadRow{i, why};
    }
    return BadRow{};
  });
}

BadRow row_forms(const Matrix& x, Metric metric, Form* forms, const Pool& pool) {
  return each_group(x, pool, [&](int64_t first, int64_t rows, double* buffer) {
    BadRow bad;
    for (int64_t i = first; i < first + rows; ++i) {
      bool rescaled = false;
      forms[i] = with_form(x, i, metric, buffer, [&](const auto* row, Form form) {
        rescaled = static_cast<const void*>(row) == buffer;
        return form;
      });
      if (forms[i].why != BadRow::none && bad.row < 0) bad = {i, forms[i].why};
      if (rescaled && forms[i].why == BadRow::none) forms[i].scale = kRescaled;
    }
    return bad;
  });
}

template <class T>
BadRow prepare_rows(const Matrix& x, Metric metric, const double* mean, T* u, T* squares, const Pool& pool) {
  return each_group(x, pool, [&](int64_t i, int64_t rows, double* buffer) {
    double square[kGroupRows], unused[kGroupRows];
    const Runs<T> to{u + i * x.dim, x.dim, x.dim, 0};
    const BadRow bad = prepare_group(x, i, rows, metric, mean, buffer, to, square, unused);
    std::copy_n(square, rows, squares + i);
    return bad;
  });
}

template BadRow prepare_rows<float>(const Matrix&, Metric, const double*, float*, float*, const Pool&);
template BadRow prepare_rows<double>(const Matrix&, Metric, const double*, double*, double*, const Pool&);

void sample_mean(const Matrix& x, Metric metric, int64_t most, double* mean) {
  std::vector<double> buffer(x.dim);
  std::fill_n(mean, x.dim, 0.0);
  int64_t used = 0;
  const int64_t count = std::min(most, x.rows);
  for (int64_t s = 0; s < count; ++s)  // spread over all rows: the first may all come from one sentence
    used += with_form(x, s * x.rows / count, metric, buffer.data(), [&](const auto* row, Form form) {
      if (form.why != BadRow::none) return 0;
      for (int64_t k = 0; k < x.dim; ++k) mean[k] += form.scale * (double(row[k]) - form.centre);
      return 1;
    });
  for (int64_t k = 0; k < x.dim && used; ++k) mean[k] /= double(used);
}

}  // namespace bertft
