// Memory layout of rows that are split into two halves; made by split_rows.cu, read by split_tile.cuh.
#pragma once
#include "rows.cuh"

namespace bertft {
namespace split {

// A line holds 32 columns of a row: 32 high parts, then their 32 low parts, 128 bytes. Rows of high parts alone, for
// products of half precision ("fast"), have 64 columns a line.
constexpr int kChunk = 32, kLine = 64;
constexpr int kHigh = 1, kBoth = 2;  // parts of a row
constexpr int kTile = 128;           // rows, and columns, of a tile of products

// The split rows of some layers; `n` rows of a layer are padded with zeros to a multiple of kTile.
struct Rows {
  __half* halves;  // (layers, padded, chunks, 2, kChunk)
  float* scale;    // (layers, padded): a row is scale (hi + lo)
  float* along;    // (layers, padded): m.u, m the provisional mean
  float* square;   // (layers, padded): |u|^2
  long long padded;
  int chunks, parts;
};

// The parts of one allocation; *bytes is its size.
inline Rows rows_at(void* base, long long layers, long long n, int d, size_t* bytes = nullptr, int parts = kBoth) {
  Carver carver{static_cast<char*>(base)};
  Rows rows;
  rows.padded = ceil_div(n, kTile) * kTile;
  rows.parts = parts;
  rows.chunks = static_cast<int>(ceil_div(d, kLine / parts));
  rows.halves = carver.take<__half>(layers * rows.padded * rows.chunks * kLine);
  for (float** part : {&rows.scale, &rows.along, &rows.square}) *part = carver.take<float>(layers * rows.padded);
  if (bytes) *bytes = carver.used;
  return rows;
}

}  // namespace split
}  // namespace bertft
