// The k largest entries of every row and column of a matrix that comes tile by tile; see nearest.cpp.
#pragma once
#include <cstdint>

#include "parallel.h"

namespace bertft {

// Lists of the k largest entries of the tile's rows (or columns), largest first, -infinity where fewer came so far; and
// their places, numbers along the line: the tile's entries count on from `first`.
template <class T>
struct Best {
  T* value;        // (lines, k)
  int64_t* place;  // (lines, k)
  int64_t first;
};

// tile (rows, columns), row after row, without NaN. Where down.value is null only rows are served.
template <class T>
void nearest_cpu(const T* tile, int64_t rows, int64_t columns, int64_t k, const Best<T>& across, const Best<T>& down,
                 const Pool& pool);

}  // namespace bertft
