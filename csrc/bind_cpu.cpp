// Torch bindings of the CPU kernels: every op schema in one block, through torch's stable ABI.
//
// To add an op <op>:
//   1. csrc/cpu/<op>.h and .cpp: <op>_cpu on raw pointers and a Pool (parallel.h), products through gemm.h, no torch
//      header, one implementation templated on float and double. Every .cpp under csrc/cpu is compiled and linked.
//   2. Here: its schema in the block below, a wrapper that allocates outputs and passes pointers, and its m.impl line.
//      Inputs come checked, contiguous and of the right type from Python; STD_TORCH_CHECK only guards the memory.
//   3. bertft/ops/<op>.py: checks with sentences (BertftError), the function, `extension.on_load(_register)` where
//      _register calls torch.library.register_fake and register_autograd; export it from bertft/ops/__init__.py.
//   4. bertft/ops/reference.py: the formula in plain PyTorch; it serves wherever no kernel does.
//   5. tests/ops/test_<op>.py: values, gradcheck, opcheck and compile, properties, bad input.
// Only what torch 2.10 offered may be used: TORCH_TARGET_VERSION (set by the build) hides anything newer.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <string>

#include "cpu/gemm.h"
#include "cpu/parallel.h"

using torch::stable::Tensor;

namespace {

bertft::Pool torch_pool() {
  return {int(torch::stable::get_num_threads()),
          [](int64_t begin, int64_t end, int64_t grain, bertft::Pool::Body body, void* context) {
            STABLE_TORCH_ERROR_CODE_CHECK(torch_parallel_for(begin, end, grain, body, context));
          }};
}

// What this build may use and found, for `bertft doctor`: instruction sets and the source of matrix products.
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

}  // namespace

// Shapes: L, M layers; N stimuli; T packed words; S sentences; D hidden size; R probe rank.
STABLE_TORCH_LIBRARY(bertft, m) {
  m.def("cpu_capability() -> str");
}

STABLE_TORCH_LIBRARY_IMPL(bertft, CompositeExplicitAutograd, m) {
  m.impl("cpu_capability", TORCH_BOX(&cpu_capability));
}

STABLE_TORCH_LIBRARY_IMPL(bertft, CPU, m) {
}
