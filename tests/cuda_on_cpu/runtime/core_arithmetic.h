// core_arithmetic.h -- the products that tensor cores form of float16 operands, bit by bit.
#pragma once

namespace executor {

constexpr int kCoreColumns = 16;

// c + sum of a[k] b[k] over 16 columns, as a card of this compute capability computes it (A100's cores for 8.x, H100's
// from 9.0 on). a, b: values of float16.
float core_products(const double* a, const double* b, float c, int compute_capability);

}  // namespace executor
