// The walk over tiles behind rdm_correlation: the entries of all layers' matrices exist one tile at a time.
//
// Column block by column block: all workers share the block's rows in their metric's form (PanelRows), prepared
// together. A task compares a strip of rows, not beyond the block's end, with the block, in every layer. Rows before
// the block are prepared again for each block. Memory is one block, and a strip and a tile per worker, for any N.
#pragma once
#include <algorithm>
#include <memory>
#include <vector>

#include "pairwise_distance.h"
#include "panel_tile.h"
#include "rdm_correlation.h"
#include "simd.h"

namespace bertft {

constexpr int64_t kTileMemory = 44 << 20;  // bytes for the block, all strips and tiles together
constexpr int64_t kStep = 48;              // strips are multiples of it: whole panels in every type and width
constexpr int64_t kMostStrip = 4 * kStep, kMostStrips = 10;  // rows of a strip, strips to a block
constexpr int64_t kMeanRows = 256;                           // rows whose mean is subtracted from all rows of a layer

template <class T>
class Tiles {
 public:
  Tiles(const RdmTiles& problem, const Pool& pool) : p_(problem), pool_(pool), n_(problem.layers[0].rows) {
    static_assert(kStep % kPanel<T> == 0);
    const int64_t P = layers();
    int64_t all = 0;  // numbers of one stimulus in all layers
    for (const Matrix& m : p_.layers) all += m.dim + kSkew, widest_ = std::max(widest_, m.dim);
    const auto bytes = [&] {
      const int64_t worker = strip_ * (widest_ + kSkew) + P * strip_ * block_;
      return (block_ * all + pool.threads * worker) * int64_t(sizeof(T));
    };
    strip_ = std::min(kMostStrip, (n_ + kStep - 1) / kStep * kStep);
    while (strip_ > kStep && n_ < 4 * pool.threads * strip_) strip_ -= kStep;
    block_ = std::min(kMostStrips, (n_ + strip_ - 1) / strip_) * strip_;
    while (block_ > strip_ && bytes() > kTileMemory) block_ -= strip_;
    while (strip_ > kStep && bytes() > kTileMemory) block_ = strip_ -= kStep;

    means_.resize(P);
    for (int64_t l = 0; l < P; ++l) {
      means_[l].assign(p_.layers[l].dim, 0.0);
      if (p_.metrics[l] != Metric::dot && p_.metrics[l] != Metric::manhattan)
        sample_mean(p_.layers[l], p_.metrics[l], kMeanRows, means_[l].data());
    }
    workers_.resize(pool.threads);
  }

  int64_t layers() const { return int64_t(p_.layers.size()); }
  int64_t tasks() const {
    int64_t count = 0;
    for (int64_t from = 0; from < n_; from += block_) count += strips(from);
    return count;
  }
  int64_t stride() const { return block_; }  // of a tile's rows

  // The entries i < j among `most` rows, spread over all.
  std::vector<T> sample(int64_t layer, int64_t most) const {
    Matrix m = p_.layers[layer];
    const int64_t step = std::max<int64_t>(1, m.rows / most);
    m.stride *= step;
    m.rows = std::min((m.rows + step - 1) / step, most);
    std::vector<T> u(m.rows * (m.dim + 1)), g(m.rows * m.rows), values;
    const Prepared<T> rows = plain(m, layer, u.data());
    distance_tile(rows, 0, m.rows, rows, 0, m.rows, p_.metrics[layer], true, g.data(), m.rows);
    for (int64_t i = 0; i < m.rows; ++i)
      for (int64_t j = i + 1; j < m.rows; ++j)
        if (!std::isnan(g[i * m.rows + j])) values.push_back(g[i * m.rows + j]);
    return values;
  }

  // f(worker, task, tiles, sums, rows, columns, begin) for every tile; tiles[l] (rows, stride) holds the entries less
  // shifts[l] of the problem, sums[l] their sum. Of row i only columns from begin + i on count, where that is positive;
  // zeros stand before, and behind the last column up to whole vectors.
  template <class F>
  void each(const F& f) {
    if (block_rows_.empty()) make_room();
    int64_t done = 0;
    for (int64_t from = 0; from < n_; from += block_) {
      const int64_t columns = std::min(block_, n_ - from), pieces = (columns + kStep - 1) / kStep;
      parallel_tasks(pool_, layers() * pieces, [&](int worker, int64_t task) {
        const int64_t l = task / pieces, at = task % pieces * kStep;
        prepare(l, from + at, std::min(kStep, columns - at), block_rows_[l], at, workers_[worker].scratch);
      });
      parallel_tasks(pool_, strips(from), [&](int worker, int64_t task) {
        const int64_t start = task * strip_, rows = std::min(strip_, n_ - start);
        const bool inside = start >= from;  // of the block
        Worker& w = workers_[worker];
        for (int64_t l = 0; l < layers(); ++l) {
          if (!inside) {
            w.rows.use(p_.layers[l].dim);
            prepare(l, start, rows, w.rows, 0, w.scratch);
          }
          tile(l, inside ? block_rows_[l] : w.rows, inside ? start - from : 0, rows, block_rows_[l], columns, inside,
               w);
        }
        f(worker, done + task, w.tiles, w.sums, rows, columns, inside ? start - from + 1 : -n_);
      });
      done += strips(from);
    }
  }

