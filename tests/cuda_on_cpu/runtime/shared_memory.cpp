// shared_memory.cpp -- the arena that stands for one block's shared memory, and asynchronous copies into it.
#include <algorithm>
#include <cstring>

#include "state.h"

namespace executor {

static const size_t kGuard = 512;  // bytes behind dynamic shared memory that must stay poisoned
static const int kPoison = 0xff;   // NaN in every float format, -1 in every integer

void begin_shared(size_t dynamic_bytes) {
  for (const SharedArray& a : state.shared) set_valid(a.offset, a.size, false);
  state.shared.clear();
  state.static_used = 0;
  state.dynamic_size = dynamic_bytes;
  if (!dynamic_bytes) return;
  state.shared.push_back({nullptr, kDynamicOffset, dynamic_bytes, "dynamic shared memory"});
  set_valid(kDynamicOffset, dynamic_bytes, true);
}

// No value may survive from the block before.
void poison_shared() {
  std::memset(state.arena, kPoison, state.static_used);
  std::memset(state.arena + kDynamicOffset, kPoison, state.dynamic_size + kGuard);
}

// For plain mode, which does not see the access itself.
void check_shared_guard() {
  const char* end = state.arena + kDynamicOffset + state.dynamic_size;
  for (size_t i = 0; i < kGuard; ++i)
    if (static_cast<unsigned char>(end[i]) != kPoison) {
      const std::string size = std::to_string(state.dynamic_size);
      refuse(kLaunchFailure, "OUT OF BOUNDS write past the end of dynamic shared memory (" + size + " bytes)");
      state.aborted = true;
      return;
    }
}

void* static_shared(const void* key, size_t size, size_t alignment, const char* name) {
  size_t total = size;
  for (const SharedArray& a : state.shared) {
    if (a.key == key) return state.arena + a.offset;
    if (a.key) total += a.size;
  }
  if (total > kStaticLimit) fail({}, "static shared memory of %zu bytes exceeds 48 KB", total);
  const size_t gap = 64, unit = std::max<size_t>(alignment, 32);
  const size_t offset = (state.static_used + gap + unit - 1) / unit * unit;
  state.shared.push_back({key, offset, size, name});
  state.static_used = offset + size;
  std::memset(state.arena + offset, kPoison, size);
  set_valid(offset, size, true);
  return state.arena + offset;
}

void* dynamic_shared() { return state.arena + kDynamicOffset; }

std::string shared_name(uintptr_t address, long* offset) {
  const uintptr_t arena = reinterpret_cast<uintptr_t>(state.arena);
  for (const SharedArray& a : state.shared)
    if (address + 4 > arena + a.offset && address < arena + a.offset + a.size) {
      *offset = (long)(address - arena - a.offset);
      return "shared '" + a.name + "'";
    }
  for (const SharedArray& a : state.shared) {
    const uintptr_t end = arena + a.offset + a.size;
    if (address >= end && address - end < 64)
      return "shared memory " + std::to_string(address - end) + " byte(s) past the end of '" + a.name + "' (" +
             std::to_string(a.size) + " bytes)";
  }
  return "shared memory that no array owns";
}

void async_copy(void* shared, const void* global, unsigned bytes, unsigned zero_filled, Site site) {
  const auto to = reinterpret_cast<uintptr_t>(shared), from = reinterpret_cast<uintptr_t>(global);
  if (bytes != 4 && bytes != 8 && bytes != 16) fail(site, "cp.async of %u bytes (4, 8 or 16 are allowed)", bytes);
  if (zero_filled > bytes) fail(site, "cp.async of %u bytes with %u bytes of zeros", bytes, zero_filled);
  if (to % bytes || from % bytes) fail(site, "cp.async of %u bytes: misaligned address", bytes);
  if (static_cast<char*>(shared) < state.arena || static_cast<char*>(shared) >= state.arena + kArenaBytes)
    fail(site, "cp.async: the destination is not in shared memory");
  if (state.counting) {
    if (bytes > zero_filled) count_access(from, bytes - zero_filled, Request::copy_from, site);
    count_access(to, bytes, Request::copy_to, site);
  } else if (state.checked) {
    if (bytes > zero_filled) check_access(from, bytes - zero_filled, Access::read, site);
    check_access(to, bytes, Access::copy_begins, site);
  }
  std::memset(shared, kPoison, bytes);
  state.current->copies.push_back({shared, global, bytes, zero_filled, site});
}

void async_commit() { state.current->groups.push_back(state.current->copies.size()); }

void async_wait(unsigned newest_groups_left) {
  Thread* me = state.current;
  if (me->groups.size() <= newest_groups_left) return;
  const size_t groups = me->groups.size() - newest_groups_left, copies = me->groups[groups - 1];
  for (size_t i = 0; i < copies; ++i) {
    const PendingCopy& c = me->copies[i];
    if (state.checked && !state.counting) check_access(reinterpret_cast<uintptr_t>(c.to), c.bytes, Access::copy_lands, c.site);
    std::memcpy(c.to, c.from, c.bytes - c.zero_filled);
    std::memset(static_cast<char*>(c.to) + c.bytes - c.zero_filled, 0, c.zero_filled);
  }
  me->copies.erase(me->copies.begin(), me->copies.begin() + (long)copies);
  me->groups.erase(me->groups.begin(), me->groups.begin() + (long)groups);
  for (size_t& upto : me->groups) upto -= copies;
}

}  // namespace executor
