// Torch bindings of the CUDA kernels, through torch's stable ABI; the schemas are those of bind_cpu.cpp.
//
// Every op: device guard, the current stream, outputs and scratch from torch's allocator, launch, check of the launch.
// Inputs come checked from Python. No CUDA header is needed: the launchers of csrc/cuda are plain C functions.
#include "bind_cuda.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <optional>
#include <tuple>

#include "bind_cuda_gradient.h"
#include "bind_cuda_probe.h"

namespace bertft::binding {
namespace {

constexpr int kRankBins = 1 << 16;
// Of entries at once. Ranks make them three times where these are not all.
constexpr long long kSumBytes = 1ll << 29, kRankBytes = 1ll << 31;
constexpr int64_t kChunk = 4096;  // rows of one float32 product; further sums are double

// Statistics that the metric needs of the rows of x (B, N, D); without elements where it needs none.
Tensor statistics(const Tensor& x, int64_t metric, const Tensor* bad, cudaStream_t stream) {
  const bool needed = normalised(Metric(metric));
  const int64_t rows = x.size(0) * x.size(1);
  Tensor stats = empty(x, {needed ? rows : 0, 2}, sum_type(x));
  const Tensor ignored = bad ? *bad : empty(x, {2}, ScalarType::Long);
  if (needed || bad) {
    check_launch("pairwise_distance",
                 row_statistics_launch(x.const_data_ptr(), needed ? stats.mutable_data_ptr() : nullptr,
                                       data<long long>(ignored), code(x), int(metric), rows, int(x.size(2)), stream));
  }
  return stats;
}

const Tensor* given(const std::optional<Tensor>& t) { return t ? &*t : nullptr; }

Tensor pairwise_distance(Tensor x, std::optional<Tensor> y, int64_t metric, bool condensed, bool check, bool fast) {
  const OnDevice on(x);
  check_beside("pairwise_distance", x, {given(y)});
  x = torch::stable::contiguous(x);
  if (y) y = torch::stable::contiguous(*y);
  const int64_t B = x.size(0), N = x.size(1), M = y ? y->size(1) : N, D = x.size(2);
  if (B > 0 && Metric(metric) != Metric::manhattan && split_core(x, std::min(N, M), D, on.stream)) {
    return split_distance(x, y, metric, condensed, check, fast ? kHigh : kBoth, on.stream);
  }
  const Tensor bad = empty(x, {2}, ScalarType::Long);
  const Tensor stats_x = statistics(x, metric, check ? &bad : nullptr, on.stream);
  if (check) refuse("pairwise_distance", bad, N);
  const Tensor stats_y = y ? statistics(*y, metric, check ? &bad : nullptr, on.stream) : stats_x;
  if (check && y) refuse("pairwise_distance", bad, M, "y");
  Tensor out =
      empty(x, condensed ? std::vector<int64_t>{B, N * (N - 1) / 2} : std::vector<int64_t>{B, N, M}, sum_type(x));
  if (out.numel() == 0) return out;
  check_launch("pairwise_distance",
               pairwise_distance_launch(x.const_data_ptr(), y ? y->const_data_ptr() : nullptr, pointer(stats_x),
                                        pointer(stats_y), out.mutable_data_ptr(), nullptr, 0, code(x), int(metric),
                                        int(B), N, M, int(D), condensed, on.stream));
  return out;
}

std::tuple<Tensor, Tensor> pairwise_distance_backward(Tensor grad, Tensor x, std::optional<Tensor> y, Tensor out,
                                                      int64_t metric, bool condensed) {
  const OnDevice on(x);
  check_beside("pairwise_distance_backward", x, {&grad, given(y), &out});
  for (Tensor* t : {&grad, &x, &out}) *t = torch::stable::contiguous(*t);
  if (y) y = torch::stable::contiguous(*y);
  const int64_t B = x.size(0), N = x.size(1), M = y ? y->size(1) : N, D = x.size(2);
  Tensor grad_x = empty(x, {B, N, D}, sum_type(x)), grad_y = empty(x, {y ? B : 0, y ? M : 0, D}, sum_type(x));
  const Tensor stats_x = statistics(x, metric, nullptr, on.stream);
  const Tensor stats_y = y ? statistics(*y, metric, nullptr, on.stream) : stats_x;
  const void* distances = Metric(metric) == Metric::euclidean ? out.const_data_ptr() : nullptr;
  const auto run = [&](const void* a, const void* b, const Tensor& sa, const Tensor& sb, int64_t n, int64_t m,
                       Tensor& to, bool transposed) {
    if (to.numel() == 0) return;
    check_launch("pairwise_distance_backward",
                 pairwise_gradient_launch(a, b, pointer(sa), pointer(sb), grad.const_data_ptr(), distances,
                                          to.mutable_data_ptr(), code(x), int(metric), int(B), n, m, int(D), condensed,
                                          transposed, on.stream));
  };
  const void *px = x.const_data_ptr(), *py = y ? y->const_data_ptr() : nullptr;
  run(px, py, stats_x, stats_y, N, M, grad_x, false);
  if (y) run(py, px, stats_y, stats_x, M, N, grad_y, true);
  return {grad_x, grad_y};
}

// Rows of one side in the metric's form (csrc/cuda/cross_moments.cu).
struct Rows {
  Tensor u, a, p;
};

Rows prepare(const Tensor& x, const Tensor& mean, int64_t metric, ScalarType type, const Tensor& bad,
             cudaStream_t stream) {
  const int64_t n = x.size(0), d = x.size(1);
  Rows rows{empty(x, {n, d}, type), empty(x, {n}, ScalarType::Double), empty(x, {n}, ScalarType::Double)};
  check_launch("cross_moments", prepare_rows_launch(x.const_data_ptr(), data<double>(mean), rows.u.mutable_data_ptr(),
                                                    data<double>(rows.a), data<double>(rows.p), data<long long>(bad),
                                                    code(x), code(rows.u), int(metric), n, int(d), stream));
  return rows;
}

// total += u'v, in products of kChunk rows.
void add_product(const Tensor& u, const Tensor& v, const Tensor& total, cudaStream_t stream) {
  for (int64_t first = 0; first < u.size(0); first += kChunk) {
    const int64_t rows = std::min(kChunk, u.size(0) - first);
    Tensor left = u, right = v;
    left = torch::stable::narrow(left, 0, first, rows);
    right = torch::stable::narrow(right, 0, first, rows);
    const Tensor product =
        torch::stable::contiguous(torch::stable::matmul(torch::stable::transpose(left, 0, 1), right));
    check_launch("cross_moments", accumulate_launch(product.const_data_ptr(), data<double>(total), code(product),
                                                    product.numel(), stream));
  }
}

void cross_moments_add(Tensor x, std::optional<Tensor> y, Tensor mean_x, std::optional<Tensor> mean_y, int64_t metric_x,
                       int64_t metric_y, bool float64, bool check, Tensor gram_x, Tensor stats_x, Tensor cross,
                       Tensor stats_xy, Tensor gram_y, Tensor stats_y, bool fast) {
  const OnDevice on(x);
  check_beside("cross_moments", x, {given(y), &mean_x, given(mean_y)});
  x = torch::stable::contiguous(x);
  mean_x = torch::stable::contiguous(mean_x);
  if (y) y = torch::stable::contiguous(*y), mean_y = torch::stable::contiguous(*mean_y);
  for (const Tensor* t : {&gram_x, &stats_x, &cross, &stats_xy, &gram_y, &stats_y}) {
    BERTFT_CHECK(t->numel() == 0 || (t->is_contiguous() && t->scalar_type() == ScalarType::Double),
                 "cross_moments: a sum has the wrong type or layout");
    if (t->numel()) check_beside("cross_moments", x, {t});
  }
  const int64_t n = x.size(0), d = x.size(1), e = y ? y->size(1) : 0;
  const bool wide = float64 || x.scalar_type() == ScalarType::Double || (y && y->scalar_type() == ScalarType::Double);
  const ScalarType type = wide ? ScalarType::Double : ScalarType::Float;
  const Tensor bad = empty(x, {2, 2}, ScalarType::Long);
  int rows_of_block = 1;
  moment_rows_of_block(&rows_of_block);
  const Tensor partial = empty(x, {(n + rows_of_block - 1) / rows_of_block * 3 * std::max(d, e)}, ScalarType::Double);
  const Tensor bad_x = torch::stable::select(bad, 0, 0), bad_y = torch::stable::select(bad, 0, 1);
  const Rows of_x = prepare(x, mean_x, metric_x, type, bad_x, on.stream);
  std::optional<Rows> of_y;
  if (y) of_y = prepare(*y, *mean_y, metric_y, type, bad_y, on.stream);
  if (check) refuse("cross_moments", y ? bad : bad_x, 0);
  if (n == 0) return;
  const auto space = [&](const Rows& rows, const Tensor& stats, int64_t width) {
    if (stats.numel() == 0) return;
    check_launch("cross_moments",
                 space_sums_launch(rows.u.const_data_ptr(), data<double>(rows.a), data<double>(rows.p),
                                   data<double>(partial), data<double>(stats), code(rows.u), n, int(width), on.stream));
  };
  std::optional<SplitColumns> cut_x, cut_y;
  if (!wide && split_core(of_x.u, n, y ? std::min(d, e) : d, on.stream)) {
    const int parts = fast ? kHigh : kBoth;
    cut_x = split_columns(of_x.u, on.stream, parts);
    if (of_y) cut_y = split_columns(of_y->u, on.stream, parts);
  }
  const auto own = [&](const Rows& rows, const std::optional<SplitColumns>& cut, const Tensor& total) {
    if (total.numel() == 0) return;
    cut ? add_split(*cut, nullptr, total, on.stream) : add_product(rows.u, rows.u, total, on.stream);
  };
  own(of_x, cut_x, gram_x);
  space(of_x, stats_x, d);
  if (!of_y) return;
  if (cross.numel()) {
    cut_x ? add_split(*cut_x, &*cut_y, cross, on.stream) : add_product(of_x.u, of_y->u, cross, on.stream);
  }
  own(*of_y, cut_y, gram_y);
  space(*of_y, stats_y, e);
  if (stats_xy.numel()) {
    check_launch("cross_moments", pair_sums_launch(of_x.u.const_data_ptr(), of_y->u.const_data_ptr(),
                                                   data<double>(of_x.a), data<double>(of_x.p), data<double>(of_y->a),
                                                   data<double>(of_y->p), data<double>(partial), data<double>(stats_xy),
                                                   code(of_x.u), n, int(d), int(e), on.stream));
  }
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> cross_moments(Tensor x, std::optional<Tensor> y,
                                                                         Tensor mean_x, std::optional<Tensor> mean_y,
                                                                         int64_t metric_x, int64_t metric_y, bool grams,
                                                                         bool float64, bool check, bool fast) {
  const int64_t D = x.size(1), E = y ? y->size(1) : 0;
  const auto zeros = [&](bool wanted, std::vector<int64_t> sizes) {
    if (!wanted) sizes.assign(sizes.size(), 0);
    return torch::stable::new_zeros(x, sizes, ScalarType::Double);
  };
  const bool of_x = grams || !y, both = y.has_value(), of_y = grams && y;
  Tensor gram_x = zeros(of_x, {D, D}), stats_x = zeros(of_x, {3 * D + 6}), cross = zeros(both, {D, E});
  Tensor stats_xy = zeros(both, {2 * (D + E) + 4}), gram_y = zeros(of_y, {E, E}), stats_y = zeros(of_y, {3 * E + 6});
  cross_moments_add(x, y, mean_x, mean_y, metric_x, metric_y, float64, check, gram_x, stats_x, cross, stats_xy, gram_y,
                    stats_y, fast);
  return {gram_x, stats_x, cross, stats_xy, gram_y, stats_y};
}

Tensor rdm_tiles(Tensor x, std::optional<Tensor> y, int64_t metric_x, int64_t metric_y, int64_t compare, int64_t path,
                 bool check, bool fast) {
  const OnDevice on(x);
  check_beside("rdm_tiles", x, {given(y)});
  x = torch::stable::contiguous(x);
  if (y) y = torch::stable::contiguous(*y);
  BERTFT_CHECK(!y || y->scalar_type() == x.scalar_type(), "rdm_tiles: x and y must be of one type");
  const auto by_products = [](int64_t metric) { return Metric(metric) != Metric::manhattan; };
  if (path < 0) path = by_products(metric_x) && (!y || by_products(metric_y)) && split_core(x, y, on.stream);
  if (path == 1 && fast) path = 2;
  const int64_t L = x.size(0), M = y ? y->size(0) : L, N = x.size(1);
  Tensor out = empty(x, {L, M}, ScalarType::Double), bad = empty(x, {2, 2}, ScalarType::Long);
  long long bytes = 0;
  const auto launch = [&](void* workspace) {
    check_launch("rdm_tiles",
                 rdm_correlation_launch(x.const_data_ptr(), y ? y->const_data_ptr() : nullptr, data<double>(out),
                                        data<long long>(bad), workspace, &bytes, compare > 1 ? kRankBytes : kSumBytes,
                                        code(x), int(path), int(metric_x), int(metric_y), int(compare), int(L), int(M),
                                        N, int(x.size(2)), int(y ? y->size(2) : x.size(2)), kRankBins, on.stream));
  };
  launch(nullptr);
  const Tensor workspace = empty(x, {std::max<int64_t>(bytes, 1)}, ScalarType::Byte);
  launch(workspace.mutable_data_ptr());
  if (check) refuse("rdm_correlation", y ? bad : torch::stable::select(bad, 0, 0), N);
  return out;
}

}  // namespace
}  // namespace bertft::binding

using namespace bertft::binding;

STABLE_TORCH_LIBRARY_FRAGMENT(bertft, m) {
  // x (L, N, D), y (M, N, E) -> (L, M) float64: rdm_correlation by tiles of pairs. metric_x, metric_y: index in
  // ops/metrics.py; compare: too (no kendall); path: 0 FFMA, 1 split rows, -1 the better of them on this card; fast:
  // split rows are their high parts alone.
  m.def(
      "rdm_tiles(Tensor x, Tensor? y, int metric_x, int metric_y, int compare, int path, bool check, bool fast=False) "
      "-> Tensor");
  // Whether products of the rows of x (L, N, D), and of y (M, N, E), go over split rows on this card.
  m.def("split_core(Tensor x, Tensor? y) -> bool");
  // a b' (B, N, M) of a (B, N, K) and b (B, M, K) float32, over split rows, or (fast) their high parts alone.
  m.def("split_product(Tensor a, Tensor b, bool fast=False) -> Tensor");
  // The gradient of pairwise_distance over split rows, as pairwise_distance_backward has it; not for manhattan.
  m.def(
      "split_gradient(Tensor grad, Tensor x, Tensor? y, Tensor out, int metric, bool condensed, bool fast) -> (Tensor "
      "grad_x, Tensor grad_y)");
  // Steps of a training of probes: words split once, sentences planned once. Sizes: bind_cuda_probe.h.
  m.def("probe_words(Tensor h) -> (Tensor halves, Tensor largest)");
  m.def("probe_plan(Tensor lengths) -> (Tensor tiles, Tensor counts)");
  m.def(
      "probe_step(Tensor halves, Tensor largest, int words, Tensor weight, int distance_rank, Tensor distances, Tensor "
      "depths, Tensor tiles, Tensor counts, bool with_weight, bool fast) -> (Tensor loss, Tensor grad_weight)");
}

STABLE_TORCH_LIBRARY_IMPL(bertft, CUDA, m) {
  m.impl("split_core", TORCH_BOX(&core_serves));
  m.impl("split_product", TORCH_BOX(&product));
  m.impl("split_gradient", TORCH_BOX(&split_gradient));
  m.impl("probe_loss", TORCH_BOX(&probe_loss));
  m.impl("probe_words", TORCH_BOX(&probe_words));
  m.impl("probe_step", TORCH_BOX(&probe_step));
  m.impl("pairwise_distance", TORCH_BOX(&pairwise_distance));
  m.impl("pairwise_distance_backward", TORCH_BOX(&pairwise_distance_backward));
  m.impl("cross_moments", TORCH_BOX(&cross_moments));
  m.impl("cross_moments_add", TORCH_BOX(&cross_moments_add));
  m.impl("rdm_tiles", TORCH_BOX(&rdm_tiles));
}

STABLE_TORCH_LIBRARY_IMPL(bertft, CompositeExplicitAutograd, m) { m.impl("probe_plan", TORCH_BOX(&probe_plan)); }
