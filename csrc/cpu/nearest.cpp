// Merges a tile of similarities into the lists of the k largest entries of its rows and of its columns.
//
// An entry enters a list if it exceeds the list's last. kWide entries are tested at a time against the row's last and
// the columns' lasts. After the first tiles almost no entry passes, so that this is one pass at the speed of memory.
// Lists are sorted; a new entry moves in from the end.
//
// One thread does rows and columns in one pass. Several threads divide first the rows and then the columns, so that no
// list has two writers.
#include "nearest.h"

#include <limits>
#include <vector>

#include "simd.h"

namespace bertft {
namespace {

constexpr int kVectors = 4;  // tested together
template <class T>
inline constexpr int64_t kWide = kVectors * kLanes<T>;

template <class T>
struct Lists {
  int64_t k;
  Best<T> of;

  T last(int64_t line) const { return of.value[line * k + k - 1]; }

  void insert(int64_t line, T entry, int64_t number) const {
    T* value = of.value + line * k;
    int64_t *place = of.place + line * k, slot = k - 1;
    for (; slot > 0 && value[slot - 1] < entry; --slot) value[slot] = value[slot - 1], place[slot] = place[slot - 1];
    value[slot] = entry, place[slot] = of.first + number;
  }
};

// Rows r0..r1-1 and columns c0..c1-1 of the tile. `last`: the value that an entry of each column must exceed, scratch
// memory.
template <class T>
void take(const T* tile, int64_t columns, const Lists<T>* rows, const Lists<T>* down, int64_t r0, int64_t r1,
          int64_t c0, int64_t c1, T* last) {
  constexpr T never = std::numeric_limits<T>::infinity();
  for (int64_t c = c0; c < c1; ++c) last[c] = down ? down->last(c) : never;
  for (int64_t r = r0; r < r1; ++r) {
    const T* row = tile + r * columns;
    T least = rows ? rows->last(r) : never;
    const auto one = [&](int64_t c) {
      if (row[c] > least) rows->insert(r, row[c], c), least = rows->last(r);
      if (row[c] > last[c]) down->insert(c, row[c], r), last[c] = down->last(c);
    };
    int64_t c = c0;
    for (; c + kWide<T> <= c1; c += kWide<T>) {
      Mask<T> found{};
      for (int64_t at = c; at < c + kWide<T>; at += kLanes<T>) {
        const Vector<T> entries = load(row + at);
        found |= (entries > splat(least)) | (entries > load(last + at));
      }
      if (any<T>(found))
        for (int64_t at = c; at < c + kWide<T>; ++at) one(at);
    }
    for (; c < c1; ++c) one(c);
  }
}

}  // namespace

template <class T>
void nearest_cpu(const T* tile, int64_t rows, int64_t columns, int64_t k, const Best<T>& across, const Best<T>& down,
                 const Pool& pool) {
  const Lists<T> of_rows{k, across}, of_columns{k, down};
  const Lists<T>* const none = nullptr;
  const bool both = down.value != nullptr;
  const int64_t shares = pool.threads;
  if (shares == 1) {
    std::vector<T> last(columns);
    return take(tile, columns, &of_rows, both ? &of_columns : none, 0, rows, 0, columns, last.data());
  }
  parallel_tasks(pool, both ? 2 * shares : shares, [&](int, int64_t task) {
    std::vector<T> last(columns);
    const int64_t share = task % shares, lines = task < shares ? rows : columns;
    const int64_t begin = lines * share / shares, end = lines * (share + 1) / shares;
    if (task < shares)
      take(tile, columns, &of_rows, none, begin, end, 0, columns, last.data());
    else
      take(tile, columns, none, &of_columns, 0, rows, begin, end, last.data());
  });
}

template void nearest_cpu<float>(const float*, int64_t, int64_t, int64_t, const Best<float>&, const Best<float>&,
                                 const Pool&);
template void nearest_cpu<double>(const double*, int64_t, int64_t, int64_t, const Best<double>&, const Best<double>&,
                                  const Pool&);

}  // namespace bertft
