// scheduler.cpp -- launches a grid block by block; inside a block, runs each thread until it has to wait.
#include <sys/mman.h>

#include <algorithm>
#include <numeric>

#include "state.h"

namespace executor {

static const uint64_t kCanary = 0x5ca1ab1e0ddba11ull;

uint32_t random_bits() {
  uint64_t& x = state.options.random;
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  return (uint32_t)(x >> 32);
}

uint3 thread_index() { return state.current->index; }
uint3 block_index() { return state.block_index; }
uint3 block_dim() { return {state.block.x, state.block.y, state.block.z}; }
uint3 grid_dim() { return {state.grid.x, state.grid.y, state.grid.z}; }

void make_ready(unsigned linear) {
  state.thread[linear].status = Status::ready;
  state.ready[(state.ready_head + state.ready_count++) % kMaxThreads] = linear;
}

static Thread* next_ready() {
  if (!state.ready_count) return nullptr;
  if (state.options.order == 2) {
    const unsigned pick = (state.ready_head + random_bits() % state.ready_count) % kMaxThreads;
    std::swap(state.ready[pick], state.ready[state.ready_head]);
  }
  const unsigned linear = state.ready[state.ready_head];
  state.ready_head = (state.ready_head + 1) % kMaxThreads;
  --state.ready_count;
  return &state.thread[linear];
}

static void go(Fiber& from, Thread* to) {
  ++state.switches;
  state.current = to;
  switch_fiber(from, to ? to->fiber : state.host);
}

void abandon_block() {
  state.aborted = true;
  Fiber& here = state.current->fiber;
  go(here, nullptr);
}

static void report_deadlock() {
  const auto count = [](Status s) {
    return std::count_if(state.thread, state.thread + state.threads, [s](const Thread& t) { return t.status == s; });
  };
  std::string text = "deadlock: " + std::to_string(count(Status::at_barrier)) + " thread(s) wait at __syncthreads, " +
                     std::to_string(count(Status::in_warp_operation)) + " in warp operations, " +
                     std::to_string(state.finished) + " have exited";
  int shown = 0;
  for (int w = 0; w * kLanes < state.threads; ++w)
    for (const Meeting& m : state.meetings[w]) {
      if (shown++ == 3) break;
      char missing[64];
      snprintf(missing, sizeof missing, " mask 0x%08x, still missing lanes 0x%08x", m.mask, m.mask & ~m.arrived);
      text += "; warp " + std::to_string(w) + " in " + name_of(m.kind) + " at " + at(m.site) + missing;
    }
  for (int i = 0; i < state.threads; ++i)
    if (state.thread[i].status == Status::at_barrier) {
      text += "; thread " + std::to_string(i) + " waits at __syncthreads " + at(state.thread[i].site);
      break;
    }
  fail_block(text);
}

void park() {
  Thread* me = state.current;
  Thread* next = next_ready();
  if (next == me) return;
  if (!next && state.finished != state.threads) report_deadlock();
  go(me->fiber, next);
}

static void run_thread() {
  state.body(state.arguments);
  Thread* me = state.current;
  if (!me->copies.empty()) fail(me->copies[0].site, "thread exits with cp.async copies that were never waited for");
  const char* low = state.stacks + kStackBytes * me->linear;
  if (*reinterpret_cast<const uint64_t*>(low) != kCanary) fail({}, "thread overflowed its stack");
  me->status = Status::finished;
  ++state.finished;
  for (const Meeting& m : state.meetings[me->warp()])
    if ((m.mask >> me->lane()) & 1)
      fail(m.site, "thread exits while lanes of its warp wait for it in %s (mask 0x%08x)", name_of(m.kind), m.mask);
  if (state.barrier.waiting && state.barrier.waiting + state.finished == state.threads)
    fail(state.barrier.site, "thread exits while %d thread(s) wait at __syncthreads (early return before a barrier)",
         state.barrier.waiting);
  park();
  __builtin_unreachable();
}

void run_block() {
  const dim3 b = state.block;
  state.finished = 0;
  state.ready_head = state.ready_count = 0;
  state.barrier = {};
  state.acquired.clear();
  for (auto& m : state.meetings) m.clear();
  poison_shared();
  for (int k = 0; k < state.threads; ++k) {
    const unsigned i = (unsigned)(state.options.order == 1 ? state.threads - 1 - k : k);
    Thread& t = state.thread[i];
    t.linear = i;
    t.index = {i % b.x, i / b.x % b.y, i / b.x / b.y};
    t.copies.clear();
    t.groups.clear();
    t.fenced = false;
    std::fill(t.clock, t.clock + kLanes, 0u);
    t.clock[t.lane()] = 1;
    char* low = state.stacks + kStackBytes * i;
    *reinterpret_cast<uint64_t*>(low) = kCanary;
    prepare(t.fiber, low, kStackBytes, 64 + i % 61 * 64, run_thread);  // equal offsets would share cache sets
    make_ready(i);
  }
  go(state.host, next_ready());
  state.current = nullptr;
  if (state.counting) settle_block();
}

static const char* launch_fault(dim3 g, dim3 b, size_t shared_bytes, size_t limit) {
  const uint64_t threads = (uint64_t)b.x * b.y * b.z;
  if (!threads || threads > kMaxThreads || b.z > 64) return "block size";
  if (!g.x || !g.y || !g.z || g.y > 65535 || g.z > 65535 || g.x > 0x7fffffffu) return "grid size";
  if (shared_bytes > limit) return "dynamic shared memory needs cudaFuncSetAttribute";
  return nullptr;
}

static void allocate_once() {
  if (state.stacks) return;
  const auto reserve = [](size_t bytes) {
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return static_cast<char*>(p);
  };
  state.stacks = reserve(kStackBytes * kMaxThreads);
  state.arena = reserve(kArenaBytes);
}

int launch_grid(const char* name, const void* kernel, dim3 grid, dim3 block, size_t shared_bytes, bool checked,
                void (*body)(void*), void* arguments, size_t argument_bytes) {
  if (state.error.code) return state.error.code;
  state.kernel_name = name;
  size_t limit = kStaticLimit;
  for (const auto& allowed : state.dynamic_limits)
    if (allowed.first == kernel) limit = std::max(limit, (size_t)allowed.second);
  if (const char* fault = launch_fault(grid, block, shared_bytes, limit)) {
    char text[300];
    snprintf(text, sizeof text, "launch refused: %s (grid %u,%u,%u block %u,%u,%u shared %zu bytes)", fault, grid.x,
             grid.y, grid.z, block.x, block.y, block.z, shared_bytes);
    return refuse(kInvalidValue, text);
  }
  allocate_once();
  if (checked) ensure_checker();
  state.kernel = kernel;
  state.checked = checked;
  state.counting = checked && state.options.counting;
  state.body = body;
  state.arguments = arguments;
  state.argument_bytes = argument_bytes;
  state.grid = grid;
  state.block = block;
  state.threads = (int)(block.x * block.y * block.z);
  state.aborted = false;
  state.first_block = state.block_number + 1;
  state.released.clear();
  begin_shared(shared_bytes);
  if (state.counting) count_launch(name, grid, block);

  const uint64_t blocks = (uint64_t)grid.x * grid.y * grid.z;
  std::vector<uint32_t> order(blocks);
  std::iota(order.begin(), order.end(), 0u);
  if (state.options.order == 1) std::reverse(order.begin(), order.end());
  if (state.options.order == 2)
    for (uint64_t i = blocks; i > 1; --i) std::swap(order[i - 1], order[random_bits() % i]);
  for (uint64_t k = 0; k < blocks && !state.aborted; ++k) {
    const uint64_t i = order[k];
    state.block_index = {(unsigned)(i % grid.x), (unsigned)(i / grid.x % grid.y), (unsigned)(i / grid.x / grid.y)};
    ++state.block_number;
    ++state.epoch;
    run_block();
    check_shared_guard();
  }
  state.kernel_name = "";
  return state.error.code;
}

int allow_dynamic_shared(const void* kernel, int bytes) {
  if (bytes > state.options.shared_limit)
    return refuse(kInvalidValue, "cudaFuncSetAttribute: " + std::to_string(bytes) +
                                     " bytes of dynamic shared memory are above the device limit");
  state.dynamic_limits.push_back({kernel, bytes});
  return 0;
}

int device_attribute(int attribute, int* value) {
  switch (attribute) {
    case 16: return *value = state.options.multiprocessors, 0;
    case 75: return *value = state.options.compute_capability / 10, 0;
    case 76: return *value = state.options.compute_capability % 10, 0;
    case 81: return *value = state.options.shared_limit + 1024, 0;  // a block needs 1 KB more than it asks for
    case 97: return *value = state.options.shared_limit, 0;
  }
  return kInvalidValue;
}

}  // namespace executor
