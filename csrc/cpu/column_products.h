// C += A'B for matrices that are filled row by row, such as U'V of two spaces over stimuli.
//
// A `Panels` holds a matrix as panels of kPanel columns, each panel row after row, so that a tile of C, kTall by kPanel
// numbers in registers, reads both its operands in order: kTall of A are broadcast against three vectors of B. The same
// copy works on either side, and the upper triangle of A'A costs half a product plus half a panel: BLAS offers neither
// (its general product repacks both operands at each call and knows no triangle; torch does not export syrk).
//
// Presumption: kSlab rows of a panel stay in the first cache level, kSlab rows of the panels of a block of C in the
// second. Columns past the last are zero.
#pragma once
#include <algorithm>
#include <cstdint>

#include "rows.h"
#include "simd.h"

namespace bertft {

template <class T>
inline constexpr int kPanel = 3 * kLanes<T>;  // columns
// Rows of a tile that fit the registers, 32 with AVX-512 and on ARM, else 16, and divide a panel.
#if BERTFT_VECTOR_BYTES > 16
inline constexpr int kTall = BERTFT_VECTOR_BYTES == 64 ? 8 : 4;
#elif defined(__aarch64__)
inline constexpr int kTall = 6;
#else
inline constexpr int kTall = 3;
#endif
constexpr int64_t kSlab = 128;       // rows: 12 KB of a panel of 32-byte vectors
constexpr int64_t kSkew = 10;        // rows between panels: else their heads compete for the same cache sets
constexpr int64_t kBlockPanels = 8;  // panels to a side of a block of C: 192 floats of 32-byte vectors
static_assert(kPanel<float> % kTall == 0 && kPanel<double> % kTall == 0);

template <class T>
class Panels {
 public:
  Panels(int64_t columns, int64_t rows)
      : columns_(columns), rows_(rows + kSkew), data_(aligned<T>(panels() * rows_ * kPanel<T>)) {
    if (columns % kPanel<T>) std::fill_n(data_.get() + (panels() - 1) * rows_ * kPanel<T>, rows_ * kPanel<T>, T(0));
  }

  int64_t columns() const { return columns_; }
  int64_t panels() const { return (columns_ + kPanel<T> - 1) / kPanel<T>; }
  const T* at(int64_t panel, int64_t row) const { return data_.get() + (panel * rows_ + row) * kPanel<T>; }
  T* mutable_at(int64_t panel, int64_t row) { return data_.get() + (panel * rows_ + row) * kPanel<T>; }

  // Makes this a matrix of fewer rows than were allocated; its content is lost.
  void use_rows(int64_t rows) { rows_ = rows + kSkew; }

  // The place of rows from `row` on; columns past the last are zero.
  Runs<T> place(int64_t row) { return {data_.get() + row * kPanel<T>, kPanel<T>, kPanel<T>, rows_ * kPanel<T>}; }

 private:
  int64_t columns_, rows_;
  Aligned<T> data_;
};

// C (kTall, kPanel) = or += sum over rows of a[row, u] b[row, :].
template <class T>
inline void product_tile(const T* a, const T* b, int64_t rows, bool add, T* c, int64_t ldc) {
  constexpr int W = kLanes<T>;
  Vector<T> sum[kTall][3];
#pragma GCC unroll 24  // all loops over tiles, or the sums go through memory
  for (int at = 0; at < 3 * kTall; ++at) sum[at / 3][at % 3] = Vector<T>{};
#pragma GCC unroll 8  // a slab is then 16 iterations, whose end is predicted; 64 cost 5 to 12 % of the rate
  for (int64_t row = 0; row < rows; ++row, a += kPanel<T>, b += kPanel<T>) {
    Vector<T> right[3];
    for (int v = 0; v < 3; ++v) right[v] = load(b + v * W), pin<T>(right[v]);
#pragma GCC unroll 8
    for (int u = 0; u < kTall; ++u) {
      const Vector<T> left = splat(a[u]);
      for (int v = 0; v < 3; ++v) sum[u][v] += left * right[v];
    }
  }
#pragma GCC unroll 24
  for (int at = 0; at < 3 * kTall; ++at) {
    T* to = c + at / 3 * ldc + at % 3 * W;
    store(to, add ? load(to) + sum[at / 3][at % 3] : sum[at / 3][at % 3]);
  }
}

// Prefetches share `turn` of `turns` of a panel's next rows: panels of a large matrix are in memory, and each first use
// of a slab would wait for it.
template <class T>
inline void fetch_share(const T* slab, int64_t turn, int64_t turns) {
  constexpr int64_t kLine = 64, kLines = kSlab * kPanel<T> * int64_t(sizeof(T)) / kLine;
  const char* lines = reinterpret_cast<const char*>(slab);
  for (int64_t at = kLines * turn / turns; at < kLines * (turn + 1) / turns; ++at)
    __builtin_prefetch(lines + at * kLine, 0, 2);
}

// Panels i0..i1-1 of A by j0..j1-1 of B: C = or += A'B over `rows` rows. C is whole panels with row stride ldc;
// its first row is that of panel i0, its first column that of panel 0. With `upper` only panels on and above the
// diagonal are touched.
template <class T>
void column_products(const Panels<T>& a, const Panels<T>& b, int64_t rows, int64_t i0, int64_t i1, int64_t j0,
                     int64_t j1, bool upper, bool add, T* c, int64_t ldc) {
  constexpr int P = kPanel<T>, kTiles = P / kTall;
  for (int64_t row = 0; row < rows; row += kSlab)
    for (int64_t j = j0; j < j1; ++j) {
      const int64_t end = upper ? std::min(i1, j + 1) : i1;
      const T* next = j + 1 < j1 ? b.at(j + 1, row) : b.at(j0, std::min(row + kSlab, rows - 1));
      for (int64_t i = i0; i < end; ++i)
        for (int u = 0; u < kTiles; ++u) {
          fetch_share(next, (i - i0) * kTiles + u, (end - i0) * kTiles);
          product_tile(a.at(i, row) + u * kTall, b.at(j, row), std::min(kSlab, rows - row), add || row > 0,
                       c + ((i - i0) * P + u * kTall) * ldc + j * P, ldc);
        }
    }
}

}  // namespace bertft
