// Tiles of dissimilarities from rows stored in panels (column_products.h): number k of stimulus i is row k, column i.
//
// The product of two such sets needs no repacking, unlike one by the BLAS, and a diagonal tile costs half. Entries are
// the quadratic forms of pairwise_distance.cpp, small ones summed again from the differences.
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "column_products.h"
#include "pairwise_distance.h"
#include "rows.h"
#include "simd.h"

namespace bertft {

// Memory of a worker that prepares rows.
template <class T>
struct RowScratch {
  std::vector<double> buffer;
  std::vector<T> rows;

  static int64_t padded_dim(int64_t dim) { return (dim + kGroup<T> - 1) / kGroup<T> * kGroup<T>; }
  void make_room(int64_t widest) { buffer.resize(kGroupRows * widest), rows.resize(kPanel<T> * padded_dim(widest)); }
};

// At most `capacity` stimuli of one layer in its metric's form; the columns behind the last hold finite numbers.
template <class T>
class PanelRows {
 public:
  PanelRows(int64_t capacity, int64_t widest) : u_(capacity, widest), squares_(u_.panels() * kPanel<T>) {}

  const Panels<T>& u() const { return u_; }
  const T* squares() const { return squares_.data(); }
  int64_t dim() const { return dim_; }
  void use_dim(int64_t dim) { u_.use_rows(dim_ = dim); }

  // Rows of x become columns `at`.., a multiple of a panel's. A panel's rows are prepared one after another, then
  // transposed together, so that writes are contiguous.
  void prepare(const Matrix& x, Metric metric, const double* mean, const Form* forms, int64_t at,
               RowScratch<T>& scratch) {
    const int64_t width = scratch.padded_dim(dim_);
    double square[kGroupRows] = {}, unused[kGroupRows];
    for (int64_t i = 0; i < x.rows; i += kPanel<T>) {
      const int64_t end = std::min<int64_t>(x.rows, i + kPanel<T>);
      if (end - i < kPanel<T> || width > dim_) std::fill(scratch.rows.begin(), scratch.rows.end(), T(0));
      for (int64_t r = i; r < end; r += kGroupRows) {
        const int64_t rows = std::min(kGroupRows, end - r);
        const Runs<T> to{scratch.rows.data() + (r - i) * width, width, dim_, 0};
        prepare_group(x, r, rows, metric, mean, scratch.buffer.data(), to, square, unused, forms + r);
        std::copy_n(square, rows, squares_.data() + at + r);
      }
      turn(scratch.rows.data(), (at + i) / kPanel<T>, width);
    }
  }

 private:
  // A whole panel from the rows that become its columns.
  void turn(const T* from, int64_t panel, int64_t width) {
    for (int64_t k = 0; k < width; k += kGroup<T>)  // the last numbers may reach into the space between panels
      for (int64_t r = 0; r < kPanel<T>; r += kGroup<T>) {
        Tile<T> tile;
        tile.load(from + r * width + k, width);
        tile.transposed().store(u_.mutable_at(panel, k) + r, kPanel<T>);
      }
  }

  Panels<T> u_;
  std::vector<T> squares_;
  int64_t dim_ = 0;
};

// |x_i - y_j|^2 from the differences, of a vector of columns j.
template <class T>
Vector<T> direct_squares(const PanelRows<T>& x, int64_t i, const PanelRows<T>& y, int64_t j) {
  const T* a = x.u().at(i / kPanel<T>, 0) + i % kPanel<T>;
  const T* b = y.u().at(j / kPanel<T>, 0) + j % kPanel<T>;
  Vector<T> s[4] = {};
  int64_t k = 0;
  for (; k + 4 <= x.dim(); k += 4)
    for (int part = 0; part < 4; ++part) {
      const Vector<T> e = splat(a[(k + part) * kPanel<T>]) - load(b + (k + part) * kPanel<T>);
      s[part] += e * e;
    }
  for (; k < x.dim(); ++k) {
    const Vector<T> e = splat(a[k * kPanel<T>]) - load(b + k * kPanel<T>);
    s[0] += e * e;
  }
  return (s[0] + s[1]) + (s[2] + s[3]);
}

// Turns the products g_j = u_i.v_j of a row, begin <= j < w, into distances less `shift`, and the rest of the row up to
// whole vectors into 0. Returns the sum.
template <class T>
double finish_row(const PanelRows<T>& x, int64_t i, const PanelRows<T>& y, int64_t begin, int64_t w, Metric metric,
                  T shift, T* g) {
  const T a = x.squares()[i], near = T(kNear), *b = y.squares();
  const int64_t first = begin / kLanes<T> * kLanes<T>;
  const auto inside = [&](int64_t j) {
    return first_lanes<T>(w - j) & ~first_lanes<T>(std::max<int64_t>(0, begin - j));
  };
  if (metric != Metric::dot) {
    Mask<T> close = {};
    for (int64_t j = first; j < w; j += kLanes<T>) {
      const Vector<T> sum = a + load(b + j), v = sum - T(2) * load(g + j);
      close |= v <= near * sum;
      store(g + j, v);
    }
    if (any<T>(close))
      for (int64_t j = first; j < w; j += kLanes<T>) {
        const Vector<T> v = load(g + j);
        close = (v <= near * (a + load(b + j))) & inside(j);
        if (any<T>(close)) store(g + j, keep<T>(v, ~close) + keep<T>(direct_squares(x, i, y, j), close));
      }
  }
  if (metric == Metric::euclidean)
    for (int64_t j = begin; j < w; ++j) g[j] = std::sqrt(g[j]);
  const T scale = normalised(metric) ? T(0.5) : T(1);
  Vector<T> total = {};
  std::fill(g, g + first, T(0));
  for (int64_t j = first; j < w; j += kLanes<T>) {
    Vector<T> v = scale * load(g + j) - shift;
    if (j < begin || j + kLanes<T> > w) v = keep<T>(v, inside(j));
    store(g + j, v);
    total += v;
  }
  return lane_sum<T>(total);
}

// out (m, w) = d(x[i0 + i], y_j) - shift, any metric but manhattan, i0 a multiple of a panel's columns; `out` has room
// for whole panels on both sides, row stride ld. `diagonal`: x is y, and only j > i0 + i counts. Entries that do not
// count are 0, up to whole vectors behind w. Returns the sum of the entries.
template <class T>
double panel_tile(const PanelRows<T>& x, int64_t i0, int64_t m, const PanelRows<T>& y, int64_t w, Metric metric,
                  bool diagonal, T shift, T* out, int64_t ld) {
  const int64_t first = i0 / kPanel<T>, end = (i0 + m + kPanel<T> - 1) / kPanel<T>;
  const int64_t columns = (w + kPanel<T> - 1) / kPanel<T>;
  for (int64_t i = first; i < end; i += kBlockPanels)
    for (int64_t j = diagonal ? i : 0; j < columns; j += kBlockPanels)
      column_products(x.u(), y.u(), x.dim(), i, std::min(i + kBlockPanels, end), j, std::min(j + kBlockPanels, columns),
                      diagonal, false, out + (i - first) * kPanel<T> * ld, ld);
  double total = 0;
  for (int64_t i = 0; i < m; ++i)
    total += finish_row(x, i0 + i, y, diagonal ? std::min(i0 + i + 1, w) : 0, w, metric, shift, out + i * ld);
  return total;
}

}  // namespace bertft
