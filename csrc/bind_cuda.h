// Common parts of the bindings of bind_cuda.cpp: the launchers, the device and its stream, types, checks, sentences.
#pragma once
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <initializer_list>
#include <stdexcept>
#include <string>
#include <vector>

#include "bad_row.h"
#include "check.h"
#include "metric_codes.h"

typedef struct CUstream_st* cudaStream_t;
extern "C" const char* cudaGetErrorString(int error);

// Launchers (csrc/cuda/*.cu): sizes and types are described there.
extern "C" {
int row_statistics_launch(const void* x, void* stats, long long* bad, int dtype, int metric, long long rows, int d,
                          cudaStream_t stream);
int pairwise_distance_launch(const void* x, const void* y, const void* stats_x, const void* stats_y, void* out,
                             const int* listed, int most, int dtype, int metric, int batch, long long n, long long m,
                             int d, int condensed, cudaStream_t stream);
int pairwise_gradient_launch(const void* x, const void* y, const void* stats_x, const void* stats_y, const void* g,
                             const void* dist, void* grad, int dtype, int metric, int batch, long long n, long long m,
                             int d, int condensed, int transposed, cudaStream_t stream);
int split_core_serves(int* yes);
int core_rate_launch(long long* cycles, float* sink, cudaStream_t stream);
int split_mean_launch(const void* x, double* mean, double* square, int dtype, int metric, int layers, long long n,
                      int d, cudaStream_t stream);
int split_rows_bytes(long long* bytes, int layers, long long n, int d, int parts);
int split_rows_launch(const void* x, const double* mean, void* rows, float* stats, long long* bad, int dtype,
                      int metric, int layers, long long n, int d, int parts, cudaStream_t stream);
int split_gram_launch(const void* x, const void* y, void* rows_x, void* rows_y, const double* square, float* out,
                      int* count, int* pairs, int capacity, int dtype, int metric, int batch, long long n, long long m,
                      int d, int condensed, int parts, cudaStream_t stream);
int split_columns_bytes(long long* bytes, int* rows_of_range, long long n, int d, int parts);
int split_columns_launch(const float* u, void* halves, unsigned* largest, long long n, int d, int parts,
                         cudaStream_t stream);
int split_moments_launch(const void* u, const void* v, const unsigned* largest_u, const unsigned* largest_v,
                         float* partial, int most, double* total, long long n, int d, int e, int parts,
                         cudaStream_t stream);
int split_matrix_bytes(long long* bytes, int* rows_of_range, long long n, int d);
int split_matrix_launch(const void* u, void* halves, unsigned* largest, int dtype, int layers, long long n, int d,
                        cudaStream_t stream);
int split_product_launch(const void* a, const unsigned* largest_a, const void* b, const unsigned* largest_b, float* out,
                         int layers, long long n, int depth, int m, int fast, cudaStream_t stream);
int split_gradient_launch(const void* a, const unsigned* largest_a, const void* b, const unsigned* largest_b,
                          const float* sums, const float* own, float* out, int layers, long long n, int depth, int m,
                          int fast, cudaStream_t stream);
int split_weights_bytes(long long* bytes, long long n, long long m);
int split_weights_launch(const float* g, const float* dist, void* left, unsigned* largest_left, float* sums_left,
                         void* right, unsigned* largest_right, float* sums_right, double* partial_left,
                         double* partial_right, int metric, int layers, long long n, long long m, int symmetric,
                         int condensed, cudaStream_t stream);
int split_points_launch(const void* x, const double* mean, float* u, float* ignored, void* halves, unsigned* largest,
                        int dtype, int metric, int layers, long long n, int d, cudaStream_t stream);
int split_sum_launch(const void* u, const unsigned* largest_u, const void* v, const unsigned* largest_v, float* partial,
                     int most, double* total, float* out, int layers, long long n, int d, int e, int fast,
                     cudaStream_t stream);
int prepare_rows_launch(const void* x, const double* mean, void* u, double* a, double* p, long long* bad, int dtype,
                        int u_dtype, int metric, long long n, int d, cudaStream_t stream);
int moment_rows_of_block(int* rows);
int space_sums_launch(const void* u, const double* a, const double* p, double* partial, double* stats, int u_dtype,
                      long long n, int d, cudaStream_t stream);
int pair_sums_launch(const void* u, const void* v, const double* a, const double* p, const double* b, const double* q,
                     double* partial, double* stats, int u_dtype, long long n, int d, int e, cudaStream_t stream);
int accumulate_launch(const void* product, double* total, int dtype, long long size, cudaStream_t stream);
int rdm_correlation_launch(const void* x, const void* y, double* out, long long* bad, void* workspace,
                           long long* workspace_bytes, long long entries_bytes, int dtype, int path, int metric_x,
                           int metric_y, int compare, int layers_x, int layers_y, long long n, int d, int e, int bins,
                           cudaStream_t stream);
int probe_loss_plan(const long long* lengths, long long sentences, void* tiles, int* counts);
int probe_loss_launch(const void* p, const void* distances, const void* depths, const void* tiles, int num_tiles,
                      int long_tiles, int longest, long long sentences, int dtype, int distance_dtype, int layers,
                      long long words, int rank, int distance_rank, void* dp, double* partial, void* loss,
                      cudaStream_t stream);
}

