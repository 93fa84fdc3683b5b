// atomics.h -- fibers are never pre-empted, so a plain update is atomic; the race checker records that it was one.
#pragma once

#include <type_traits>

#include "runtime_api.h"

#define EXECUTOR_ATOMIC(name, updated)                                                                             \
  template <class T>                                                                                               \
  EXECUTOR_UNCHECKED static inline T name(T* address, typename std::common_type<T>::type value, EXECUTOR_CALLER) { \
    executor::note_access(address, sizeof(T), true, true, EXECUTOR_SITE);                                          \
    const T old = *address;                                                                                        \
    *address = (updated);                                                                                          \
    return old;                                                                                                    \
  }

EXECUTOR_ATOMIC(atomicAdd, T(old + value))
EXECUTOR_ATOMIC(atomicSub, T(old - value))
EXECUTOR_ATOMIC(atomicMax, (old < value ? value : old))
EXECUTOR_ATOMIC(atomicMin, (value < old ? value : old))
EXECUTOR_ATOMIC(atomicExch, value)
EXECUTOR_ATOMIC(atomicOr, T(old | value))
EXECUTOR_ATOMIC(atomicAnd, T(old& value))
EXECUTOR_ATOMIC(atomicXor, T(old ^ value))
EXECUTOR_ATOMIC(atomicInc, T(old >= value ? 0 : old + 1))
#undef EXECUTOR_ATOMIC

template <class T>
EXECUTOR_UNCHECKED static inline T atomicCAS(T* address, typename std::common_type<T>::type expected,
                                             typename std::common_type<T>::type value, EXECUTOR_CALLER) {
  executor::note_access(address, sizeof(T), true, true, EXECUTOR_SITE);
  const T old = *address;
  if (old == expected) *address = value;
  return old;
}
