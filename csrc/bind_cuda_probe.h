// Losses of structural probes on a GPU: one call, and the steps of a training over words that are split once.
#pragma once
#include "bind_cuda_split.h"

namespace bertft::binding {
namespace {  // included once, by bind_cuda.cpp

// Sentences as the kernel takes them. counts, on the host: tiles, those of long sentences, words of the longest
// sentence, sentences that have words, words, pairs.
struct Plan {
  const Tensor &tiles, &counts;
  int64_t operator[](int k) const { return static_cast<const int64_t*>(counts.const_data_ptr())[k]; }
};

// Targets of the losses: packed distances and depths.
struct Golds {
  const Tensor &distances, &depths;
};

// tiles (K, 3) and counts (6,) of lengths (S,), all on the CPU.
std::tuple<Tensor, Tensor> probe_plan(Tensor lengths) {
  BERTFT_CHECK(lengths.is_cpu() && lengths.scalar_type() == ScalarType::Long && lengths.dim() == 1,
               "probe_loss: lengths must be a vector of int64 on the CPU");
  lengths = torch::stable::contiguous(lengths);
  const auto* n = static_cast<const long long*>(lengths.const_data_ptr());
  Tensor counts = empty(lengths, {6}, ScalarType::Long);
  auto* count = static_cast<int64_t*>(counts.mutable_data_ptr());
  std::fill_n(count, 6, 0);
  for (int64_t s = 0; s < lengths.size(0); ++s) {
    BERTFT_CHECK(n[s] >= 0, "probe_loss: lengths[", s, "] is negative (", n[s], ")");
    count[3] += n[s] > 0, count[4] += n[s], count[5] += n[s] * n[s];
  }
  int found[3];
  probe_loss_plan(n, lengths.size(0), nullptr, found);
  std::copy_n(found, 3, count);
  Tensor tiles = empty(lengths, {found[0], 3}, ScalarType::Long);
  probe_loss_plan(n, lengths.size(0), tiles.mutable_data_ptr(), found);
  return {tiles, counts};
}

// Loss (L, 2) and, unless it has no layers, dp (L, T, R) of points p (L, T, R).
void loss_of_points(const Tensor& p, int64_t distance_rank, const Golds& golds, const Plan& plan, Tensor loss,
                    Tensor dp, cudaStream_t stream) {
  const int64_t L = p.size(0), T = p.size(1), R = p.size(2);
  const Tensor partial = empty(p, {L, plan[0], 2}, ScalarType::Double);
  check_launch("probe_loss",
               probe_loss_launch(p.const_data_ptr(), golds.distances.const_data_ptr(), golds.depths.const_data_ptr(),
                                 plan.tiles.const_data_ptr(), int(plan[0]), int(plan[1]), int(plan[2]), plan[3],
                                 code(p), distance_rank ? code(golds.distances) : code(p), int(L), T, int(R),
                                 int(distance_rank), dp.size(0) ? dp.mutable_data_ptr() : nullptr,
                                 data<double>(partial), loss.mutable_data_ptr(), stream));
}

// Matrices (L, n, d) as two halves (csrc/cuda/split_across.cuh).
struct SplitMatrix {
  Tensor halves, largest;
  int64_t layers, n, d;
};

SplitMatrix split_matrix(const char* op, const Tensor& u, cudaStream_t stream) {
  const int64_t L = u.size(0), n = u.size(1), d = u.size(2);
  long long bytes = 0;
  int ignored = 0;
  split_matrix_bytes(&bytes, &ignored, n, int(d));
  SplitMatrix of{empty(u, {L, bytes / 2}, ScalarType::Half), empty(u, {L}, ScalarType::Int), L, n, d};
  check_launch(op, split_matrix_launch(u.const_data_ptr(), of.halves.mutable_data_ptr(), data<unsigned>(of.largest),
                                       code(u), int(L), n, int(d), stream));
  return of;
}

// a b (L, n, m) of a (L, n, k) and b (L, k, m).
Tensor product_of(const char* op, const SplitMatrix& a, const SplitMatrix& b, bool fast, cudaStream_t stream) {
  const Tensor out = empty(a.halves, {a.layers, a.n, b.d}, ScalarType::Float);
  check_launch(op, split_product_launch(a.halves.const_data_ptr(), data<unsigned>(a.largest), b.halves.const_data_ptr(),
                                        data<unsigned>(b.largest), data<float>(out), int(a.layers), a.n, int(a.d),
                                        int(b.d), fast, stream));
  return out;
}

// u'v (L, d, e) of u (L, n, d) and v (L, n, e), into `out`.
void sum_of(const char* op, const SplitMatrix& u, const SplitMatrix& v, bool fast, const Tensor& out,
            cudaStream_t stream) {
  constexpr int64_t kPartialBytes = 1 << 28;
  long long bytes = 0;
  int rows = 1;
  split_matrix_bytes(&bytes, &rows, u.n, int(u.d));
  const int64_t size = u.layers * u.d * v.d, ranges = (u.n + rows - 1) / rows;
  const int64_t most = std::clamp<int64_t>(kPartialBytes / (4 * size), 1, std::min<int64_t>(ranges, 65535));
  const Tensor partial = empty(u.halves, {most, size}, ScalarType::Float);
  const Tensor total = empty(u.halves, {most < ranges ? size : 0}, ScalarType::Double);
  check_launch(op, split_sum_launch(u.halves.const_data_ptr(), data<unsigned>(u.largest), v.halves.const_data_ptr(),
                                    data<unsigned>(v.largest), data<float>(partial), int(most), data<double>(total),
                                    data<float>(out), int(u.layers), u.n, int(u.d), int(v.d), fast, stream));
}

// Loss of split words, and the gradient in weight (L, D, R) unless it has no layers.
void step_on_core(const SplitMatrix& h, const Tensor& weight, int64_t distance_rank, const Golds& golds,
                  const Plan& plan, bool fast, Tensor loss, Tensor dp, Tensor grad_weight, cudaStream_t stream) {
  constexpr const char* op = "probe_loss";
  const Tensor p = product_of(op, h, split_matrix(op, weight, stream), fast, stream);
  loss_of_points(p, distance_rank, golds, plan, loss, dp, stream);
  if (grad_weight.size(0)) sum_of(op, h, split_matrix(op, dp, stream), fast, grad_weight, stream);
}

// Some layers of t (L, ...), or t if it has none.
Tensor layers_of(const Tensor& t, int64_t first, int64_t count) {
  Tensor of = t;
  return t.size(0) ? torch::stable::narrow(of, 0, first, count) : of;
}

void check_golds(const Tensor& like, int64_t distance_rank, int64_t rank, const Golds& golds, const Plan& plan) {
  check_beside("probe_loss", like, {&golds.distances, &golds.depths});
  BERTFT_CHECK(distance_rank >= 0 && distance_rank <= rank, "probe_loss: distance_rank out of range");
  BERTFT_CHECK(distance_rank == 0 || golds.distances.numel() == plan[5], "probe_loss: distances has ",
               golds.distances.numel(), " entries, expected ", plan[5]);
  BERTFT_CHECK(distance_rank == rank || golds.depths.numel() == plan[4], "probe_loss: depths has ",
               golds.depths.numel(), " entries, expected ", plan[4]);
}

std::tuple<Tensor, Tensor, Tensor> probe_loss(Tensor h, Tensor weight, int64_t distance_rank, Tensor distances,
                                              Tensor depths, Tensor lengths, bool with_weight, bool with_h, bool fast,
                                              int64_t kind, bool check) {
  constexpr int64_t kHalvesBytes = 2ll << 30;  // of split words at once
  BERTFT_CHECK(kind >= -1 && kind <= 1 && !check, "probe_loss: kind must be -1, 0 or 1, and check is of the CPU");
  if (kind >= 0) distance_rank = kind == 0 ? weight.size(2) : 0;
  const OnDevice on(weight);
  check_beside("probe_loss", weight, {&h});
  const ScalarType type = weight.scalar_type();
  const int64_t L = h.size(0), T = h.size(1), D = h.size(2), R = weight.size(2);
  const bool on_core = type == ScalarType::Float && R >= kLeastColumns && split_core(h, T, D, on.stream);
  h = torch::stable::contiguous(on_core ? h : torch::stable::to(h, type));
  for (Tensor* t : {&weight, &distances, &depths}) *t = torch::stable::contiguous(*t);
  const auto [on_host, counts] = probe_plan(lengths);
  const Tensor tiles = torch::stable::to(on_host, weight.device());
  const Plan plan{tiles, counts};
  const Golds golds{distances, depths};
  BERTFT_CHECK(plan[4] == T, "probe_loss: lengths sum to ", plan[4], ", but h has ", T, " words");
  check_golds(weight, distance_rank, R, golds, plan);

  Tensor loss = empty(weight, {L, 2}, type), dp = empty(weight, {with_weight || with_h ? L : 0, T, R}, type);
  Tensor grad_weight = empty(weight, {with_weight ? L : 0, D, R}, type);
  if (on_core) {
    const int64_t group = std::clamp<int64_t>(kHalvesBytes / (4 * T * D), 1, std::max<int64_t>(L, 1));
    for (int64_t first = 0; first < L; first += group) {
      const int64_t count = std::min(group, L - first);
      const auto part = [&](const Tensor& t) { return layers_of(t, first, count); };
      const SplitMatrix words = split_matrix("probe_loss", part(h), on.stream);
      step_on_core(words, part(weight), distance_rank, golds, plan, fast, part(loss), part(dp), part(grad_weight),
                   on.stream);
    }
  } else {
    loss_of_points(torch::stable::contiguous(torch::stable::matmul(h, weight)), distance_rank, golds, plan, loss, dp,
                   on.stream);
    if (with_weight) grad_weight = torch::stable::matmul(torch::stable::transpose(h, 1, 2), dp);
  }
  const int64_t ranks[2] = {distance_rank, R - distance_rank};
  Tensor grad_h = empty(weight, {with_h ? (ranks[0] > 0) + (ranks[1] > 0) : 0, L, T, D}, type);
  for (int64_t k = 0, slot = 0; with_h && k < 2; ++k) {
    if (ranks[k] == 0) continue;
    const int64_t first = k ? distance_rank : 0;
    Tensor own = torch::stable::narrow(dp, 2, first, ranks[k]);
    Tensor b = torch::stable::narrow(weight, 2, first, ranks[k]);
    Tensor to = torch::stable::select(grad_h, 0, slot++);
    torch::stable::copy_(to, torch::stable::matmul(own, torch::stable::transpose(b, 1, 2)));
  }
  if (kind < 0) return {loss, grad_weight, grad_h};
  Tensor alone = empty(weight, {L}, type);
  torch::stable::copy_(alone, torch::stable::select(loss, 1, kind));
  return {alone, grad_weight, grad_h};
}

// h (L, T, D) as two halves (L, P, C, 2, 32), P and C rounded up as split_across.cuh says, and largest (L,).
std::tuple<Tensor, Tensor> probe_words(Tensor h) {
  const OnDevice on(h);
  BERTFT_CHECK(h.dim() == 3 && h.size(2) > 0, "probe_words: h must be (L, T, D)");
  h = torch::stable::contiguous(h);
  const int64_t L = h.size(0), T = h.size(1);
  SplitMatrix of = split_matrix("probe_words", h, on.stream);
  const int64_t padded = (T + 127) / 128 * 128, lines = (h.size(2) + 127) / 128 * 4;
  return {torch::stable::view(of.halves, {L, padded, lines, 2, 32}), of.largest};
}

// Loss (L, 2) and gradient in weight (L, D, R) of split words; copies nothing to or from the host.
std::tuple<Tensor, Tensor> probe_step(Tensor halves, Tensor largest, int64_t words, Tensor weight,
                                      int64_t distance_rank, Tensor distances, Tensor depths, Tensor tiles,
                                      Tensor counts, bool with_weight, bool fast) {
  const OnDevice on(weight);
  check_beside("probe_step", weight, {&halves, &largest, &tiles});
  for (Tensor* t : {&weight, &distances, &depths}) *t = torch::stable::contiguous(*t);
  const int64_t L = weight.size(0), D = weight.size(1), R = weight.size(2);
  BERTFT_CHECK(halves.is_contiguous() && halves.scalar_type() == ScalarType::Half && halves.dim() == 5 &&
                   halves.size(0) == L && halves.size(1) == (words + 127) / 128 * 128 &&
                   halves.size(2) == (D + 127) / 128 * 4 && largest.numel() == L && largest.is_contiguous() &&
                   weight.scalar_type() == ScalarType::Float,
               "probe_step: split words and weight do not fit");
  BERTFT_CHECK(counts.is_cpu() && counts.numel() == 6 && counts.scalar_type() == ScalarType::Long,
               "probe_step: counts must be those of a plan");
  const Plan plan{tiles, counts};
  const Golds golds{distances, depths};
  BERTFT_CHECK(plan[4] == words && tiles.size(0) == plan[0], "probe_step: the plan is of other sentences");
  check_golds(weight, distance_rank, R, golds, plan);
  Tensor loss = empty(weight, {L, 2}, ScalarType::Float);
  Tensor grad = empty(weight, {with_weight ? L : 0, D, R}, ScalarType::Float);
  const Tensor dp = empty(weight, {with_weight ? L : 0, words, R}, ScalarType::Float);
  const SplitMatrix h{halves, largest, L, words, D};
  step_on_core(h, weight, distance_rank, golds, plan, fast, loss, dp, grad, on.stream);
  return {loss, grad};
}

}  // namespace
}  // namespace bertft::binding
