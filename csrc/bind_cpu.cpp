// Torch bindings of the CPU kernels: every op schema in one block, through torch's stable ABI.
//
// To add an op <op>:
//   1. csrc/cpu/<op>.h and .cpp: <op>_cpu on raw pointers and a Pool (parallel.h), products through gemm.h, no torch
//      header, one implementation templated on float and double. Every .cpp under csrc/cpu is compiled and linked.
//   2. Here: its schema in the block below, a wrapper that allocates outputs and passes pointers, and its m.impl line.
//      Inputs come checked, contiguous and of the right type from Python; BERTFT_CHECK only guards the memory.
//   3. bertft/ops/<op>.py: argument checks (BertftError), the function, and `cpu.on_load(_register)`, where _register
//      calls torch.library.register_fake and register_autograd; export it from bertft/ops/__init__.py.
//   4. bertft/ops/reference.py: the formula in plain PyTorch, used where no kernel is available.
//   5. tests/ops/test_<op>.py: values, gradcheck, opcheck and compile, properties, bad input.
// Use nothing newer than torch 2.10: TORCH_TARGET_VERSION (set by the build) hides it.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <tuple>
#include <vector>

#include "bind_rows.h"
#include "cpu/gemm.h"
#include "cpu/parallel.h"
#include "cpu/probe_loss.h"

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

