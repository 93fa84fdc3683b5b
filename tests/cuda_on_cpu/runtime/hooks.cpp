// hooks.cpp -- what the compiler's instrumentation calls. Kernels are compiled with -fsanitize=thread,... and linked
// without a sanitizer's runtime: these functions take its place, so that a plain Python process can load them.
#include <dlfcn.h>
#include <link.h>

#include <cstring>

#include "state.h"

namespace executor {

namespace {

struct Module {
  const void* base;
  std::vector<std::pair<uintptr_t, uintptr_t>> segments;
};

int collect(dl_phdr_info* info, size_t, void* out) {
  auto* module = static_cast<Module*>(out);
  for (int i = 0; i < info->dlpi_phnum; ++i)
    if (info->dlpi_phdr[i].p_type == PT_LOAD) {
      const uintptr_t begin = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
      if (i == 0 && reinterpret_cast<const void*>(begin) != module->base) return 0;
      module->segments.push_back({begin, begin + info->dlpi_phdr[i].p_memsz});
    }
  return 0;
}

}  // namespace

bool in_kernel_module(uintptr_t address) {
  static const void* known_kernel = nullptr;
  static Module module;
  if (known_kernel != state.kernel) {
    Dl_info info{};
    dladdr(state.kernel, &info);
    module = {info.dli_fbase, {}};
    dl_iterate_phdr(collect, &module);
    known_kernel = state.kernel;
  }
  for (const auto& s : module.segments)
    if (address >= s.first && address < s.second) return true;
  return false;
}

void note_access(const void* address, unsigned bytes, bool write, bool atomic, Site site) {
  if (!state.current || !state.checked) return;
  const Access kind = atomic ? Access::atomic : write ? Access::write : Access::read;
  const auto p = reinterpret_cast<uintptr_t>(address);
  check_access(p, bytes, kind, site);
  if (!atomic) return;
  auto& released = state.released[p];  // the "last block" pattern: fence, then count blocks with an atomic
  if (state.current->fenced) released.push_back(state.block_number);
  state.acquired.insert(released.begin(), released.end());
}

void note_fence() {
  if (state.current) state.current->fenced = true;
}

static inline void hook(const void* address, size_t bytes, Access kind, const void* pc) {
  if (state.current && bytes)
    check_access(reinterpret_cast<uintptr_t>(address), (unsigned)bytes, kind, {nullptr, 0, pc});
}

}  // namespace executor

#define HOOK extern "C" __attribute__((visibility("default")))
#define CALLER __builtin_return_address(0)
using executor::Access;
using executor::hook;

HOOK void __tsan_init() {}
HOOK void __tsan_func_entry(void*) {}
HOOK void __tsan_func_exit() {}
HOOK void __tsan_vptr_update(void**, void*) {}
HOOK void __tsan_vptr_read(void**) {}

#define EXECUTOR_HOOKS(n)                                                             \
  HOOK void __tsan_read##n(void* p) { hook(p, n, Access::read, CALLER); }             \
  HOOK void __tsan_write##n(void* p) { hook(p, n, Access::write, CALLER); }           \
  HOOK void __tsan_unaligned_read##n(void* p) { hook(p, n, Access::read, CALLER); }   \
  HOOK void __tsan_unaligned_write##n(void* p) { hook(p, n, Access::write, CALLER); } \
  HOOK void __tsan_volatile_read##n(void* p) { hook(p, n, Access::read, CALLER); }    \
  HOOK void __tsan_volatile_write##n(void* p) { hook(p, n, Access::write, CALLER); }
EXECUTOR_HOOKS(1)
EXECUTOR_HOOKS(2)
EXECUTOR_HOOKS(4)
EXECUTOR_HOOKS(8)
EXECUTOR_HOOKS(16)

HOOK void __tsan_read_range(void* p, size_t n) { hook(p, n, Access::read, CALLER); }
HOOK void __tsan_write_range(void* p, size_t n) { hook(p, n, Access::write, CALLER); }
HOOK void* __tsan_memcpy(void* to, const void* from, size_t n) {
  hook(from, n, Access::read, CALLER);
  hook(to, n, Access::write, CALLER);
  return std::memcpy(to, from, n);
}
HOOK void* __tsan_memmove(void* to, const void* from, size_t n) {
  hook(from, n, Access::read, CALLER);
  hook(to, n, Access::write, CALLER);
  return std::memmove(to, from, n);
}
HOOK void* __tsan_memset(void* to, int value, size_t n) {
  hook(to, n, Access::write, CALLER);
  return std::memset(to, value, n);
}

// -fsanitize=alignment,bounds,...: the handlers' data block begins with the place in the source.
struct UbsanPlace {
  const char* file;
  uint32_t line, column;
};

#define EXECUTOR_UBSAN(name, text)                                                               \
  HOOK void __ubsan_handle_##name(const UbsanPlace* place) {                                     \
    if (executor::state.current) executor::fail({place->file, (int)place->line, nullptr}, text); \
  }
EXECUTOR_UBSAN(out_of_bounds, "INDEX outside the declared bounds of an array")
EXECUTOR_UBSAN(type_mismatch_v1, "MISALIGNED pointer for its type")
EXECUTOR_UBSAN(add_overflow, "SIGNED OVERFLOW in a sum")
EXECUTOR_UBSAN(sub_overflow, "SIGNED OVERFLOW in a difference")
EXECUTOR_UBSAN(mul_overflow, "SIGNED OVERFLOW in a product")
EXECUTOR_UBSAN(negate_overflow, "SIGNED OVERFLOW in a negation")
EXECUTOR_UBSAN(divrem_overflow, "DIVISION by zero, or its overflow")
EXECUTOR_UBSAN(shift_out_of_bounds, "SHIFT by a negative or too large amount")