 private:
  // Rows of one layer: as they are for manhattan, which has no product, and in panels for the other metrics.
  struct Rows {
    std::unique_ptr<PanelRows<T>> panels;
    std::vector<T> plain;
    int64_t dim = 0;

    void make_room(int64_t capacity, int64_t widest, Metric metric) {
      if (metric == Metric::manhattan)
        plain.resize(capacity * widest);
      else if (!panels)
        panels = std::make_unique<PanelRows<T>>(capacity, widest);
    }
    void use(int64_t d) {
      dim = d;
      if (panels) panels->use_dim(d);
    }
  };

  struct Worker {
    Rows rows;
    RowScratch<T> scratch;
    std::vector<std::vector<T>> tiles;
    std::vector<double> sums;
  };

  int64_t strips(int64_t from) const { return (std::min(n_, from + block_) + strip_ - 1) / strip_; }

  void make_room() {
    block_rows_.resize(layers());
    for (int64_t l = 0; l < layers(); ++l) {
      block_rows_[l].make_room(block_, p_.layers[l].dim, p_.metrics[l]);
      block_rows_[l].use(p_.layers[l].dim);
      for (Worker& w : workers_) {
        w.rows.make_room(strip_, widest_, p_.metrics[l]);
        w.tiles.emplace_back(strip_ * block_);
      }
    }
    for (Worker& w : workers_) w.scratch.make_room(widest_), w.sums.resize(layers());
  }

  // Rows `from`.. of a layer become rows `at`.. of `to`.
  void prepare(int64_t l, int64_t from, int64_t rows, Rows& to, int64_t at, RowScratch<T>& scratch) const {
    const Matrix m = part(l, from, rows);
    if (p_.metrics[l] != Metric::manhattan)
      return to.panels->prepare(m, p_.metrics[l], means_[l].data(), p_.forms[l].data() + from, at, scratch);
    T squares[kMostStrip];
    prepare_rows(m, p_.metrics[l], means_[l].data(), to.plain.data() + at * m.dim, squares, serial());
  }

  void tile(int64_t l, const Rows& u, int64_t i0, int64_t rows, const Rows& v, int64_t columns, bool diagonal,
            Worker& w) {
    const Metric metric = p_.metrics[l];
    const T shift = T(p_.shifts[l]);
    T* const out = w.tiles[l].data();
    if (metric != Metric::manhattan) {
      w.sums[l] = panel_tile(*u.panels, i0, rows, *v.panels, columns, metric, diagonal, shift, out, block_);
      return;
    }
    const T zeros[kMostStrip] = {};
    const Prepared<T> x{u.plain.data() + i0 * u.dim, zeros, rows, u.dim}, y{v.plain.data(), zeros, columns, v.dim};
    distance_tile(x, 0, rows, y, 0, columns, metric, false, out, block_);
    w.sums[l] = 0;
    for (int64_t i = 0; i < rows; ++i)
      w.sums[l] += shift_row(out + i * block_, diagonal ? std::min(i0 + i + 1, columns) : 0, columns, shift);
  }

  static double shift_row(T* row, int64_t begin, int64_t w, T shift) {
    double total = 0;
    for (int64_t j = begin; j < w; ++j) total += double(row[j] -= shift);
    std::fill(row, row + begin, T(0));
    std::fill(row + w, row + padded<T>(w), T(0));
    return total;
  }

  Matrix part(int64_t l, int64_t from, int64_t rows) const {
    Matrix m = p_.layers[l];
    const int64_t bytes = m.element == Element::float64 ? 8 : m.element == Element::float32 ? 4 : 2;
    m.data = static_cast<const char*>(m.data) + from * m.stride * bytes;
    m.rows = rows;
    return m;
  }

  Prepared<T> plain(const Matrix& m, int64_t l, T* memory) const {
    T* squares = memory + m.rows * m.dim;
    prepare_rows(m, p_.metrics[l], means_[l].data(), memory, squares, serial());
    return {memory, squares, m.rows, m.dim};
  }

  static Pool serial() {
    return {1, [](int64_t begin, int64_t end, int64_t, Pool::Body body, void* context) { body(begin, end, context); }};
  }

  const RdmTiles& p_;
  const Pool& pool_;
  int64_t n_, strip_ = 0, block_ = 0, widest_ = 0;
  std::vector<std::vector<double>> means_;
  std::vector<Rows> block_rows_;  // of the current column block
  std::vector<Worker> workers_;
};

}  // namespace bertft