namespace {

bertft::Pool torch_pool() {
  return {int(torch::stable::get_num_threads()),
          [](int64_t begin, int64_t end, int64_t grain, bertft::Pool::Body body, void* context) {
            BERTFT_CHECK(torch_parallel_for(begin, end, grain, body, context) == 0, "a parallel loop failed");
          }};
}

// For `bertft doctor`: the instruction sets of this build, and the source of its matrix products.
std::string cpu_capability() {
  std::string sets;
#if defined(__AVX512F__)
  sets = "avx512";
#elif defined(__AVX2__) && defined(__FMA__)
  sets = "avx2";
#else
  sets = "generic";
#endif
  return sets + " " + bertft::gemm_provider();
}

// torch::stable::new_empty looks its op up by name at every call, which takes as long as a small problem.
Tensor empty(const std::vector<int64_t>& sizes, ScalarType type) {
  std::vector<int64_t> strides(sizes.size(), 1);
  for (size_t k = sizes.size(); k-- > 1;) strides[k - 1] = strides[k] * std::max<int64_t>(sizes[k], 1);
  const auto code = torch::stable::detail::to<int32_t>(torch::stable::detail::from(type));
  AtenTensorHandle made = nullptr;
  BERTFT_CHECK(aoti_torch_empty_strided(int64_t(sizes.size()), sizes.data(), strides.data(), code,
                                        aoti_torch_device_type_cpu(), 0, &made) == 0,
               "a tensor cannot be allocated");
  return Tensor(made);
}

template <class T>
std::tuple<Tensor, Tensor, Tensor> probe_loss(const Tensor& h, const Tensor& weight, int64_t distance_rank,
                                              const Tensor& distances, const Tensor& depths, const Tensor& lengths,
                                              bool with_weight, bool with_h, int64_t kind, bool check) {
  const ScalarType type = weight.scalar_type();
  const int64_t k = h.dim() - 2, L = weight.size(0), T_ = h.size(k), D = h.size(k + 1), R = weight.size(2);
  const int64_t S = lengths.size(0);
  const int64_t kinds = (distance_rank > 0) + (distance_rank < R);
  const auto* n = static_cast<const int64_t*>(lengths.const_data_ptr());
  int64_t words = 0, pairs = 0;
  for (int64_t s = 0; s < S; ++s) {
    BERTFT_CHECK(n[s] >= 0 && n[s] <= T_, "probe_loss: lengths[", s, "] is ", n[s], ", outside 0..", T_);
    words += n[s], pairs += n[s] * n[s];
  }
  BERTFT_CHECK(words == T_, "probe_loss: lengths sum to ", words, ", but h has ", T_, " words");
  BERTFT_CHECK(distance_rank == 0 || distances.numel() == pairs, "probe_loss: distances has ", distances.numel(),
               " entries, expected ", pairs);
  BERTFT_CHECK(distance_rank == R || depths.numel() == T_, "probe_loss: depths has ", depths.numel(),
               " entries, expected ", T_);
  Tensor loss = kind < 0 ? empty({L, 2}, type) : empty({L}, type);
  Tensor grad_weight = empty({with_weight ? L : 0, D, R}, type);
  Tensor grad_h = empty({with_h ? kinds : 0, L, T_, D}, type);
  bertft::ProbeLoss<T> problem{};
  problem.layers = L, problem.words = T_, problem.dim = D, problem.rank = R;
  problem.distance_rank = distance_rank;
  problem.sentences = S, problem.lengths = n;
  problem.h = h.const_data_ptr();
  problem.layer_stride = k == 0 ? 0 : h.stride(0);
  problem.word_stride = T_ > 1 ? h.stride(k) : D;  // a single row may carry any stride
  problem.storage = h.scalar_type() == ScalarType::BFloat16 ? bertft::Storage::bfloat16
                    : h.scalar_type() == ScalarType::Half   ? bertft::Storage::float16
                                                            : bertft::Storage::same;
  problem.weight = static_cast<const T*>(weight.const_data_ptr());
  problem.distances = distances.const_data_ptr();
  problem.distances_are_bytes = distances.scalar_type() == ScalarType::Byte;
  problem.depths = static_cast<const T*>(depths.const_data_ptr());
  auto* out = static_cast<T*>(loss.mutable_data_ptr());
  std::vector<T> both(size_t(kind < 0 ? 0 : 2 * L));
  const T* losses = problem.loss = kind < 0 ? out : both.data();
  problem.grad_weight = with_weight ? static_cast<T*>(grad_weight.mutable_data_ptr()) : nullptr;
  problem.grad_h = with_h ? static_cast<T*>(grad_h.mutable_data_ptr()) : nullptr;
  bertft::probe_loss_cpu(problem, torch_pool());
  for (int64_t l = 0; kind >= 0 && l < L; ++l) out[l] = losses[2 * l + kind];
  for (int64_t l = 0; check && l < 2 * L; ++l)
    BERTFT_CHECK(std::isfinite(losses[l]), "probe_loss: a loss of layer ", l / 2, " is not finite");
  return {loss, grad_weight, grad_h};
}

// h of float32, float64 or a half type with unit stride in D and rows that do not overlap; weight contiguous, in the
// type of the computation, as are distances (or uint8) and depths; lengths int64. All contiguous but h.
std::tuple<Tensor, Tensor, Tensor> probe_loss_dispatch(Tensor h, Tensor weight, int64_t distance_rank, Tensor distances,
                                                       Tensor depths, Tensor lengths, bool with_weight, bool with_h,
                                                       bool /*fast: of GPUs*/, int64_t kind, bool check) {
  const ScalarType type = weight.scalar_type();
  const int64_t k = h.dim() - 2;
  BERTFT_CHECK(
      weight.dim() == 3 && (k == 0 || (k == 1 && h.size(0) == weight.size(0))) && h.size(k + 1) == weight.size(1),
      "probe_loss: h must be (L, T, D) or (T, D), and weight (L, D, R)");
  BERTFT_CHECK(weight.size(2) > 0 && distances.dim() == 1 && depths.dim() == 1 && lengths.dim() == 1,
               "probe_loss: weight must have columns; distances, depths and lengths must have one dimension");
  BERTFT_CHECK(type == ScalarType::Float || type == ScalarType::Double,
               "probe_loss: weight must be float32 or float64");
  BERTFT_CHECK(
      h.scalar_type() == type || h.scalar_type() == ScalarType::BFloat16 || h.scalar_type() == ScalarType::Half,
      "probe_loss: h must have the type of weight or a half type");
  BERTFT_CHECK(kind >= -1 && kind <= 1, "probe_loss: kind must be -1, 0 or 1");
  if (kind >= 0) distance_rank = kind == 0 ? weight.size(2) : 0;
  BERTFT_CHECK(distance_rank >= 0 && distance_rank <= weight.size(2), "probe_loss: distance_rank out of range");
  BERTFT_CHECK(
      (distance_rank == weight.size(2) || depths.scalar_type() == type) &&
          (distance_rank == 0 || distances.scalar_type() == type || distances.scalar_type() == ScalarType::Byte) &&
          lengths.scalar_type() == ScalarType::Long,
      "probe_loss: distances, depths or lengths have a wrong type");
  if (h.numel() > 0 && ((h.size(k + 1) > 1 && h.stride(k + 1) != 1) || (h.size(k) > 1 && h.stride(k) < h.size(k + 1))))
    h = torch::stable::contiguous(h);
  for (Tensor* t : {&weight, &distances, &depths, &lengths})
    if (!t->is_contiguous()) *t = torch::stable::contiguous(*t);  // a dispatcher call even if nothing is to do
  return (type == ScalarType::Float ? probe_loss<float> : probe_loss<double>)(h, weight, distance_rank, distances,
                                                                              depths, lengths, with_weight, with_h,
                                                                              kind, check);
}

// x (B, N, D), y (B, M, D) or none; all rows of one type, halves give float32.
Tensor pairwise_distance(Tensor x, std::optional<Tensor> y, int64_t metric, bool condensed, bool check, bool) {
  bertft::binding::check_pair("pairwise_distance", x, y, metric);
  x = bertft::binding::rows_in_order(x);
  if (y) y = bertft::binding::rows_in_order(*y);
  const int64_t B = x.size(0), N = x.size(1), M = y ? y->size(1) : N;
  const ScalarType type = bertft::binding::result_type(x);
  Tensor out = condensed ? empty({B, bertft::binding::pairs(N)}, type) : empty({B, N, M}, type);
  (type == ScalarType::Double
       ? bertft::binding::pairwise_distance<double>
       : bertft::binding::pairwise_distance<float>)(x, y, metric, condensed, check, out, torch_pool());
  return out;
}

std::tuple<Tensor, Tensor> pairwise_distance_backward(Tensor grad, Tensor x, std::optional<Tensor> y, Tensor out,
                                                      int64_t metric, bool condensed) {
  bertft::binding::check_pair("pairwise_distance_backward", x, y, metric);
  const ScalarType type = bertft::binding::result_type(x);
  const int64_t B = x.size(0), N = x.size(1), D = x.size(2);
  const int64_t each = condensed ? bertft::binding::pairs(N) : N * (y ? y->size(1) : N);
  BERTFT_CHECK(grad.scalar_type() == type && out.scalar_type() == type && grad.dim() == (condensed ? 2 : 3) &&
                   grad.size(0) == B && grad.numel() == B * each && out.numel() == grad.numel(),
               "pairwise_distance_backward: grad must be like the output");
  x = bertft::binding::rows_in_order(x);
  if (y) y = bertft::binding::rows_in_order(*y);
  out = torch::stable::contiguous(out);
  Tensor grad_x = empty({B, N, D}, type), grad_y = empty({y ? B : 0, y ? y->size(1) : 0, D}, type);
  (type == ScalarType::Double ? bertft::binding::pairwise_distance_backward<double>
                              : bertft::binding::pairwise_distance_backward<float>)(grad, x, y, out, metric, condensed,
                                                                                    grad_x, grad_y, torch_pool());
  return {grad_x, grad_y};
}

using SixTensors = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

SixTensors cross_moments(Tensor x, std::optional<Tensor> y, Tensor mean_x, std::optional<Tensor> mean_y,
                         int64_t metric_x, int64_t metric_y, bool grams, bool float64, bool check, bool) {
  const int64_t D = x.size(1), E = y ? y->size(1) : 0;
  const auto zeros = [&](bool wanted, int64_t size) {
    return torch::stable::new_zeros(x, {wanted ? size : 0}, ScalarType::Double);
  };
  const bool written = x.size(0) > 0;  // the kernel writes nothing without rows
  const auto matrix = [&](bool wanted, int64_t rows, int64_t columns) {
    const std::vector<int64_t> sizes{wanted ? rows : 0, wanted ? columns : 0};
    return written ? empty(sizes, ScalarType::Double) : torch::stable::new_zeros(x, sizes, ScalarType::Double);
  };
  const bool of_x = grams || !y, of_y = grams && y;
  bertft::binding::MomentTensors m{matrix(of_x, D, D),          zeros(of_x, 3 * D + 6),
                                   matrix(y.has_value(), D, E), zeros(y.has_value(), 2 * (D + E) + 4),
                                   matrix(of_y, E, E),          zeros(of_y, 3 * E + 6)};
  bertft::binding::cross_moments(x, y, mean_x, mean_y, metric_x, metric_y, float64, check, !written, m, torch_pool());
  return {m.gram_x, m.stats_x, m.cross, m.stats_xy, m.gram_y, m.stats_y};
}

void cross_moments_add(Tensor x, std::optional<Tensor> y, Tensor mean_x, std::optional<Tensor> mean_y, int64_t metric_x,
                       int64_t metric_y, bool float64, bool check, Tensor gram_x, Tensor stats_x, Tensor cross,
                       Tensor stats_xy, Tensor gram_y, Tensor stats_y, bool) {
  bertft::binding::MomentTensors m{gram_x, stats_x, cross, stats_xy, gram_y, stats_y};
  bertft::binding::cross_moments(x, y, mean_x, mean_y, metric_x, metric_y, float64, check, true, m, torch_pool());
}

void nearest(Tensor tile, Tensor value, Tensor place, int64_t first, Tensor down_value, Tensor down_place,
             int64_t down_first) {
  const ScalarType type = tile.scalar_type();
  BERTFT_CHECK(type == ScalarType::Double || type == ScalarType::Float, "nearest: tile must be float32 or float64");
  (type == ScalarType::Double
       ? bertft::binding::nearest<double>
       : bertft::binding::nearest<float>)(tile, value, place, first, down_value, down_place, down_first, torch_pool());
}

std::tuple<Tensor, Tensor, Tensor, Tensor> rdm_moments(Tensor x, std::optional<Tensor> y, int64_t metric_x,
                                                       int64_t metric_y, bool ranks, bool float64, bool check) {
  return bertft::binding::rdm_moments(x, y, metric_x, metric_y, ranks, float64, check, torch_pool());
}

}  // namespace

