// The gradient of distances over split rows (csrc/cuda/split_gradient.cu).
#pragma once
#include "bind_cuda_split.h"

namespace bertft::binding {
namespace {  // included once, by bind_cuda.cpp

// One operand of a product, of `layers` layers of n rows of d: of_rows are the sums of weights (L, n), or rows (L, n,
// d).
struct GradientSide {
  Tensor halves, largest, of_rows;
};

// Weights are taken by rows, with a power of two of each; points across, with one of each column.
GradientSide gradient_side(const Tensor& like, int64_t layers, int64_t n, int64_t d, bool weights) {
  long long bytes = 0;
  int ignored = 0;
  split_matrix_bytes(&bytes, &ignored, n, int(d));
  return {
      empty(like, {layers, bytes}, ScalarType::Byte), empty(like, {layers, weights ? n : d}, ScalarType::Int),
      empty(like, weights ? std::vector<int64_t>{layers, n} : std::vector<int64_t>{layers, n, d}, ScalarType::Float)};
}

// The rows of x (L, N, D) in the metric's form less mean (L, D).
GradientSide gradient_points(const char* op, const Tensor& x, const Tensor& mean, int64_t metric, cudaStream_t stream) {
  const int64_t L = x.size(0), N = x.size(1), D = x.size(2);
  GradientSide of = gradient_side(x, L, N, D, false);
  const Tensor ignored = empty(x, {L, N}, ScalarType::Float);
  check_launch(op, split_points_launch(x.const_data_ptr(), data<double>(mean), data<float>(of.of_rows),
                                       data<float>(ignored), of.halves.mutable_data_ptr(), data<unsigned>(of.largest),
                                       code(x), int(metric), int(L), N, int(D), stream));
  return of;
}

// The gradient of `own` rows, into `out` (L, N, D).
void add_differences(const char* op, const GradientSide& weights, const GradientSide& own, const GradientSide& others,
                     bool dot, bool fast, float* out, cudaStream_t stream) {
  const Tensor& rows = own.of_rows;
  check_launch(op, split_gradient_launch(weights.halves.const_data_ptr(), data<unsigned>(weights.largest),
                                         others.halves.const_data_ptr(), data<unsigned>(others.largest),
                                         dot ? nullptr : data<float>(weights.of_rows),
                                         dot ? nullptr : data<float>(rows), out, int(rows.size(0)), rows.size(1),
                                         int(others.of_rows.size(1)), int(rows.size(2)), fast, stream));
}

// Gradients (B, N, D) and (B, M, D), or without rows where there is no y, of rows in the metric's form. Those of cosine
// and correlation have a part along the row that the gradient of normalising removes.
std::tuple<Tensor, Tensor> split_gradient(Tensor grad, Tensor x, std::optional<Tensor> y, Tensor out, int64_t metric,
                                          bool condensed, bool fast) {
  constexpr const char* op = "split_gradient";
  constexpr int64_t kHalvesBytes = 2ll << 30;  // of split weights at once
  const OnDevice on(x);
  check_beside(op, x, {&grad, y ? &*y : nullptr, &out});
  for (Tensor* t : {&grad, &x, &out}) *t = torch::stable::contiguous(*t);
  if (y) y = torch::stable::contiguous(*y);
  const int64_t B = x.size(0), N = x.size(1), M = y ? y->size(1) : N, D = x.size(2);
  const bool dot = Metric(metric) == Metric::dot, root = Metric(metric) == Metric::euclidean;
  const int64_t pairs = condensed ? N * (N - 1) / 2 : N * M;
  BERTFT_CHECK(grad.scalar_type() == ScalarType::Float && grad.numel() == B * pairs &&
                   (!root || (out.scalar_type() == ScalarType::Float && out.numel() == grad.numel())),
               op, ": the gradient of the distances, or they themselves, do not fit");
  if (grad.numel() == 0) {
    return {torch::stable::new_zeros(x, {B, N, D}, ScalarType::Float),
            torch::stable::new_zeros(x, {y ? B : 0, y ? M : 0, D}, ScalarType::Float)};
  }
  Tensor grad_x = empty(x, {B, N, D}, ScalarType::Float);
  Tensor grad_y = empty(x, {y ? B : 0, y ? M : 0, D}, ScalarType::Float);
  long long bytes[4];  // of a layer's weights by rows and turned over, and of partial sums of either
  split_weights_bytes(bytes, N, M);
  const int64_t group = std::clamp<int64_t>(kHalvesBytes / (bytes[0] + (y ? bytes[1] : 0)), 1, B);
  for (int64_t first = 0; first < B; first += group) {
    const int64_t count = std::min(group, B - first);
    Tensor own = x, others = y ? *y : x;
    own = torch::stable::narrow(own, 0, first, count), others = torch::stable::narrow(others, 0, first, count);
    const Tensor mean =
        dot ? torch::stable::new_zeros(x, {count, D}, ScalarType::Double) : split_mean(op, own, metric, on.stream).mean;
    const GradientSide of_x = gradient_points(op, own, mean, metric, on.stream);
    const GradientSide of_y = y ? gradient_points(op, others, mean, metric, on.stream) : of_x;
    const GradientSide left = gradient_side(x, count, N, M, true);
    const GradientSide right = y ? gradient_side(x, count, M, N, true) : left;
    const Tensor partial = empty(x, {count * (bytes[2] + bytes[3]) / 8}, ScalarType::Double);
    const float *g = data<float>(grad) + first * pairs, *distances = root ? data<float>(out) + first * pairs : nullptr;
    check_launch(
        op, split_weights_launch(g, distances, left.halves.mutable_data_ptr(), data<unsigned>(left.largest),
                                 data<float>(left.of_rows), y ? right.halves.mutable_data_ptr() : nullptr,
                                 y ? data<unsigned>(right.largest) : nullptr, y ? data<float>(right.of_rows) : nullptr,
                                 data<double>(partial), data<double>(partial) + count * bytes[2] / 8, int(metric),
                                 int(count), N, M, !y, condensed, on.stream));
    add_differences(op, left, of_x, of_y, dot, fast, data<float>(grad_x) + first * N * D, on.stream);
    if (y) add_differences(op, right, of_y, of_x, dot, fast, data<float>(grad_y) + first * M * D, on.stream);
  }
  return {grad_x, grad_y};
}

}  // namespace
}  // namespace bertft::binding
