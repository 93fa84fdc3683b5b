// The ops' way over split rows on tensor cores (csrc/cuda/split_*.cu), and when it is taken.
#pragma once
#include <array>
#include <atomic>
#include <cstdlib>
#include <optional>

#include "bind_cuda.h"

namespace bertft::binding {
namespace {  // included once, by bind_cuda.cpp

constexpr double kWorthwhileRate = 3.5;  // four times float32's by the data sheets, less what a measurement loses
constexpr int64_t kLeastRows = 256, kLeastColumns = 64;
constexpr int kHigh = 1, kBoth = 2;  // parts of a row (csrc/cuda/split_line.cuh); the high part alone is "fast"

// Rate of the tensor cores' float16 products in units of float32's, measured once a device; 0 where they cannot serve.
double core_rate(const Tensor& like, cudaStream_t stream) {
  static std::array<std::atomic<double>, 64> known{};  // 0: not measured yet, -1: cannot serve
  const auto device = static_cast<size_t>(like.get_device_index()) % known.size();
  double rate = known[device].load();
  if (rate == 0) {
    int serves = 0;
    split_core_serves(&serves);
    rate = -1;
    if (serves) {
      const Tensor cycles = empty(like, {2}, ScalarType::Long), sink = empty(like, {512}, ScalarType::Float);
      check_launch("core_rate", core_rate_launch(data<long long>(cycles), data<float>(sink), stream));
      const Tensor host = torch::stable::to(cycles, torch::stable::Device(torch::headeronly::DeviceType::CPU));
      const auto* found = static_cast<const int64_t*>(host.const_data_ptr());
      rate = 64.0 * static_cast<double>(found[1]) / static_cast<double>(std::max<int64_t>(found[0], 1));
    }
    known[device].store(rate);
  }
  return std::max(rate, 0.0);
}

// Whether rows (.., n, d) of `like` go over split rows. BERTFT_CORE=split or plain overrides the measured rate and the
// least size; what the core cannot do stays with the others.
bool split_core(const Tensor& like, int64_t n, int64_t d, cudaStream_t stream) {
  const char* asked = std::getenv("BERTFT_CORE");
  const std::string choice = asked ? asked : "auto";
  BERTFT_CHECK(choice == "auto" || choice == "split" || choice == "plain", "BERTFT_CORE must be split or plain, not ",
               choice);
  const char* width = std::getenv("BERTFT_TILE");  // read by csrc/cuda/split_tile.cuh
  const std::string tile = width ? width : "narrow";
  BERTFT_CHECK(tile == "narrow" || tile == "wide", "BERTFT_TILE must be wide or narrow, not ", tile);
  if (choice == "plain" || like.scalar_type() == ScalarType::Double || n < 1 || d < 1) return false;
  const double rate = core_rate(like, stream);
  if (choice == "split") return rate > 0;
  return n >= kLeastRows && d >= kLeastColumns && rate >= kWorthwhileRate;
}

// The same for layers x (L, N, D) and, where there is one, y (M, N, E).
bool split_core(const Tensor& x, const std::optional<Tensor>& y, cudaStream_t stream) {
  const int64_t d = y ? std::min(x.size(2), y->size(2)) : x.size(2);
  return (!y || y->scalar_type() != ScalarType::Double) && split_core(x, x.size(1), d, stream);
}

// Provisional mean (L, D) of the rows of x in the metric's form, and its square (L,).
struct SplitMean {
  Tensor mean, square;
};

SplitMean split_mean(const char* op, const Tensor& x, int64_t metric, cudaStream_t stream) {
  const int64_t layers = x.size(0), d = x.size(2);
  SplitMean of{empty(x, {layers, d}, ScalarType::Double), empty(x, {layers}, ScalarType::Double)};
  check_launch(op, split_mean_launch(x.const_data_ptr(), data<double>(of.mean), data<double>(of.square), code(x),
                                     int(metric), int(layers), x.size(1), int(d), stream));
  return of;
}

// Split rows of x (L, N, D) less a mean, in `parts` parts, and (where `with_stats`) statistics (L N, 2); bad rows go to
// `bad`.
struct SplitRows {
  Tensor memory, stats;
};

SplitRows split_rows(const char* op, const Tensor& x, const Tensor& mean, int64_t metric, bool with_stats,
                     const Tensor& bad, cudaStream_t stream, int parts = kBoth) {
  const int64_t layers = x.size(0), n = x.size(1), d = x.size(2);
  long long bytes = 0;
  split_rows_bytes(&bytes, int(layers), n, int(d), parts);
  SplitRows rows{empty(x, {bytes}, ScalarType::Byte), empty(x, {with_stats ? layers * n : 0, 2}, ScalarType::Float)};
  check_launch(op, split_rows_launch(x.const_data_ptr(), data<double>(mean), rows.memory.mutable_data_ptr(),
                                     with_stats ? data<float>(rows.stats) : nullptr, data<long long>(bad), code(x),
                                     int(metric), int(layers), n, int(d), parts, stream));
  return rows;
}

// pairwise_distance over split rows; layers with too many near rows are done anew by pairwise_distance_launch.
Tensor split_distance(const Tensor& x, const std::optional<Tensor>& y, int64_t metric, bool condensed, bool check,
                      int parts, cudaStream_t stream) {
  constexpr const char* op = "pairwise_distance";
  const int64_t B = x.size(0), N = x.size(1), M = y ? y->size(1) : N, D = x.size(2);
  const bool with_stats = normalised(Metric(metric));
  const Tensor bad = empty(x, {2}, ScalarType::Long);
  const SplitMean mean = split_mean(op, x, metric, stream);
  const SplitRows of_x = split_rows(op, x, mean.mean, metric, with_stats, bad, stream, parts);
  if (check) refuse(op, bad, N);
  const SplitRows of_y = y ? split_rows(op, *y, mean.mean, metric, with_stats, bad, stream, parts) : of_x;
  if (check && y) refuse(op, bad, M, "y");

  const int64_t capacity = std::max<int64_t>(1024, N * M / 256);
  const Tensor count = empty(x, {B}, ScalarType::Int), pairs = empty(x, {B, capacity, 2}, ScalarType::Int);
  Tensor out =
      empty(x, condensed ? std::vector<int64_t>{B, N * (N - 1) / 2} : std::vector<int64_t>{B, N, M}, ScalarType::Float);
  const void *px = x.const_data_ptr(), *py = y ? y->const_data_ptr() : nullptr;
  check_launch(op,
               split_gram_launch(px, py, of_x.memory.mutable_data_ptr(), of_y.memory.mutable_data_ptr(),
                                 data<double>(mean.square), data<float>(out), data<int>(count), data<int>(pairs),
                                 int(capacity), code(x), int(metric), int(B), N, M, int(D), condensed, parts, stream));
  check_launch(op, pairwise_distance_launch(px, py, pointer(of_x.stats), pointer(of_y.stats), out.mutable_data_ptr(),
                                            data<int>(count), int(capacity), code(x), int(metric), int(B), N, M, int(D),
                                            condensed, stream));
  return out;
}

// a b' (B, N, M) of a (B, N, K) and b (B, M, K), both float.
Tensor split_product(const char* op, const Tensor& a, const Tensor& b, cudaStream_t stream, int parts = kBoth) {
  const int64_t B = a.size(0), N = a.size(1), M = b.size(1), K = a.size(2);
  const Tensor mean = torch::stable::new_zeros(a, {B, K}, ScalarType::Double);  // none, nor a square of it
  const Tensor bad = empty(a, {2}, ScalarType::Long);
  const Tensor count = empty(a, {B}, ScalarType::Int), pairs = empty(a, {B, 1, 2}, ScalarType::Int);
  const SplitRows left = split_rows(op, a, mean, 0, false, bad, stream, parts);
  const SplitRows right = split_rows(op, b, mean, 0, false, bad, stream, parts);
  Tensor out = empty(a, {B, N, M}, ScalarType::Float);
  check_launch(
      op, split_gram_launch(a.const_data_ptr(), b.const_data_ptr(), left.memory.mutable_data_ptr(),
                            right.memory.mutable_data_ptr(), data<double>(mean), data<float>(out), data<int>(count),
                            data<int>(pairs), 1, code(a), 0, int(B), N, M, int(K), false, parts, stream));
  return out;
}

// Columns of u (N, D) float, split with one power of two, for sums over its rows.
struct SplitColumns {
  Tensor halves, largest;
  int64_t n, d;
  int rows_of_range, parts;
};

SplitColumns split_columns(const Tensor& u, cudaStream_t stream, int parts = kBoth) {
  long long bytes = 0;
  SplitColumns of{u, empty(u, {1}, ScalarType::Int), u.size(0), u.size(1), 1, parts};
  split_columns_bytes(&bytes, &of.rows_of_range, of.n, int(of.d), parts);
  of.halves = empty(u, {bytes}, ScalarType::Byte);
  check_launch("cross_moments", split_columns_launch(data<float>(u), of.halves.mutable_data_ptr(),
                                                     data<unsigned>(of.largest), of.n, int(of.d), parts, stream));
  return of;
}

// total += u'v, or u'u without v, in double from float sums of a range of rows.
void add_split(const SplitColumns& u, const SplitColumns* v, const Tensor& total, cudaStream_t stream) {
  constexpr int64_t kPartialBytes = 1 << 28;
  const int64_t e = v ? v->d : u.d, ranges = (u.n + u.rows_of_range - 1) / u.rows_of_range;
  const int64_t most = std::clamp<int64_t>(kPartialBytes / (4 * u.d * e), 1, std::clamp<int64_t>(ranges, 1, 65535));
  const Tensor partial = empty(u.halves, {most, u.d, e}, ScalarType::Float);
  check_launch(
      "cross_moments",
      split_moments_launch(u.halves.const_data_ptr(), v ? v->halves.const_data_ptr() : nullptr,
                           data<unsigned>(u.largest), v ? data<unsigned>(v->largest) : nullptr, data<float>(partial),
                           int(most), data<double>(total), u.n, int(u.d), int(e), u.parts, stream));
}

// The ops of the same names.
bool core_serves(Tensor x, std::optional<Tensor> y) {
  const OnDevice on(x);
  return split_core(x, y, on.stream);
}

Tensor product(Tensor a, Tensor b, bool fast) {
  const OnDevice on(a);
  check_beside("split_product", a, {&b});
  BERTFT_CHECK(a.scalar_type() == ScalarType::Float && b.scalar_type() == ScalarType::Float && a.dim() == 3 &&
                   b.dim() == 3 && a.size(0) == b.size(0) && a.size(2) == b.size(2) && a.size(2) > 0,
               "split_product: a and b must be (B, N, K) and (B, M, K) float32");
  return split_product("split_product", torch::stable::contiguous(a), torch::stable::contiguous(b), on.stream,
                       fast ? kHigh : kBoth);
}

}  // namespace
}  // namespace bertft::binding
