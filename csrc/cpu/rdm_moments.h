// Sums and products of the values in tiles, pair by pair of layers.
#pragma once
#include <algorithm>
#include <vector>

#include "rdm_correlation.h"
#include "simd.h"

namespace bertft {

constexpr int64_t kMomentRows = 4;  // rows of a tile whose products are summed in T before double takes over

// Moments of values e by tile, kept by task and added in the order of tasks: the same result for any number of
// threads. Layers go three by three, so that nine sums stay in registers.
template <class T>
class Moments {
 public:
  explicit Moments(const RdmTiles& p, int64_t tasks, int64_t edge) : p_(p), P_(int64_t(p.layers.size())), zero_(edge) {
    const int64_t first = in_threes(p.first_y), rest = in_threes(P_ - p.first_y);
    slots_.assign(first + rest, -1);
    for (int64_t l = 0; l < P_; ++l) slots_[l < p.first_y ? l : first + l - p.first_y] = l;
    for (int64_t a = 0; a < first + rest; a += 3)
      for (int64_t b = a; b < first + rest; b += 3)
        if (a == b || rest == 0 || (a < first && b >= first)) blocks_.push_back({a, b});
    partial_.assign(tasks, std::vector<double>(P_ + 9 * blocks_.size()));
  }

  // The tiles hold e, zero outside of the pairs that count and up to a whole number of vectors; `sums` those of e.
  void add(int64_t task, const std::vector<std::vector<T>>& tiles, const double* sums, int64_t rows, int64_t columns,
           int64_t ld) {
    double* out = partial_[task].data();
    for (int64_t l = 0; l < P_; ++l) out[l] += sums[l];
    for (int64_t r = 0; r < rows; r += kMomentRows) {
      const int64_t count = std::min(kMomentRows, rows - r);
      for (size_t k = 0; k < blocks_.size(); ++k) block(tiles, blocks_[k], r, count, columns, ld, out + P_ + 9 * k);
    }
  }

  void finish() const {
    for (const std::vector<double>& part : partial_) {
      for (int64_t l = 0; l < P_; ++l) p_.sums[l] += part[l];
      for (size_t k = 0; k < blocks_.size(); ++k)
        for (int u = 0; u < 3; ++u)
          for (int v = 0; v < 3; ++v) {
            const int64_t a = slots_[blocks_[k].a + u], b = slots_[blocks_[k].b + v];
            if (a < 0 || b < 0) continue;
            p_.products[a * P_ + b] += part[P_ + 9 * k + 3 * u + v];
            if (blocks_[k].a != blocks_[k].b) p_.products[b * P_ + a] = p_.products[a * P_ + b];
          }
    }
  }

 private:
  static int64_t in_threes(int64_t count) { return (count + 2) / 3 * 3; }

  struct Block {
    int64_t a, b;
  };

  void block(const std::vector<std::vector<T>>& tiles, Block at, int64_t r0, int64_t rows, int64_t columns, int64_t ld,
             double* out) const {
    Vector<T> s[3][3] = {};
    for (int64_t r = r0; r < r0 + rows; ++r) {
      const T *x[3], *y[3];
      for (int k = 0; k < 3; ++k) {
        const int64_t a = slots_[at.a + k], b = slots_[at.b + k];
        x[k] = a < 0 ? zero_.data() : tiles[a].data() + r * ld;
        y[k] = b < 0 ? zero_.data() : tiles[b].data() + r * ld;
      }
      for (int64_t j = 0; j < columns; j += kLanes<T>) {
        const Vector<T> u[3] = {load(x[0] + j), load(x[1] + j), load(x[2] + j)};
        for (int v = 0; v < 3; ++v) {
          const Vector<T> e = load(y[v] + j);
          for (int k = 0; k < 3; ++k) s[k][v] += u[k] * e;
        }
      }
    }
    for (int k = 0; k < 3; ++k)
      for (int v = 0; v < 3; ++v) out[3 * k + v] += lane_sum<T>(s[k][v]);
  }

  const RdmTiles& p_;
  int64_t P_;
  std::vector<T> zero_;
  std::vector<int64_t> slots_;  // layer by padded place, -1 for none
  std::vector<Block> blocks_;
  std::vector<std::vector<double>> partial_;  // by task
};

}  // namespace bertft
