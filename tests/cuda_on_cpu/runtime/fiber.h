// fiber.h -- stackful coroutines: one for each CUDA thread of the block that is running.
#pragma once

#include <cstddef>

#if defined(__x86_64__) && !defined(EXECUTOR_UCONTEXT)
#define EXECUTOR_X86_64 1
#else
#include <ucontext.h>
#endif

namespace executor {

struct Fiber {
#if defined(EXECUTOR_X86_64)
  void* stack_pointer = nullptr;
#else
  ucontext_t context;
#endif
};

// Makes `fiber` start at `entry` (which never returns) on the stack [low, low + bytes), `skew` bytes below its top.
void prepare(Fiber& fiber, char* low, size_t bytes, size_t skew, void (*entry)());
void switch_fiber(Fiber& from, Fiber& to);

}  // namespace executor
