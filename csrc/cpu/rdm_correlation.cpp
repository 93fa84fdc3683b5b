// Second moments of entries, or of ranks of entries.
//
//   moments  sum e and sum e e' of e = d - shift, shift being the mean of a sample of entries; in T over a few rows of
//   a
//            tile and in double beyond
//   ranks    the entries are counted in kCells cells that divide the central range of a sample evenly; the mid-rank of
//            a cell then replaces its entries. Two passes: counts, then moments of the looked-up ranks. A single pair
//            of layers takes one pass instead: a joint table over kBins x kBins bins of equal mass (by the sample)
//
// Ranks inside a bin of c of the P entries deviate from its mid-rank with variance (c^2 - 1) / 12 at most; `within` is
// the share of the variance of all ranks that this makes, v = sum c (c^2 - 1) / P^3 (1 / bins^2 for bins of equal
// mass). The error of the correlation follows in ops/rdm/routes.py.
#include "rdm_correlation.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "rdm_moments.h"
#include "rdm_tiles.h"

namespace bertft {
namespace {

constexpr int64_t kShiftRows = 48;  // rows whose pairs give the shift
constexpr int64_t kRankRows = 512;  // rows whose pairs give the range of the cells
constexpr int64_t kCells = 1 << 16;
constexpr int64_t kBins = 2048;               // of the joint table
constexpr double kTail = 5e-4;                // share of the sample beyond either end of the cells' range
constexpr uint64_t kCounterLimit = 1u << 31;  // pairs after which a worker's 32-bit counts are added to the 64-bit ones

// Cells divide a range evenly. Entries beyond it fall into the first or last cell, NaN into the first.
template <class T>
struct Cells {
  T low = 0, scale = 0;

  // out[j] = cell of row[j], begin <= j < end.
  void operator()(const T* row, int64_t begin, int64_t end, int32_t* out) const {
    const T shift = -low * scale, most = T(kCells - 1);
    for (int64_t j = begin; j < end; ++j) {
      const T at = row[j] * scale + shift, positive = at > T(0) ? at : T(0);
      out[j] = int32_t(positive < most ? positive : most);
    }
  }
};

template <class T>
void moments_of_entries(const RdmTiles& p, Tiles<T>& tiles) {
  const int64_t P = tiles.layers();
  for (int64_t l = 0; l < P; ++l) {
    const std::vector<T> values = tiles.sample(l, kShiftRows);
    double total = 0;
    for (T v : values) total += double(v);
    p.shifts[l] = values.empty() ? 0 : T(total / double(values.size()));
  }
  Moments<T> moments(p, tiles.tasks(), tiles.stride());
  tiles.each([&](int, int64_t task, auto& g, auto& sums, int64_t rows, int64_t columns, int64_t) {
    moments.add(task, g, sums.data(), rows, columns, tiles.stride());
  });
  moments.finish();
}

// Mid-ranks of consecutive bins, centred and divided by the number of entries; and the share v of variance within them.
std::vector<double> mid_ranks(const std::vector<uint64_t>& counts, double* within) {
  double total = 0, before = 0;
  for (uint64_t c : counts) total += double(c);
  std::vector<double> ranks(counts.size());
  *within = 0;
  for (size_t k = 0; k < counts.size(); ++k) {
    ranks[k] = (before + 0.5 * double(counts[k])) / total - 0.5;
    before += double(counts[k]);
    *within += double(counts[k]) * (double(counts[k]) * double(counts[k]) - 1) / (total * total * total);
  }
  return ranks;
}

template <class T>
Cells<T> cells_of(std::vector<T>& values) {
  if (values.empty()) return {};
  const int64_t skip = int64_t(kTail * double(values.size()));
  std::nth_element(values.begin(), values.begin() + skip, values.end());
  const T low = values[skip];
  std::nth_element(values.begin(), values.end() - 1 - skip, values.end());
  const T high = *(values.end() - 1 - skip);
  return {low, high > low ? T(kCells) / (high - low) : T(0)};
}

// A worker's counts in 32 bits, which are added to 64-bit counts before they can overflow.
struct Counters {
  std::vector<uint32_t> now;
  std::vector<uint64_t> before;
  uint64_t pending = 0;

