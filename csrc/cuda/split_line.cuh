// How rows that are split into two halves lie in memory; made by split_rows.cu, read by split_tile.cuh.
#pragma once
#include "rows.cuh"

namespace bertft {
namespace split {

// A line holds 32 columns of a row: 32 high parts, then their 32 low parts, 128 bytes.
constexpr int kChunk = 32, kLine = 64;
constexpr int kTile = 128;  // rows, and columns, of a tile of products

// The split rows of `layers` layers: halves (layers, padded, chunks, 2, 32), the rest (layers, padded).
struct Rows {
  __half* halves;
  float *scale, *along, *square;  // a row is scale (hi + lo); m.u and |u|^2 of it, m the provisional mean
  long long padded;
  int chunks;
};

__host__ __device__ inline long long padded_rows(long long n) { return (n + kTile - 1) / kTile * kTile; }
__host__ __device__ inline int chunks_of(int d) { return (d + kChunk - 1) / kChunk; }

}  // namespace split
}  // namespace bertft
