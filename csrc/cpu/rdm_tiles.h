// The walk over tiles behind rdm_correlation: the entries of all layers' matrices exist one tile at a time.
//
// A task takes tile (I, J), I <= J, of every layer. Rows are brought into their metric's form panel by panel: a worker
// keeps the J panels of its last task and prepares the I panels anew, so that memory stays at workers x (P panels + P
// tiles), whatever N. The products are single-threaded inside a task.
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "pairwise_distance.h"
#include "rdm_correlation.h"
#include "simd.h"

namespace bertft {

constexpr int64_t kTileMemory = 48 << 20;   // bytes of panels and tiles for all workers together
constexpr int64_t kMeanRows = 256;          // rows whose mean is subtracted from all rows of a layer

template <class T>
class Tiles {
 public:
  Tiles(const RdmTiles& problem, const Pool& pool) : p_(problem), pool_(pool), n_(problem.layers[0].rows) {
    const int64_t P = layers();
    int64_t width = 0;
    for (const Matrix& m : p_.layers) width += m.dim + 1, widest_ = std::max(widest_, m.dim);
    edge_ = kTile;
    while (edge_ > 2 * kStrip &&
           (pool.threads * edge_ * (width + widest_ + 1 + P * edge_) * int64_t(sizeof(T)) > kTileMemory ||
            tasks() < 4 * pool.threads))
      edge_ -= kStrip;
    edge_ = std::min(edge_, padded<T>(n_));
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
    const int64_t k = (n_ + edge_ - 1) / edge_;
    return k * (k + 1) / 2;
  }
  int64_t edge() const { return edge_; }

  // The entries i < j among `most` rows, spread over all.
  std::vector<T> sample(int64_t layer, int64_t most) const {
    Matrix m = p_.layers[layer];
    const int64_t step = std::max<int64_t>(1, m.rows / most);
    m.stride *= step;
    m.rows = std::min((m.rows + step - 1) / step, most);
    std::vector<T> u(m.rows * (m.dim + 1)), g(m.rows * m.rows), values;
    const Prepared<T> rows = prepare(m, layer, u.data());
    distance_tile(rows, 0, m.rows, rows, 0, m.rows, p_.metrics[layer], true, g.data(), m.rows);
    for (int64_t i = 0; i < m.rows; ++i)
      for (int64_t j = i + 1; j < m.rows; ++j)
        if (!std::isnan(g[i * m.rows + j])) values.push_back(g[i * m.rows + j]);
    return values;
  }

  // f(worker, task, tiles, rows, columns, diagonal) for every tile; tiles[l] (rows, edge); where diagonal only entries
  // right of the diagonal count.
  template <class F>
  void each(const F& f) {
    parallel_tasks(pool_, tasks(), [&](int worker, int64_t task) {
      int64_t J = int64_t((std::sqrt(8.0 * double(task) + 1) - 1) / 2);  // tasks run through I <= J column by column
      while (J * (J + 1) / 2 > task) --J;
      while ((J + 1) * (J + 2) / 2 <= task) ++J;
      const int64_t I = task - J * (J + 1) / 2;
      Worker& w = workers_[worker];
      w.make_room(*this);
      const int64_t rows = std::min(edge_, n_ - I * edge_), columns = std::min(edge_, n_ - J * edge_);
      for (int64_t l = 0; l < layers(); ++l) {
        if (w.column != J) w.columns[l] = prepare(panel(l, J * edge_, columns), l, w.column_memory[l].data());
        const Prepared<T>& v = w.columns[l];
        const Prepared<T> u = I == J ? v : prepare(panel(l, I * edge_, rows), l, w.row_memory.data());
        distance_tile(u, 0, rows, v, 0, columns, p_.metrics[l], I == J, w.tiles[l].data(), edge_);
      }
      w.column = J;
      f(worker, task, w.tiles, rows, columns, I == J);
    });
  }

 private:
  struct Worker {
    int64_t column = -1;
    std::vector<std::vector<T>> column_memory, tiles;
    std::vector<T> row_memory;
    std::vector<Prepared<T>> columns;

    void make_room(const Tiles& t) {
      if (!tiles.empty()) return;
      for (const Matrix& m : t.p_.layers) {
        column_memory.emplace_back(t.edge_ * (m.dim + 1));
        tiles.emplace_back(t.edge_ * t.edge_);
      }
      row_memory.resize(t.edge_ * (t.widest_ + 1));
      columns.resize(t.layers());
    }
  };

  Matrix panel(int64_t l, int64_t from, int64_t rows) const {
    Matrix m = p_.layers[l];
    const int64_t bytes = m.element == Element::float64 ? 8 : m.element == Element::float32 ? 4 : 2;
    m.data = static_cast<const char*>(m.data) + from * m.stride * bytes;
    m.rows = rows;
    return m;
  }

  Prepared<T> prepare(const Matrix& m, int64_t l, T* memory) const {
    T* squares = memory + m.rows * m.dim;
    prepare_rows(m, p_.metrics[l], means_[l].data(), memory, squares, serial());
    return {memory, squares, m.rows, m.dim};
  }

  static Pool serial() {
    return {1, [](int64_t begin, int64_t end, int64_t, Pool::Body body, void* context) { body(begin, end, context); }};
  }

  const RdmTiles& p_;
  const Pool& pool_;
  int64_t n_, edge_, widest_ = 0;
  std::vector<std::vector<double>> means_;
  std::vector<Worker> workers_;
};

}  // namespace bertft
