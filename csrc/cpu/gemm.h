// Matrix products on raw row-major pointers through the BLAS that torch itself carries (MKL in the PyPI builds).
//
//   gemm(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc):   C (m, n) = alpha op(A) op(B) + beta C
//
// all matrices row-major, op(X) = X' where its flag is true. sgemm_ / dgemm_ are looked up at run time among the
// libraries that are already loaded; without them a plain loop is used (correct, slow). Inside a parallel region MKL
// runs on one thread by itself; `SerialBlas` asks for that outside of one, too.
#pragma once
#include <cstdint>

namespace bertft {

void gemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda, const float* b,
          int64_t ldb, float beta, float* c, int64_t ldc);
void gemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, double alpha, const double* a, int64_t lda,
          const double* b, int64_t ldb, double beta, double* c, int64_t ldc);

// "blas" when sgemm_ and dgemm_ were found, else "loops".
const char* gemm_provider();

// While alive, BLAS calls from this thread use one thread (MKL; no effect elsewhere).
class SerialBlas {
 public:
  SerialBlas();
  ~SerialBlas();
  SerialBlas(const SerialBlas&) = delete;
  SerialBlas& operator=(const SerialBlas&) = delete;

 private:
  int before_;
};

}  // namespace bertft
