// runtime_api.h -- what kernels compiled by g++ call in the runtime (../runtime). Shared by both sides.
#pragma once

#include "language.h"

namespace executor {

// Where in the source something was asked for; the caller's, by default arguments.
struct Site {
  const char* file = nullptr;
  int line = 0;
  const void* pc = nullptr;  // known instead of file and line inside the compiler's hooks
};

enum class Barrier { sync, count, all, any };
enum class WarpOp { sync, shuffle, shuffle_up, shuffle_down, shuffle_xor, ballot, reduce_add, mma, fragment, ldmatrix };
enum class MmaShape { m16n8k8_tf32, m16n8k16, m16n8k16_f16, m8n8k4_f64, wmma };

uint3 thread_index() __attribute__((const));
uint3 block_index() __attribute__((const));
uint3 block_dim() __attribute__((const));
uint3 grid_dim() __attribute__((const));

[[noreturn]] void trap(const char* why, Site site);

int block_barrier(Barrier kind, int predicate, Site site);
uint64_t warp_operation(WarpOp kind, unsigned mask, uint64_t value, int argument, int width, Site site);

// All lanes meet here with their fragments; d = a b + c. M, N, K matter for MmaShape::wmma only.
void mma(MmaShape shape, int M, int N, int K, const double* a, const double* b, const double* c, double* d, Site site);
void ldmatrix(unsigned* registers, int count, bool transposed, const void* row, Site site);

void* static_shared(const void* key, size_t size, size_t alignment, const char* name);
void* dynamic_shared();

void note_access(const void* address, unsigned bytes, bool write, bool atomic, Site site);
void note_fence();
void async_copy(void* shared, const void* global, unsigned bytes, unsigned zero_filled, Site site);
void async_commit();
void async_wait(unsigned newest_groups_left);

int launch_grid(const char* name, const void* kernel, dim3 grid, dim3 block, size_t shared_bytes, bool checked,
                void (*body)(void*), void* arguments, size_t argument_bytes);
int fill_memory(void* memory, int value, size_t bytes);  // cudaMemset
int allow_dynamic_shared(const void* kernel, int bytes);
int device_attribute(int attribute, int* value);
int last_error(bool reset);
const char* error_text();

}  // namespace executor

#define threadIdx (::executor::thread_index())
#define blockIdx (::executor::block_index())
#define blockDim (::executor::block_dim())
#define gridDim (::executor::grid_dim())

// Appended to a function's parameters: the source line of the call.
#define EXECUTOR_CALLER const char *file_ = __builtin_FILE(), int line_ = __builtin_LINE()
#define EXECUTOR_SITE (::executor::Site{file_, line_, nullptr})
// The executor's own helpers must not report their internal copies to the checker.
#define EXECUTOR_UNCHECKED __attribute__((no_sanitize("thread")))
