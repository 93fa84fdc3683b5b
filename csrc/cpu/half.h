// bfloat16 and float16 numbers, as their 16 bits, to float and double.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace bertft {

inline float from_bfloat16(uint16_t bits) {
  const uint32_t wide = uint32_t(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

// Moves exponent and mantissa into place and rescales by 2^112, which is exact, subnormal numbers included; an
// exponent of all ones (infinity, NaN) is put back afterwards.
inline float from_float16(uint16_t bits) {
  const uint32_t magnitude = uint32_t(bits & 0x7fffu) << 13;
  uint32_t wide = magnitude;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  value *= 0x1p112f;
  std::memcpy(&wide, &value, sizeof wide);
  if (magnitude >= 0x0f800000u) wide = 0x7f800000u | (magnitude & 0x007fffffu);
  wide |= uint32_t(bits & 0x8000u) << 16;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

// out[i] = number i of `in`.
template <class T>
void widen(bool is_float16, const uint16_t* in, int64_t n, T* out) {
  if (is_float16)
    for (int64_t i = 0; i < n; ++i) out[i] = T(from_float16(in[i]));
  else
    for (int64_t i = 0; i < n; ++i) out[i] = T(from_bfloat16(in[i]));
}

}  // namespace bertft
