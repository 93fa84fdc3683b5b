// Wrappers of the kernels over rows (pairwise_distance, cross_moments, rdm_moments, nearest) for bind_cpu.cpp, which
// registers them. They check sizes, allocate, pass pointers, and refuse rows that a metric
// cannot take.
#pragma once
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <tuple>
#include <vector>

#include "bad_row.h"
#include "check.h"
#include "cpu/cross_moments.h"
#include "cpu/nearest.h"
#include "cpu/pairwise_distance.h"
#include "cpu/rdm_correlation.h"

namespace bertft::binding {
namespace {  // included once, by bind_cpu.cpp

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// x with unit stride in the last dimension and rows that do not overlap, copied if need be.
inline Tensor rows_in_order(const Tensor& x) {
  const int64_t k = x.dim();
  const bool fine = x.numel() == 0 || ((x.size(k - 1) <= 1 || x.stride(k - 1) == 1) &&
                                       (x.size(k - 2) <= 1 || x.stride(k - 2) >= x.size(k - 1)));
  return fine ? x : torch::stable::contiguous(x);
}

inline Matrix matrix(const Tensor& x, int64_t layer = 0) {  // x (N, D), or (L, N, D) and its layer
  const int64_t k = x.dim();
  Matrix m{x.const_data_ptr(), Element::float32, x.size(k - 2), x.size(k - 1), x.size(k - 1)};
  if (m.rows > 1) m.stride = x.stride(k - 2);
  static const double nothing = 0;
  if (!m.data) m.data = &nothing;  // an empty tensor has no address, and null means that there is no such matrix
  int64_t bytes = 4;
  switch (x.scalar_type()) {
    case ScalarType::Float:
      break;
    case ScalarType::Double:
      m.element = Element::float64, bytes = 8;
      break;
    case ScalarType::BFloat16:
      m.element = Element::bfloat16, bytes = 2;
      break;
    case ScalarType::Half:
      m.element = Element::float16, bytes = 2;
      break;
    default:
      BERTFT_CHECK(false, "rows must be float64, float32, bfloat16 or float16");
  }
  if (k == 3) m.data = static_cast<const char*>(m.data) + layer * x.stride(0) * bytes;
  return m;
}

inline void refuse(const char* op, BadRow bad, int64_t rows_x, int64_t layer) {
  if (bad.row < 0) return;
  const bool of_x = bad.row < rows_x;
  raise_bad_row(op, of_x ? "x" : "y", of_x ? bad.row : bad.row - rows_x, layer, bad.why == BadRow::no_norm);
}

inline ScalarType result_type(const Tensor& x) {
  return x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline int64_t pairs(int64_t n) { return n * (n - 1) / 2; }

inline void check_pair(const char* op, const Tensor& x, const std::optional<Tensor>& y, int64_t metric) {
  BERTFT_CHECK(x.dim() == 3 && metric >= 0 && metric <= 5, op, ": x must be (B, N, D)");
  BERTFT_CHECK(
      !y || (y->dim() == 3 && y->size(0) == x.size(0) && y->size(2) == x.size(2) && result_type(*y) == result_type(x)),
      op, ": y must be (B, M, D) of the type of x");
}

template <class T>
void pairwise_distance(const Tensor& x, const std::optional<Tensor>& y, int64_t metric, bool condensed, bool check,
                       Tensor& out, const Pool& pool) {
  const int64_t n = x.size(1), each = condensed ? pairs(n) : n * (y ? y->size(1) : n);
  for (int64_t b = 0; b < x.size(0); ++b) {
    const PairwiseDistance<T> problem{matrix(x, b), y ? matrix(*y, b) : Matrix{}, Metric(metric), condensed,
                                      static_cast<T*>(out.mutable_data_ptr()) + b * each};
    if (each == 0) continue;
    const BadRow bad = pairwise_distance_cpu(problem, pool);
    if (check) refuse("pairwise_distance", bad, n, b);
  }
}

template <class T>
void pairwise_distance_backward(const Tensor& grad, const Tensor& x, const std::optional<Tensor>& y, const Tensor& out,
                                int64_t metric, bool condensed, Tensor& grad_x, Tensor& grad_y, const Pool& pool) {
  const int64_t n = x.size(1), m = y ? y->size(1) : n, d = x.size(2), each = condensed ? pairs(n) : n * m;
  for (int64_t b = 0; b < x.size(0) && d > 0; ++b) {
    const PairwiseDistanceGrad<T> problem{matrix(x, b),
                                          y ? matrix(*y, b) : Matrix{},
                                          Metric(metric),
                                          condensed,
                                          static_cast<const T*>(grad.const_data_ptr()) + b * grad.stride(0),
                                          condensed ? 0 : grad.stride(1),
                                          grad.stride(condensed ? 1 : 2),
                                          static_cast<const T*>(out.const_data_ptr()) + b * each,
                                          static_cast<T*>(grad_x.mutable_data_ptr()) + b * n * d,
                                          static_cast<T*>(grad_y.mutable_data_ptr()) + (y ? b * m * d : 0)};
    pairwise_distance_backward_cpu(problem, pool);
  }
}

// The six tensors of bertft/ops/moments/layout.py; those without elements are left out.
struct MomentTensors {
  Tensor gram_x, stats_x, cross, stats_xy, gram_y, stats_y;
};

inline double* target(Tensor& t, int64_t elements) {
  if (t.numel() == 0) return nullptr;
  BERTFT_CHECK(t.numel() == elements && t.is_contiguous() && t.scalar_type() == ScalarType::Double,
               "cross_moments: a sum has the wrong size, type or layout");
  return static_cast<double*>(t.mutable_data_ptr());
}

inline void cross_moments(const Tensor& x_in, const std::optional<Tensor>& y_in, const Tensor& mean_x,
                          const std::optional<Tensor>& mean_y, int64_t metric_x, int64_t metric_y, bool float64,
                          bool check, bool add, MomentTensors& sums, const Pool& pool) {
  BERTFT_CHECK(x_in.dim() == 2 && mean_x.is_contiguous() && mean_x.numel() == x_in.size(1) &&
                   mean_x.scalar_type() == ScalarType::Double,
               "cross_moments: x must be (n, D), mean_x (D,) float64");
  BERTFT_CHECK(!y_in || (y_in->dim() == 2 && y_in->size(0) == x_in.size(0) && mean_y && mean_y->is_contiguous() &&
                         mean_y->numel() == y_in->size(1) && mean_y->scalar_type() == ScalarType::Double),
               "cross_moments: y must be (n, E), mean_y (E,) float64");
  BERTFT_CHECK(metric_x >= 0 && metric_x <= 3 && metric_y >= 0 && metric_y <= 3, "cross_moments: unknown metric");
  const Tensor x = rows_in_order(x_in), y = y_in ? rows_in_order(*y_in) : x;
  const int64_t d = x.size(1), e = y_in ? y.size(1) : 0;
  CrossMoments m{};
  m.x = matrix(x), m.metric_x = Metric(metric_x), m.mean_x = static_cast<const double*>(mean_x.const_data_ptr());
  if (y_in) m.y = matrix(y), m.mean_y = static_cast<const double*>(mean_y->const_data_ptr());
  m.metric_y = Metric(metric_y), m.add = add;
  m.gram_x = target(sums.gram_x, d * d), m.stats_x = target(sums.stats_x, 3 * d + 6);
  m.cross = target(sums.cross, d * e), m.stats_xy = target(sums.stats_xy, 2 * (d + e) + 4);
  m.gram_y = target(sums.gram_y, e * e), m.stats_y = target(sums.stats_y, 3 * e + 6);
  BERTFT_CHECK(y_in || !(m.cross || m.stats_xy || m.gram_y || m.stats_y), "cross_moments: sums of y without y");
  if (x.size(0) == 0) return;
  constexpr int64_t kSmall = 128;  // columns up to which float64 products cost about as much as preparing the rows
  const bool wide = float64 || std::max(d, e) <= kSmall || result_type(x) == ScalarType::Double ||
                    result_type(y) == ScalarType::Double;
  const BadRow bad = wide ? cross_moments_cpu<double>(m, check, pool) : cross_moments_cpu<float>(m, check, pool);
  if (check) refuse("cross_moments", bad, x.size(0), -1);
}

// Sums (P,), products (P, P), shifts (P,), within (P,) of P = L + M layers.
inline std::tuple<Tensor, Tensor, Tensor, Tensor> rdm_moments(const Tensor& x_in, const std::optional<Tensor>& y_in,
                                                              int64_t metric_x, int64_t metric_y, bool ranks,
                                                              bool float64, bool check, const Pool& pool) {
  BERTFT_CHECK(x_in.dim() == 3 && (!y_in || (y_in->dim() == 3 && y_in->size(1) == x_in.size(1))),
               "rdm_moments: x must be (L, N, D), y (M, N, E)");
  BERTFT_CHECK(metric_x >= 0 && metric_x <= 5 && metric_y >= 0 && metric_y <= 5, "rdm_moments: unknown metric");
  const Tensor x = rows_in_order(x_in), y = y_in ? rows_in_order(*y_in) : x;
  const int64_t L = x.size(0), M = y_in ? y.size(0) : 0, P = L + M;
  const auto zeros = [&](std::vector<int64_t> sizes) { return torch::stable::new_zeros(x, sizes, ScalarType::Double); };
  Tensor sums = zeros({P}), products = zeros({P, P}), shifts = zeros({P}), within = zeros({P});
  const auto pointer = [](Tensor& t) { return static_cast<double*>(t.mutable_data_ptr()); };
  RdmTiles problem{{}, {}, {}, L, ranks, pointer(sums), pointer(products), pointer(shifts), pointer(within)};
  bool wide = float64;
  std::vector<int64_t> without_ranks;  // NaN has no rank
  for (int64_t l = 0; l < P; ++l) {
    const bool of_x = l < L;
    problem.layers.push_back(of_x ? matrix(x, l) : matrix(y, l - L));
    problem.metrics.push_back(Metric(of_x ? metric_x : metric_y));
    wide = wide || problem.layers[l].element == Element::float64;
    problem.forms.emplace_back(x.size(1));
    BadRow bad = row_forms(problem.layers[l], problem.metrics[l], problem.forms[l].data(), pool);
    if (!check && ranks && bad.row >= 0) without_ranks.push_back(l);
    if (!check) continue;
    if (bad.row >= 0 && !of_x) bad.row += x.size(1);
    refuse("rdm_correlation", bad, x.size(1), of_x ? l : l - L);
  }
  if (P > 0 && x.size(1) > 1) (wide ? rdm_tiles_cpu<double> : rdm_tiles_cpu<float>)(problem, pool);
  for (int64_t l : without_ranks)
    for (int64_t k = 0; k < P; ++k)
      problem.products[l * P + k] = problem.products[k * P + l] = std::numeric_limits<double>::quiet_NaN();
  return {sums, products, shifts, within};
}

// Merges tile (m, n) into the lists value (m, k), place (m, k) of its rows and, unless they are empty, down_... (n, k)
// of its columns; `first` and `down_first` are the positions of the tile's first column and row.
template <class T>
void nearest(const Tensor& tile, Tensor& value, Tensor& place, int64_t first, Tensor& down_value, Tensor& down_place,
             int64_t down_first, const Pool& pool) {
  const int64_t m = tile.size(0), n = tile.size(1), k = value.size(1);
  const bool both = down_value.numel() > 0;
  const auto fits = [&](const Tensor& t, int64_t lines, ScalarType type) {
    return t.dim() == 2 && t.size(0) == lines && t.size(1) == k && t.is_contiguous() && t.scalar_type() == type;
  };
  BERTFT_CHECK(k > 0 && tile.is_contiguous() && fits(value, m, tile.scalar_type()) &&
                   fits(place, m, ScalarType::Long) &&
                   (!both || (fits(down_value, n, tile.scalar_type()) && fits(down_place, n, ScalarType::Long))),
               "nearest: lists must be contiguous (lines, k)");
  const Best<T> across{static_cast<T*>(value.mutable_data_ptr()), static_cast<int64_t*>(place.mutable_data_ptr()),
                       first};
  Best<T> down{nullptr, nullptr, down_first};
  if (both) {
    down.value = static_cast<T*>(down_value.mutable_data_ptr());
    down.place = static_cast<int64_t*>(down_place.mutable_data_ptr());
  }
  nearest_cpu<T>(static_cast<const T*>(tile.const_data_ptr()), m, n, k, across, down, pool);
}

}  // namespace
}  // namespace bertft::binding
