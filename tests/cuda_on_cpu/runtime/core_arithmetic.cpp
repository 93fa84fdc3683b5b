// core_arithmetic.cpp -- the arithmetic inside the tensor cores of A100 and H100, for float16 operands and float32 sums.
//
// A core takes a block of products (A100: 8, H100: 16) and the accumulator. All are aligned to the largest exponent
// among them, cut to 23 + extra fraction bits (A100: 1 extra, H100: 2), added exactly, and the sum is cut to float32.
// Every cut is towards zero. The exponent of a product is the sum of its operands' exponents, not normalised.
// Parameters: models A100TC.m and H100TC.m of north-numerical-computing/MATLAB-tensor-core, fitted to such cards.
#include "core_arithmetic.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace executor {

namespace {

constexpr int kHalfFraction = 10, kHalfLeast = -14, kFloatFraction = 23, kFloatLeast = -126;

struct Core {
  int block, extra;
};

// value = significand 2^(exponent - fraction bits)
struct Scaled {
  int64_t significand;
  int exponent;
};

// Of a finite value that has no more than `fraction` bits behind its leading one.
Scaled scaled(double value, int fraction, int least) {
  uint64_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const int exponent = (int)(bits >> 52 & 2047) - 1023;
  if (exponent == -1023) return {0, least};
  int64_t size = (int64_t)((bits & (1ull << 52) - 1) | 1ull << 52) >> (52 - fraction);
  if (exponent < least) size >>= std::min(62, least - exponent);
  return {value < 0 ? -size : size, std::max(exponent, least)};
}

int64_t shifted_towards_zero(int64_t v, int places) {
  const int64_t size = std::llabs(v) >> std::min(62, places);
  return v < 0 ? -size : size;
}

// sum 2^exponent, cut to the 24 bits of a float (fewer below its normal range)
float cut(int64_t sum, int exponent) {
  int64_t size = std::llabs(sum);
  while (size >> (kFloatFraction + 1) || (size && exponent < kFloatLeast - kFloatFraction)) size >>= 1, ++exponent;
  const double value = std::ldexp((double)size, exponent);
  return (float)(sum < 0 ? -value : value);
}

float block_products(const double* a, const double* b, float c, Core core) {
  Scaled products[kCoreColumns];
  const Scaled start = scaled(c, kFloatFraction, kFloatLeast);
  int largest = start.significand ? start.exponent : INT32_MIN;
  for (int k = 0; k < core.block; ++k) {
    const Scaled x = scaled(a[k], kHalfFraction, kHalfLeast), y = scaled(b[k], kHalfFraction, kHalfLeast);
    products[k] = {x.significand * y.significand, x.exponent + y.exponent};
    if (products[k].significand) largest = std::max(largest, products[k].exponent);
  }
  if (largest == INT32_MIN) return 0;
  int64_t sum = 0;
  if (start.significand) sum = shifted_towards_zero(start.significand << core.extra, largest - start.exponent);
  for (int k = 0; k < core.block; ++k) {
    if (!products[k].significand) continue;
    const int64_t aligned = products[k].significand * (1ll << (kFloatFraction + core.extra - 2 * kHalfFraction));
    sum += shifted_towards_zero(aligned, largest - products[k].exponent);
  }
  return cut(sum, largest - kFloatFraction - core.extra);
}

}  // namespace

float core_products(const double* a, const double* b, float c, int compute_capability) {
  bool finite = std::isfinite(c);
  double sum = c;
  for (int k = 0; k < kCoreColumns; ++k) {
    finite = finite && std::isfinite(a[k]) && std::isfinite(b[k]);
    sum += a[k] * b[k];
  }
  if (!finite) return (float)sum;
  const Core core = compute_capability >= 90 ? Core{16, 2} : Core{8, 1};
  for (int k = 0; k < kCoreColumns; k += core.block) c = block_products(a + k, b + k, c, core);
  return c;
}

}  // namespace executor