namespace bertft::binding {
namespace {  // included once, by bind_cuda.cpp

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr long long kNoRow = 0x7f7f7f7f7f7f7f7fll;

// The tensor's device is current while this lives; its stream is torch's.
struct OnDevice {
  torch::stable::accelerator::DeviceGuard guard;
  cudaStream_t stream;
  explicit OnDevice(const Tensor& x) : guard(x.get_device_index()) {
    void* handle = nullptr;
    BERTFT_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &handle) == 0, "no current CUDA stream");
    stream = static_cast<cudaStream_t>(handle);
  }
};

// A kernel reads addresses: one of other memory would end the process, not the call.
void check_beside(const char* op, const Tensor& first, std::initializer_list<const Tensor*> others) {
  for (const Tensor* t : others) {
    BERTFT_CHECK(!t || (t->is_cuda() && t->get_device_index() == first.get_device_index()), op,
                 ": tensors must be on one device");
  }
}

void check_launch(const char* op, int error) {
  BERTFT_CHECK(error == 0, op, ": the CUDA launch failed (", error, ": ", cudaGetErrorString(error), ")");
}

int code(const Tensor& x) {
  switch (x.scalar_type()) {
    case ScalarType::Float:
      return 0;
    case ScalarType::Double:
      return 1;
    case ScalarType::Half:
      return 2;
    case ScalarType::BFloat16:
      return 3;
    case ScalarType::Byte:
      return 4;
    default:
      BERTFT_CHECK(false, "tensors must be float64, float32, bfloat16 or float16");
  }
  return -1;
}

Tensor empty(const Tensor& like, std::vector<int64_t> sizes, ScalarType type) {
  return torch::stable::new_empty(like, sizes, type);
}

ScalarType sum_type(const Tensor& x) {
  return x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

template <class T>
T* data(const Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
}

// Raises the first bad row; waits for the device. bad: (2,) int64 of the side named, or (2, 2) of x and of y; rows: of
// a layer, 0 where the op takes one layer only.
void refuse(const char* op, const Tensor& bad, int64_t rows, const char* side = "x") {
  const Tensor host = torch::stable::to(bad, torch::stable::Device(torch::headeronly::DeviceType::CPU));
  const auto* found = static_cast<const int64_t*>(host.const_data_ptr());
  for (int64_t k = 0; k < host.numel(); ++k) {
    if (found[k] == kNoRow) continue;
    raise_bad_row(op, k < 2 ? side : "y", rows ? found[k] % rows : found[k], rows ? found[k] / rows : -1, k % 2 == 1);
  }
}

const void* pointer(const Tensor& t) { return t.numel() ? t.const_data_ptr() : nullptr; }

}  // namespace
}  // namespace bertft::binding
