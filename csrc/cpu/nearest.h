// The k largest entries of every row and column of a matrix that comes tile by tile; see nearest.cpp.
#pragma once
#include <cstdint>

#include "parallel.h"

namespace bertft {

// Lists of the k largest entries of the tile's rows (or columns), largest first, -infinity where fewer came so far, and
// their positions along the line, where the tile's first entry is number `first`.
template <class T>
struct Best {
  T* value;        // (lines, k)
  int64_t* place;  // (lines, k)
  int64_t first;
};

// tile (rows, columns) is contiguous, without NaN. If down.value is null, only lists of rows change.
template <class T>
void nearest_cpu(const T* tile, int64_t rows, int64_t columns, int64_t k, const Best<T>& across, const Best<T>& down,
                 const Pool& pool);

}  // namespace bertft
