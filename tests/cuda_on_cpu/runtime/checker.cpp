// checker.cpp -- bounds, initialisation and races, decided at every access of an instrumented kernel.
//
// Memory is divided into cells of four bytes. A cell remembers up to two writers and two readers with the moment of
// their access: the barrier epoch (counts __syncthreads and blocks) and, for lanes of one warp, a vector clock that
// __syncwarp advances. Two accesses of different threads to the same byte, one of them a write, race unless a launch,
// a barrier, a __syncwarp, or (between blocks) a fence and an atomic lies between them.
#include <sys/mman.h>

#include <cstring>

#include "state.h"

namespace executor {

struct Record {
  uint32_t epoch, block, clock;
  uint16_t thread;
  uint8_t bytes;  // which of the cell's four; 0: no record
  uint8_t atomic;
};

struct Cell {
  Record writers[2], readers[2];
  uint32_t initialised_in;                // block number, for shared memory
  uint8_t initialised, valid, in_flight;  // byte masks
};

static Cell* reserve_cells(size_t count) {
  void* p =
      mmap(nullptr, count * sizeof(Cell), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return static_cast<Cell*>(p);
}

static size_t cell_count(const Buffer& b) { return (b.end - (b.begin & ~uintptr_t{3})) / 4 + 2; }

void ensure_checker() {
  if (!state.arena_cells) state.arena_cells = reserve_cells(kArenaBytes / 4 + 16);
}

void set_valid(size_t offset, size_t bytes, bool valid) {
  if (!state.arena_cells) return;
  for (size_t i = offset; i < offset + bytes; ++i) {
    uint8_t& mask = state.arena_cells[i / 4].valid;
    const uint8_t bit = (uint8_t)(1u << i % 4);
    mask = valid ? (uint8_t)(mask | bit) : (uint8_t)(mask & ~bit);
  }
}

void register_buffer(uintptr_t begin, size_t bytes, const std::string& name, bool read_only, bool uninitialised) {
  Buffer b{begin, begin + bytes, name, read_only, uninitialised, nullptr, {}};
  b.cells = reserve_cells(cell_count(b));
  state.buffers.push_back(b);
}

void release_buffers() {
  for (const Buffer& b : state.buffers) munmap(b.cells, cell_count(b) * sizeof(Cell));
  state.buffers.clear();
}

int fill_memory(void* memory, int value, size_t bytes) {
  if (state.error.code) return state.error.code;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(memory), end = begin + bytes;
  for (const Buffer& b : state.buffers) {
    if (begin < b.begin || end > b.end) continue;
    if (b.read_only) break;
    for (uintptr_t p = begin; p < end && b.uninitialised; ++p)
      b.cells[(p - (b.begin & ~uintptr_t{3})) / 4].initialised |= (uint8_t)(1u << p % 4);
    std::memset(memory, value, bytes);
    return 0;
  }
  if (!bytes) return 0;
  return refuse(kInvalidValue, "cudaMemset of " + std::to_string(bytes) + " bytes outside the call's writable arrays");
}

static bool stale(const Record& r) { return r.block != state.block_number || r.epoch != state.epoch; }

// Whether nothing orders the recorded access before the current thread's.
static bool unordered(const Record& r, const Thread& me, bool shared) {
  if (r.block < state.first_block) return false;
  if (r.block != state.block_number) return !shared && !state.acquired.count(r.block);
  if (r.epoch != state.epoch || r.thread == me.linear) return false;
  const bool same_warp = r.thread / kLanes == me.warp();
  return !(same_warp && me.clock[r.thread % kLanes] >= r.clock);
}

static const char* verb(Access kind) {
  switch (kind) {
    case Access::read: return "read";
    case Access::write: return "write";
    case Access::atomic: return "atomic";
    default: return "asynchronous copy";
  }
}

[[noreturn]] static void report_race(const Record& r, const char* theirs, Access kind, const std::string& name,
                                     long offset, Site site) {
  const dim3 b = state.block;
  const unsigned t = r.thread;
  fail(site, "RACE on %s, byte %ld: %s by this thread and %s by thread (%u,%u,%u) of %s with no barrier between",
       name.c_str(), offset, verb(kind), theirs, t % b.x, t / b.x % b.y, t / b.x / b.y,
       r.block == state.block_number ? "the same block" : "another block");
}

// Where an access lies: the shared arena, or one registered buffer.
struct Region {
  Cell* cells;
  uintptr_t base;
  bool shared;
  const Buffer* buffer;
  std::string name(uintptr_t address, long* offset) const {
    if (shared) return shared_name(address, offset);
    *offset = (long)(address - buffer->begin);
    return "'" + buffer->name + "'";
  }
};

[[noreturn]] static void report_stray(uintptr_t address, unsigned bytes, bool writes, Site site) {
  std::string text = "no array of this call is near";
  uintptr_t nearest = 1 << 16;
  for (const Buffer& b : state.buffers) {
    const bool after = address >= b.end, before = address < b.begin;
    const uintptr_t distance = after ? address - b.end : before ? b.begin - address : 0;
    if (distance >= nearest) continue;
    nearest = distance;
    text = std::to_string(distance) + (after ? " byte(s) past the end of '" : " byte(s) before the start of '") +
           b.name + "' (" + std::to_string(b.end - b.begin) + " bytes)";
  }
  fail(site, "OUT OF BOUNDS %s of %u bytes: %s", writes ? "write" : "read", bytes, text.c_str());
}

static bool find_region(uintptr_t address, unsigned bytes, bool writes, Site site, Region* region) {
  const uintptr_t arena = reinterpret_cast<uintptr_t>(state.arena);
  if (address >= arena && address < arena + kArenaBytes) {
    *region = {state.arena_cells, arena, true, nullptr};
    return true;
  }
  static size_t last = 0;
  size_t i = last;
  const auto inside = [&](const Buffer& b) { return address >= b.begin && address < b.end; };
  if (i >= state.buffers.size() || !inside(state.buffers[i]))
    for (i = 0; i < state.buffers.size() && !inside(state.buffers[i]);) ++i;
  if (i == state.buffers.size()) {
    const uintptr_t arguments = reinterpret_cast<uintptr_t>(state.arguments);
    if (address >= arguments && address < arguments + state.argument_bytes) return false;
    if (in_kernel_module(address)) return false;  // constants and __device__ variables
    report_stray(address, bytes, writes, site);
  }
  last = i;
  const Buffer& b = state.buffers[i];
  if (address + bytes > b.end)
    fail(site, "OUT OF BOUNDS %s of %u bytes straddles the end of '%s'", writes ? "write" : "read", bytes,
         b.name.c_str());
  if (writes && b.read_only)
    fail(site, "WRITE to read-only '%s', byte %lu", b.name.c_str(), (unsigned long)(address - b.begin));
  *region = {b.cells, b.begin & ~uintptr_t{3}, false, &b};
  return true;
}

static void check_contents(Cell& cell, uint8_t mask, Access kind, const Region& region, uintptr_t address, Site site) {
  long offset = 0;
  const bool writes = kind != Access::read;
  if (region.shared && (cell.valid & mask) != mask)
    fail(site, "OUT OF BOUNDS %s: %s", verb(kind), shared_name(address, &offset).c_str());
  if (region.shared && cell.initialised_in != state.block_number) {
    cell.initialised_in = state.block_number;
    cell.initialised = cell.in_flight = 0;
  }
  if ((cell.in_flight & mask) && kind != Access::copy_lands) {
    const std::string name = region.name(address, &offset);
    fail(site, "RACE on %s, byte %ld: %s while a cp.async copy to it has not been waited for", name.c_str(), offset,
         verb(kind));
  }
  if (kind == Access::copy_begins) cell.in_flight |= mask;
  if (kind == Access::copy_lands) cell.in_flight &= (uint8_t)~mask;
  if (!region.shared && !region.buffer->uninitialised) return;
  if (writes && kind != Access::atomic) {
    cell.initialised |= mask;
  } else if ((cell.initialised & mask) != mask) {
    const std::string name = region.name(address, &offset);
    fail(site, "UNINITIALISED read of %s, byte %ld: %s", name.c_str(), offset,
         region.shared ? "no thread of this block has written it" : "no kernel has written it");
  }
}

static void remember_write(Cell& cell, const Record& now) {
  Record* slot = nullptr;
  for (Record& r : cell.writers)
    if (!stale(r) && r.thread == now.thread && r.atomic == now.atomic) slot = &r;
  if (slot) {
    const uint8_t before = slot->bytes;
    *slot = now;
    slot->bytes |= before;
    return;
  }
  for (Record& r : cell.writers)
    if (!slot && (!r.bytes || stale(r) || (r.bytes & now.bytes))) slot = &r;
  *(slot ? slot : &cell.writers[1]) = now;
}

// Keeps a first reader and one of another warp, where there is one.
static void remember_read(Cell& cell, const Record& now) {
  Record &first = cell.readers[0], &other = cell.readers[1];
  if (!first.bytes || stale(first)) {
    first = now;
    other.bytes = 0;
  } else if (first.thread == now.thread) {
    const uint8_t before = first.bytes;
    first = now;
    first.bytes |= before;
  } else if (!other.bytes || stale(other) || other.thread / kLanes == first.thread / kLanes) {
    other = now;
  }
}

void check_access(uintptr_t address, unsigned bytes, Access kind, Site site) {
  const Thread& me = *state.current;
  const uintptr_t stack = reinterpret_cast<uintptr_t>(state.stacks) + kStackBytes * me.linear;
  if (address >= stack && address < stack + kStackBytes) return;
  ++state.accesses;
  if (state.counting) {
    const bool loads = kind == Access::read, atomic = kind == Access::atomic;
    return count_access(address, bytes, atomic ? Request::atomic : loads ? Request::load : Request::store, site);
  }
  const bool writes = kind != Access::read;
  Region region;
  if (!find_region(address, bytes, writes, site, &region)) return;
  if (bytes > 1 && bytes <= 16 && (bytes & (bytes - 1)) == 0 && address % bytes)
    fail(site, "MISALIGNED %s of %u bytes", verb(kind), bytes);
  if (!region.shared && kind == Access::write) state.current->fenced = false;

  for (uintptr_t word = address & ~uintptr_t{3}; word < address + bytes; word += 4) {
    uint8_t mask = 15;
    if (word < address) mask &= (uint8_t)(15u << (address - word));
    if (word + 4 > address + bytes) mask &= (uint8_t)(15u >> (word + 4 - (address + bytes)));
    Cell& cell = region.cells[(word - region.base) / 4];
    if (region.shared || region.buffer->uninitialised) check_contents(cell, mask, kind, region, word, site);
    const auto collide = [&](const Record& r, const char* theirs) {
      if (!(r.bytes & mask) || !unordered(r, me, region.shared)) return;
      long offset = 0;
      const std::string name = region.name(word, &offset);
      report_race(r, theirs, kind, name, offset, site);
    };
    for (const Record& r : cell.writers)
      if (!(kind == Access::atomic && r.atomic)) collide(r, r.atomic ? "an atomic" : "a write");
    if (writes)
      for (const Record& r : cell.readers) collide(r, "a read");
    const Record now{state.epoch, state.block_number,    me.clock[me.lane()], (uint16_t)me.linear,
                     mask,        kind == Access::atomic};
    if (writes) remember_write(cell, now);
    else remember_read(cell, now);
  }
}

}  // namespace executor
