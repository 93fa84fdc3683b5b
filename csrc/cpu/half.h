// bfloat16 and float16 numbers, as their 16 bits, to float and double.
#pragma once
#ifdef __F16C__
#include <immintrin.h>
#endif

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

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
  int64_t i = 0;
  if (!is_float16) {
    for (; i < n; ++i) out[i] = T(from_bfloat16(in[i]));
    return;
  }
#ifdef __F16C__
  if constexpr (std::is_same_v<T, float>)
    for (; i + 8 <= n; i += 8)
      _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i))));
#endif
  for (; i < n; ++i) out[i] = T(from_float16(in[i]));
}

}  // namespace bertft
