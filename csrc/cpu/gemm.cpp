#include "gemm.h"

#include <dlfcn.h>

#include <initializer_list>

namespace bertft {
namespace {

template <class T>
using Blas = void (*)(const char*, const char*, const int*, const int*, const int*, const T*, const T*, const int*,
                      const T*, const int*, const T*, T*, const int*);

// Python loads torch with RTLD_LOCAL, so its BLAS may be missing from the global scope. This library is linked against
// libtorch_cpu, so that the symbols are in its own scope; libtorch_cpu itself is searched last.
void* find(const char* name) {
#ifdef BERTFT_NO_BLAS
  (void)name;
  return nullptr;
#else
  if (void* symbol = dlsym(RTLD_DEFAULT, name)) return symbol;
  for (const char* library : {"libtorch_cpu.so", "libtorch_cpu.dylib"})
    if (void* handle = dlopen(library, RTLD_LAZY | RTLD_NOLOAD))
      if (void* symbol = dlsym(handle, name)) return symbol;
  return nullptr;
#endif
}

const auto sgemm = reinterpret_cast<Blas<float>>(find("sgemm_"));
const auto dgemm = reinterpret_cast<Blas<double>>(find("dgemm_"));
const auto set_threads = reinterpret_cast<int (*)(int)>(find("MKL_Set_Num_Threads_Local"));

Blas<float> blas(float) { return sgemm; }
Blas<double> blas(double) { return dgemm; }

template <class T>
void loops(bool ta, bool tb, int64_t m, int64_t n, int64_t k, T alpha, const T* a, int64_t lda, const T* b, int64_t ldb,
           T beta, T* c, int64_t ldc) {
  for (int64_t i = 0; i < m; ++i) {
    T* row = c + i * ldc;
    for (int64_t j = 0; j < n; ++j) row[j] = beta == T(0) ? T(0) : beta * row[j];
    for (int64_t x = 0; x < k; ++x) {
      const T scale = alpha * (ta ? a[x * lda + i] : a[i * lda + x]);
      if (tb)
        for (int64_t j = 0; j < n; ++j) row[j] += scale * b[j * ldb + x];
      else
        for (int64_t j = 0; j < n; ++j) row[j] += scale * b[x * ldb + j];
    }
  }
}

// Row-major C = A B is column-major C' = B' A', so the operands swap places. BLAS counts in 32-bit integers and in
// leading dimensions of at least one; an empty product only scales C.
template <class T>
void product(bool ta, bool tb, int64_t m, int64_t n, int64_t k, T alpha, const T* a, int64_t lda, const T* b,
             int64_t ldb, T beta, T* c, int64_t ldc) {
  if (m == 0 || n == 0) return;
  const int64_t limit = INT32_MAX;
  const bool fits = m <= limit && n <= limit && k <= limit && lda <= limit && ldb <= limit && ldc <= limit;
  if (k == 0 || !fits || !blas(T())) return loops(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  const int M = int(m), N = int(n), K = int(k), LA = int(lda), LB = int(ldb), LC = int(ldc);
  blas(T())(tb ? "T" : "N", ta ? "T" : "N", &N, &M, &K, &alpha, b, &LB, a, &LA, &beta, c, &LC);
}

}  // namespace

void gemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda, const float* b,
          int64_t ldb, float beta, float* c, int64_t ldc) {
  product(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

void gemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, double alpha, const double* a, int64_t lda,
          const double* b, int64_t ldb, double beta, double* c, int64_t ldc) {
  product(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

const char* gemm_provider() { return sgemm && dgemm ? "blas" : "loops"; }

SerialBlas::SerialBlas() : before_(set_threads ? set_threads(1) : 0) {}
SerialBlas::~SerialBlas() {
  if (set_threads) set_threads(before_);
}

}  // namespace bertft
