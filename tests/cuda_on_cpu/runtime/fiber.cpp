#include "fiber.h"

#include <cstdint>
#include <cstring>

#if defined(EXECUTOR_X86_64)

// Saves the six registers that a call must preserve and the stack pointer, then takes over the other fiber's.
extern "C" void executor_switch_stacks(void** save, void* load);
asm(R"(
.text
.globl executor_switch_stacks
.hidden executor_switch_stacks
.type executor_switch_stacks, @function
executor_switch_stacks:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size executor_switch_stacks, . - executor_switch_stacks
)");

namespace executor {

void prepare(Fiber& fiber, char* low, size_t bytes, size_t skew, void (*entry)()) {
  const uintptr_t top = (reinterpret_cast<uintptr_t>(low) + bytes - skew) & ~uintptr_t{15};
  void** sp = reinterpret_cast<void**>(top);
  *--sp = nullptr;                         // entry's return address: it never returns
  *--sp = reinterpret_cast<void*>(entry);  // popped by the first switch's ret
  sp -= 6;
  std::memset(sp, 0, 6 * sizeof *sp);
  fiber.stack_pointer = sp;
}

void switch_fiber(Fiber& from, Fiber& to) { executor_switch_stacks(&from.stack_pointer, to.stack_pointer); }

}  // namespace executor

#else

namespace executor {

void prepare(Fiber& fiber, char* low, size_t bytes, size_t skew, void (*entry)()) {
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = low;
  fiber.context.uc_stack.ss_size = bytes - skew;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, entry, 0);
}

void switch_fiber(Fiber& from, Fiber& to) { swapcontext(&from.context, &to.context); }

}  // namespace executor

#endif
