// counters.cpp -- requests of warps, put together from the accesses of their lanes, and what they cost.
#include "counters.h"

#include <algorithm>
#include <bit>

#include "state.h"

namespace executor {

std::vector<LaunchCount> launch_counts;

namespace {

constexpr unsigned kBanks = 32, kSector = 32, kLine = 128;

// One instruction's accesses in a warp that have not been taken apart yet.
struct Pending {
  uintptr_t key;
  size_t instruction;  // in the launch's list
  unsigned depth = 0;  // requests in use
  std::vector<unsigned> masks;
  std::vector<uintptr_t> addresses;  // 32 a request
  unsigned taken[kLanes] = {};       // accesses of each lane
};

struct Warp {
  std::vector<Pending> pending;
  size_t last = 0;
  bool any = false;
};

Warp warps[kMaxThreads / kLanes];

uintptr_t key_of(Site site, Request what, bool shared) {
  const auto place = site.pc ? reinterpret_cast<uintptr_t>(site.pc) : reinterpret_cast<uintptr_t>(site.file);
  return ((place << 16) + (uintptr_t)site.line) * 16 + (uintptr_t)what * 2 + shared;
}

bool in_shared(uintptr_t address) {
  const auto arena = reinterpret_cast<uintptr_t>(state.arena);
  return address >= arena && address < arena + kArenaBytes;
}

// The array of the call that holds an address; null for constants and arguments, which have a cache of their own.
Buffer* buffer_of(uintptr_t address) {
  static size_t last = 0;
  const auto holds = [&](const Buffer& b) { return address >= b.begin && address < b.end; };
  if (last < state.buffers.size() && holds(state.buffers[last])) return &state.buffers[last];
  for (last = 0; last < state.buffers.size(); ++last)
    if (holds(state.buffers[last])) return &state.buffers[last];
  return nullptr;
}

size_t instruction_at(Site site, Request what, bool shared, unsigned bytes) {
  auto& list = launch_counts.back().instructions;
  const uintptr_t key = key_of(site, what, shared);
  for (size_t i = 0; i < list.size(); ++i)
    if (key_of(list[i].site, list[i].what, list[i].shared) == key) return i;
  list.push_back({site, what, shared, bytes});
  return list.size() - 1;
}

Pending& pending_of(Warp& warp, Site site, Request what, bool shared, unsigned bytes) {
  const uintptr_t key = key_of(site, what, shared);
  // code runs on: the instruction after the last one is likely the next one
  for (size_t step = 0; step < warp.pending.size(); ++step) {
    const size_t i = (warp.last + step) % warp.pending.size();
    if (warp.pending[i].key != key) continue;
    warp.last = i;
    return warp.pending[i];
  }
  warp.pending.emplace_back();
  warp.last = warp.pending.size() - 1;
  warp.pending.back().key = key;
  warp.pending.back().instruction = instruction_at(site, what, shared, bytes);
  return warp.pending.back();
}

// Distinct values of (address ... address + bytes - 1) / unit among the lanes of a request, in order.
unsigned distinct(const uintptr_t* address, unsigned mask, unsigned bytes, unsigned unit, uintptr_t* found) {
  unsigned count = 0;
  for (unsigned m = mask; m; m &= m - 1) {
    const uintptr_t a = address[__builtin_ctz(m)];
    for (uintptr_t v = a / unit; v <= (a + bytes - 1) / unit; ++v)
      if (count == 0 || found[count - 1] != v) found[count++] = v;
  }
  std::sort(found, found + count);
  return (unsigned)(std::unique(found, found + count) - found);
}

// Marks sectors of global memory as read or written, in this launch and, unless they pass L1 by, in this block.
void mark(const uintptr_t* sectors, unsigned count, bool writes, bool passes) {
  LaunchCount& launch = launch_counts.back();
  for (unsigned i = 0; i < count; ++i) {
    Buffer* b = buffer_of(sectors[i] * kSector);
    if (!b) b = buffer_of(sectors[i] * kSector + kSector - 1);  // one that begins inside the sector
    if (!b) continue;
    const uintptr_t first = b->begin / kSector;
    if (b->marks.empty()) b->marks.resize((b->end - 1) / kSector - first + 1);
    auto& mark = b->marks[sectors[i] - first];
    uint32_t& last = writes ? mark.written_by : mark.read_by;
    (writes ? launch.written : launch.read) += last < state.first_block;
    (writes ? launch.written_by_block : launch.read_by_block) += passes || last != state.block_number;
    last = state.block_number;
  }
}

void take_apart(Instruction& to, const uintptr_t* address, unsigned mask) {
  ++to.requests;
  to.lanes += (unsigned)std::popcount(mask);
  if (to.shared) {
    unsigned least = 0;
    to.wavefronts += wavefronts(address, mask, to.bytes, to.what == Request::atomic, &least);
    to.least_wavefronts += least;
    return;
  }
  uintptr_t found[2 * kLanes];
  to.least_sectors += (distinct(address, mask, 1, 1, found) * to.bytes + kSector - 1) / kSector;
  to.lines += distinct(address, mask, to.bytes, kLine, found);
  const unsigned sectors = distinct(address, mask, to.bytes, kSector, found);
  to.sectors += sectors;
  const bool reads = to.what == Request::load || to.what == Request::copy_from;
  mark(found, sectors, !reads, to.what != Request::load);
}

}  // namespace

// Most words that one bank has to give, for the lanes of `mask`; of an atomic, every lane's word counts.
static unsigned most_of_a_bank(const uintptr_t* address, unsigned mask, unsigned bytes, bool atomic) {
  static uintptr_t words[kBanks][4 * kLanes];  // not on a fiber's small stack
  unsigned count[kBanks] = {}, most = 0;
  for (unsigned m = mask; m; m &= m - 1) {
    const uintptr_t first = address[__builtin_ctz(m)] / 4, last = (address[__builtin_ctz(m)] + bytes - 1) / 4;
    for (uintptr_t word = first; word <= last; ++word) {
      const unsigned bank = word % kBanks;
      const uintptr_t* end = words[bank] + count[bank];
      if (!atomic && std::find(static_cast<const uintptr_t*>(words[bank]), end, word) != end) continue;
      words[bank][count[bank]++] = word;
      most = std::max(most, count[bank]);
    }
  }
  return most;
}

static bool neighbours_agree(const uintptr_t* address, unsigned mask, unsigned apart) {
  for (unsigned i = 0; i < kLanes; ++i) {
    const unsigned j = i ^ apart;
    if ((mask >> i & 1) && (mask >> j & 1) && address[i] != address[j]) return false;
  }
  return true;
}

unsigned wavefronts(const uintptr_t* address, unsigned mask, unsigned bytes, bool atomic, unsigned* least) {
  const unsigned groups = bytes <= 4 ? 1 : bytes / 4;
  const bool packed =
      groups > 1 && !atomic && (neighbours_agree(address, mask, 1) || neighbours_agree(address, mask, 2));
  const unsigned parts = packed ? groups / 2 : groups, width = kLanes / parts;
  unsigned passes = 0;
  *least = 0;
  for (unsigned g = 0; g < parts; ++g) {
    const unsigned lanes = mask & (0xffffffffu >> (kLanes - width) << (g * width));
    if (!lanes) continue;
    passes += most_of_a_bank(address, lanes, bytes, atomic);
    ++*least;
  }
  return passes;
}

void count_launch(const char* kernel, dim3 grid, dim3 block) {
  launch_counts.push_back({kernel, grid, block});
  for (Warp& warp : warps) warp = {};
}

void count_access(uintptr_t address, unsigned bytes, Request what, Site site) {
  if (!in_shared(address) && !buffer_of(address)) return;
  if (bytes > 16 || (bytes & (bytes - 1))) {  // a structure: as words
    for (unsigned at = 0; at < bytes; at += 4) {
      site.line += 1024;
      count_access(address + at, std::min(4u, std::bit_floor(bytes - at)), what, site);
    }
    return;
  }
  const unsigned lane = state.current->lane();
  Warp& warp = warps[state.current->warp()];
  Pending& p = pending_of(warp, site, what, in_shared(address), bytes);
  const unsigned turn = p.taken[lane]++;
  if (turn == p.masks.size()) {
    p.masks.push_back(0);
    p.addresses.resize(p.addresses.size() + kLanes);
  }
  p.depth = std::max(p.depth, turn + 1);
  p.masks[turn] |= 1u << lane;
  p.addresses[turn * kLanes + lane] = address;
  warp.any = true;
}

void settle_warp(unsigned index) {
  Warp& warp = warps[index];
  if (!warp.any) return;
  warp.any = false;
  for (Pending& p : warp.pending) {
    for (unsigned turn = 0; turn < p.depth; ++turn) {
      take_apart(launch_counts.back().instructions[p.instruction], &p.addresses[turn * kLanes], p.masks[turn]);
      p.masks[turn] = 0;
    }
    p.depth = 0;
    std::fill(p.taken, p.taken + kLanes, 0u);
  }
}

void settle_block() {
  for (unsigned w = 0; w * kLanes < (unsigned)state.threads; ++w) settle_warp(w);
}

void count_matrix(const void* const* rows, int matrices, Site site) {
  Instruction& to = launch_counts.back().instructions[instruction_at(site, Request::matrix, true, 16)];
  ++to.requests;
  to.lanes += kLanes;
  for (int m = 0; m < matrices; ++m) {
    uintptr_t address[kLanes] = {};
    for (int r = 0; r < 8; ++r) address[r] = reinterpret_cast<uintptr_t>(rows[8 * m + r]);
    to.wavefronts += most_of_a_bank(address, 0xffu, 16, false);
    ++to.least_wavefronts;
  }
}

void count_tensor() { ++launch_counts.back().tensor; }
void count_exchange() { ++launch_counts.back().exchanges; }
void count_barrier() {
  ++launch_counts.back().barriers;
  settle_block();
}

}  // namespace executor
