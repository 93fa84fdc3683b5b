// state.h -- everything the runtime knows about the launch that is running. One launch at a time, one OS thread.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "../device/runtime_api.h"
#include "counters.h"
#include "fiber.h"

namespace executor {

constexpr int kLanes = 32;
constexpr int kMaxThreads = 1024;
constexpr size_t kStackBytes = 128 << 10;
constexpr size_t kArenaBytes = 384 << 10;  // shared memory: static from 0, dynamic from kDynamicOffset
constexpr size_t kDynamicOffset = 128 << 10;
constexpr size_t kStaticLimit = 48 << 10;
constexpr int kLaunchFailure = 719, kInvalidValue = 1;  // CUDA's error numbers

enum class Status : uint8_t { ready, at_barrier, in_warp_operation, finished };

struct PendingCopy {
  void* to;
  const void* from;
  unsigned bytes, zero_filled;
  Site site;
};

struct Thread {
  Fiber fiber;
  uint3 index;
  unsigned linear;
  Status status;
  Site site;       // where it waits
  uint64_t value;  // operand, then result of a warp operation
  int argument;
  const double *a, *b;  // mma fragments
  const void* row;      // ldmatrix
  std::vector<PendingCopy> copies;
  std::vector<size_t> groups;  // number of copies up to each commit
  uint32_t clock[kLanes];      // vector clock: what of each lane is ordered before this thread by __syncwarp
  bool fenced;                 // __threadfence since the last global write
  unsigned lane() const { return linear % kLanes; }
  unsigned warp() const { return linear / kLanes; }
};

// Lanes that are meeting in one warp operation.
struct Meeting {
  WarpOp kind;
  unsigned mask, arrived;
  int width;
  Site site;
};

struct BarrierState {
  Barrier kind;
  Site site;
  int waiting = 0, accumulated = 0, result = 0;
};

// One byte range that a kernel may touch; `cells` is the checker's record of it.
struct Cell;
struct Buffer {
  uintptr_t begin, end;
  std::string name;
  bool read_only, uninitialised;
  Cell* cells;
  struct Marks {
    uint32_t read_by, written_by;  // the last block
  };
  std::vector<Marks> marks;  // of each sector, where requests are counted
};

struct SharedArray {
  const void* key;
  size_t offset, size;
  std::string name;
};

struct Error {
  int code = 0;
  std::string kernel, message;
  bool in_thread = false;
  uint3 block{}, thread{};
  Site site;
};

struct Options {
  int order = 0;  // 0 ascending, 1 descending, 2 random
  uint64_t random = 1;
  int shared_limit = 227 << 10;
  int multiprocessors = 4;
  int compute_capability = 90;
  bool counting = false;  // in place of checking
};

struct State {
  Options options;
  Error error;
  // launch
  const char* kernel_name = "";  // of the launch that runs, else empty
  const void* kernel = nullptr;
  bool checked = false, counting = false;
  void (*body)(void*) = nullptr;
  void* arguments = nullptr;
  size_t argument_bytes = 0;
  dim3 grid, block;
  uint3 block_index{};
  int threads = 0;
  bool aborted = false;
  uint32_t first_block = 0, block_number = 0, epoch = 0;  // counted over the life of the process
  // block
  Thread thread[kMaxThreads];
  std::vector<Meeting> meetings[kMaxThreads / kLanes];
  BarrierState barrier;
  int finished = 0;
  Thread* current = nullptr;
  Fiber host;
  unsigned ready[kMaxThreads];
  unsigned ready_head = 0, ready_count = 0;
  // memory
  char* stacks = nullptr;
  char* arena = nullptr;
  Cell* arena_cells = nullptr;
  std::vector<SharedArray> shared;
  size_t static_used = 0, dynamic_size = 0;
  std::vector<Buffer> buffers;
  std::vector<std::pair<const void*, int>> dynamic_limits;
  std::unordered_map<uintptr_t, std::vector<uint32_t>> released;  // blocks that passed a fence, then this atomic
  std::unordered_set<uint32_t> acquired;                          // blocks that the running block has seen released
  // figures for the curious
  uint64_t switches = 0, accesses = 0;
};

extern State state;

// scheduler.cpp
uint32_t random_bits();
void make_ready(unsigned linear);
void park();  // the current thread waits (or is finished); another one continues
void run_block();
void release_barrier();
void abandon_block();  // leave the fiber for good, back to the host

// error.cpp
[[noreturn]] void fail(Site site, const char* format, ...) __attribute__((format(printf, 2, 3)));
[[noreturn]] void fail_block(const std::string& message);  // blames no single thread
int refuse(int code, const std::string& message);          // host side
std::string at(Site site);
const char* name_of(WarpOp kind);

// shared_memory.cpp
void begin_shared(size_t dynamic_bytes);
void poison_shared();
void check_shared_guard();
std::string shared_name(uintptr_t address, long* offset);

// checker.cpp
enum class Access { read, write, atomic, copy_begins, copy_lands };
void check_access(uintptr_t address, unsigned bytes, Access kind, Site site);
void set_valid(size_t arena_offset, size_t bytes, bool valid);
void ensure_checker();
bool in_kernel_module(uintptr_t address);  // hooks.cpp
void release_buffers();
void register_buffer(uintptr_t begin, size_t bytes, const std::string& name, bool read_only, bool uninitialised);

}  // namespace executor