  void make_room(int64_t size) {
    if (now.empty()) now.assign(size, 0);
  }
  void note(uint64_t pairs) {
    if ((pending += pairs) < kCounterLimit) return;
    before.resize(now.size());
    for (size_t k = 0; k < now.size(); ++k) before[k] += now[k], now[k] = 0;
    pending = 0;
  }
};

uint64_t count_of(const std::vector<Counters>& workers, int64_t at) {
  uint64_t count = 0;
  for (const Counters& w : workers) {
    if (!w.now.empty()) count += w.now[at];
    if (!w.before.empty()) count += w.before[at];
  }
  return count;
}

template <class T>
void moments_of_ranks(const RdmTiles& p, Tiles<T>& tiles, const Pool& pool) {
  const int64_t P = tiles.layers(), ld = tiles.stride();
  std::vector<Cells<T>> cells;
  for (int64_t l = 0; l < P; ++l) {
    std::vector<T> values = tiles.sample(l, kRankRows);
    cells.push_back(cells_of(values));
  }
  std::vector<Counters> workers(pool.threads);
  tiles.each([&](int worker, int64_t, auto& g, auto&, int64_t rows, int64_t columns, int64_t first) {
    Counters& w = workers[worker];
    w.make_room(P * kCells);
    std::vector<int32_t> at(columns);
    for (int64_t l = 0; l < P; ++l)
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t begin = std::clamp<int64_t>(first + i, 0, columns);
        cells[l](g[l].data() + i * ld, begin, columns, at.data());
        for (int64_t j = begin; j < columns; ++j) ++w.now[l * kCells + at[j]];
      }
    w.note(uint64_t(rows) * uint64_t(columns));
  });
  std::vector<std::vector<T>> ranks;
  for (int64_t l = 0; l < P; ++l) {
    std::vector<uint64_t> counts(kCells);
    for (int64_t k = 0; k < kCells; ++k) counts[k] = count_of(workers, l * kCells + k);
    const std::vector<double> r = mid_ranks(counts, p.within + l);
    ranks.emplace_back(r.begin(), r.end());
  }
  workers.clear();
  Moments<T> moments(p, tiles.tasks(), ld);
  tiles.each([&](int, int64_t task, auto& g, auto& sums, int64_t rows, int64_t columns, int64_t first) {
    std::vector<int32_t> at(columns);
    for (int64_t l = 0; l < P; ++l) {
      sums[l] = 0;
      for (int64_t i = 0; i < rows; ++i) {
        T* row = g[l].data() + i * ld;
        const int64_t begin = std::clamp<int64_t>(first + i, 0, columns);
        cells[l](row, begin, columns, at.data());
        for (int64_t j = begin; j < columns; ++j) row[j] = ranks[l][at[j]];
        T total = 0;
        for (int64_t j = begin; j < columns; ++j) total += row[j];
        sums[l] += double(total);
      }
    }
    moments.add(task, g, sums.data(), rows, columns, ld);
  });
  moments.finish();
}

// Bin of each cell, such that the sample falls evenly into kBins bins.
template <class T>
std::vector<uint16_t> bins_of(const std::vector<T>& values, Cells<T> cells) {
  std::vector<int64_t> counts(kCells);
  std::vector<int32_t> at(values.size());
  cells(values.data(), 0, int64_t(values.size()), at.data());
  for (int32_t cell : at) ++counts[cell];
  std::vector<uint16_t> bins(kCells);
  double before = 0;
  for (int64_t k = 0; k < kCells; ++k) {
    const double middle = (before + 0.5 * double(counts[k])) / std::max<double>(1, double(values.size()));
    bins[k] = uint16_t(std::min<double>(kBins - 1, middle * kBins));
    before += double(counts[k]);
  }
  return bins;
}

template <class T>
void ranks_of_one_pair(const RdmTiles& p, Tiles<T>& tiles, const Pool& pool) {
  const int64_t ld = tiles.stride();
  Cells<T> cells[2];
  std::vector<uint16_t> bins[2];
  for (int l = 0; l < 2; ++l) {
    std::vector<T> values = tiles.sample(l, kRankRows);
    cells[l] = cells_of(values);
    bins[l] = bins_of(values, cells[l]);
  }
  std::vector<Counters> workers(pool.threads);
  tiles.each([&](int worker, int64_t, auto& g, auto&, int64_t rows, int64_t columns, int64_t first) {
    Counters& w = workers[worker];
    w.make_room(kBins * kBins);
    std::vector<int32_t> x(columns), y(columns);
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t begin = std::clamp<int64_t>(first + i, 0, columns);
      cells[0](g[0].data() + i * ld, begin, columns, x.data());
      cells[1](g[1].data() + i * ld, begin, columns, y.data());
      for (int64_t j = begin; j < columns; ++j) ++w.now[bins[0][x[j]] * kBins + bins[1][y[j]]];
    }
    w.note(uint64_t(rows) * uint64_t(columns));
  });
  std::vector<uint64_t> x(kBins), y(kBins);
  for (int64_t a = 0; a < kBins; ++a)
    for (int64_t b = 0; b < kBins; ++b) {
      const uint64_t count = count_of(workers, a * kBins + b);
      x[a] += count, y[b] += count;
    }
  const std::vector<double> rx = mid_ranks(x, p.within), ry = mid_ranks(y, p.within + 1);
  for (int64_t a = 0; a < kBins; ++a) {
    double line = 0;
    for (int64_t b = 0; b < kBins; ++b) line += double(count_of(workers, a * kBins + b)) * ry[b];
    p.products[1] += line * rx[a];
    p.products[0] += double(x[a]) * rx[a] * rx[a], p.products[3] += double(y[a]) * ry[a] * ry[a];
    p.sums[0] += double(x[a]) * rx[a], p.sums[1] += double(y[a]) * ry[a];
  }
  p.products[2] = p.products[1];
}

}  // namespace

template <class T>
void rdm_tiles_cpu(const RdmTiles& p, const Pool& pool) {
  Tiles<T> tiles(p, pool);
  if (!p.ranks)
    moments_of_entries(p, tiles);
  else if (p.layers.size() == 2)
    ranks_of_one_pair(p, tiles, pool);
  else
    moments_of_ranks(p, tiles, pool);
}

template void rdm_tiles_cpu<float>(const RdmTiles&, const Pool&);
template void rdm_tiles_cpu<double>(const RdmTiles&, const Pool&);

}  // namespace bertft
