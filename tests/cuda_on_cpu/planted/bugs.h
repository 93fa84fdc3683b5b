// bugs.h -- planted bugs are template parameters, so that one compilation holds them all.
#pragma once

#include <type_traits>

// Calls f(std::integral_constant<int, bug>()) for a bug of 0 ... Last; an unknown bug is an invalid value.
template <int Last, class F>
int with_bug(int bug, F f) {
  if (bug == Last) return f(std::integral_constant<int, Last>());
  if constexpr (Last > 0) return with_bug<Last - 1>(bug, f);
  return 1;
}