// Shapes: L, M layers; N stimuli; T packed words; S sentences; D hidden size; R probe rank.
STABLE_TORCH_LIBRARY(bertft, m) {
  m.def("cpu_capability() -> str");
  // h (L, T, D), or (T, D) for all layers, weight (L, D, R: first the columns of the distance probe), distances packed
  // (sum n_s^2), depths (T,), lengths (S,) -> loss (L, 2), grad_weight (L, D, R) and grad_h (K, L, T, D) of the K kinds
  // that have columns. A gradient that is not wanted has a first size of 0. fast: float32 products may be of float16.
  // kind: -1, or the only one, 0 distance or 1 depth, whose loss is then (L,); distance_rank is not read. check: a loss
  // that is not finite is an error; on the CPU only.
  m.def(
      "probe_loss(Tensor h, Tensor weight, int distance_rank, Tensor distances, Tensor depths, Tensor lengths, bool "
      "with_weight, bool with_h, bool fast, int kind=-1, bool check=False) -> (Tensor loss, Tensor grad_weight, Tensor "
      "grad_h)");
  // x (B, N, D), y (B, M, D) -> (B, N, M), or (B, N (N-1) / 2) when condensed; metric: index in ops/metrics.py; check:
  // a row that is not finite, or has no norm where one is needed, is an error. Here and below fast: products of float16
  // on tensor cores; the CPU has none and ignores it.
  m.def("pairwise_distance(Tensor x, Tensor? y, int metric, bool condensed, bool check, bool fast=False) -> Tensor");
  // Gradients with respect to the rows in their metric's form.
  m.def(
      "pairwise_distance_backward(Tensor grad, Tensor x, Tensor? y, Tensor out, int metric, bool condensed) -> "
      "(Tensor grad_x, Tensor grad_y)");
  // x (n, D), y (n, E), mean_x (D,), mean_y (E,) -> the float64 sums of ops/moments/layout.py; empty if left out.
  m.def(
      "cross_moments(Tensor x, Tensor? y, Tensor mean_x, Tensor? mean_y, int metric_x, int metric_y, bool grams, bool "
      "float64, bool check, bool fast=False) -> (Tensor gram_x, Tensor stats_x, Tensor cross, Tensor stats_xy, Tensor "
      "gram_y, Tensor "
      "stats_y)");
  // The same, added to existing sums; empty ones are left out.
  m.def(
      "cross_moments_add(Tensor x, Tensor? y, Tensor mean_x, Tensor? mean_y, int metric_x, int metric_y, bool float64, "
      "bool check, Tensor(a!) gram_x, Tensor(b!) stats_x, Tensor(c!) cross, Tensor(d!) stats_xy, Tensor(e!) gram_y, "
      "Tensor(f!) stats_y, bool fast=False) -> ()");
  // Merges a tile of similarities into the lists of the largest of its rows, and of its columns unless those are empty.
  m.def(
      "nearest(Tensor tile, Tensor(a!) value, Tensor(b!) place, int first, Tensor(c!) down_value, Tensor(d!) "
      "down_place, "
      "int down_first) -> ()");
  // x (L, N, D), y (M, N, E) -> second moments of entries, or of their ranks, over the pairs of stimuli i < j, of P = L
  // + M layers: sums (P,), products (P, P), shifts (P,), within (P,); see cpu/rdm_correlation.h.
  m.def(
      "rdm_moments(Tensor x, Tensor? y, int metric_x, int metric_y, bool ranks, bool float64, bool check) -> (Tensor "
      "sums, Tensor products, Tensor shifts, Tensor within)");
}

STABLE_TORCH_LIBRARY_IMPL(bertft, CompositeExplicitAutograd, m) {
  m.impl("cpu_capability", TORCH_BOX(&cpu_capability));
}

STABLE_TORCH_LIBRARY_IMPL(bertft, CPU, m) {
  m.impl("probe_loss", TORCH_BOX(&probe_loss_dispatch));
  m.impl("pairwise_distance", TORCH_BOX(&pairwise_distance));
  m.impl("pairwise_distance_backward", TORCH_BOX(&pairwise_distance_backward));
  m.impl("cross_moments", TORCH_BOX(&cross_moments));
  m.impl("cross_moments_add", TORCH_BOX(&cross_moments_add));
  m.impl("nearest", TORCH_BOX(&nearest));
  m.impl("rdm_moments", TORCH_BOX(&rdm_moments));
}
