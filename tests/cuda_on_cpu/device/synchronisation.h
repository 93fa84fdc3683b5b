// synchronisation.h -- barriers, warp shuffles, votes and reductions, fences.
#pragma once

#include <type_traits>

#include "runtime_api.h"

static inline void __syncthreads(EXECUTOR_CALLER) {
  executor::block_barrier(executor::Barrier::sync, 0, EXECUTOR_SITE);
}
static inline int __syncthreads_count(int predicate, EXECUTOR_CALLER) {
  return executor::block_barrier(executor::Barrier::count, predicate, EXECUTOR_SITE);
}
static inline int __syncthreads_and(int predicate, EXECUTOR_CALLER) {
  return executor::block_barrier(executor::Barrier::all, predicate, EXECUTOR_SITE);
}
static inline int __syncthreads_or(int predicate, EXECUTOR_CALLER) {
  return executor::block_barrier(executor::Barrier::any, predicate, EXECUTOR_SITE);
}
static inline void __syncwarp(unsigned mask = 0xffffffffu, EXECUTOR_CALLER) {
  executor::warp_operation(executor::WarpOp::sync, mask, 0, 0, 32, EXECUTOR_SITE);
}
static inline void __trap(EXECUTOR_CALLER) { executor::trap("__trap()", EXECUTOR_SITE); }
static inline void __threadfence() { executor::note_fence(); }
static inline void __threadfence_block() {}

// Time is not modelled: every question finds the clock a cycle later.
static inline long long clock64() {
  static long long cycles = 0;
  return ++cycles;
}

namespace executor {
template <class T>
EXECUTOR_UNCHECKED inline T shuffle(WarpOp kind, unsigned mask, T value, int argument, int width, Site site) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable<T>::value, "CUDA shuffles types of 4 or 8 bytes");
  uint64_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof value);
  bits = warp_operation(kind, mask, bits, argument, width, site);
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}
}  // namespace executor

template <class T>
static inline T __shfl_sync(unsigned mask, T value, int lane, int width = 32, EXECUTOR_CALLER) {
  return executor::shuffle(executor::WarpOp::shuffle, mask, value, lane, width, EXECUTOR_SITE);
}
template <class T>
static inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, EXECUTOR_CALLER) {
  return executor::shuffle(executor::WarpOp::shuffle_up, mask, value, (int)delta, width, EXECUTOR_SITE);
}
template <class T>
static inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, EXECUTOR_CALLER) {
  return executor::shuffle(executor::WarpOp::shuffle_down, mask, value, (int)delta, width, EXECUTOR_SITE);
}
template <class T>
static inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, EXECUTOR_CALLER) {
  return executor::shuffle(executor::WarpOp::shuffle_xor, mask, value, lanes, width, EXECUTOR_SITE);
}
static inline unsigned __ballot_sync(unsigned mask, int predicate, EXECUTOR_CALLER) {
  return (unsigned)executor::warp_operation(executor::WarpOp::ballot, mask, predicate != 0, 0, 32, EXECUTOR_SITE);
}
static inline int __any_sync(unsigned mask, int predicate, EXECUTOR_CALLER) {
  return executor::warp_operation(executor::WarpOp::ballot, mask, predicate != 0, 0, 32, EXECUTOR_SITE) != 0;
}
static inline int __all_sync(unsigned mask, int predicate, EXECUTOR_CALLER) {
  return executor::warp_operation(executor::WarpOp::ballot, mask, predicate != 0, 0, 32, EXECUTOR_SITE) == mask;
}
static inline unsigned __reduce_add_sync(unsigned mask, unsigned value, EXECUTOR_CALLER) {
  return (unsigned)executor::warp_operation(executor::WarpOp::reduce_add, mask, value, 0, 32, EXECUTOR_SITE);
}
