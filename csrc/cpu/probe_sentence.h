// One sentence of the structural-probe losses: predicted values, loss, and gradient in place.
//
// `points` is the sentence's part of P, (n, rank) with row stride ld, whole vectors. Both functions replace it by Q,
// the gradient with respect to the points. Reads extend past the sentence by up to kReadAhead rows (the caller
// allocates them) and to the end of ld; the values there, of the next sentence or undefined, never reach a result.
//
// Presumption: sentences are short (tens of words), ranks in the tens or hundreds; the n x n matrix and a panel of
// n x 2 vectors stay in the first cache level.
#pragma once
#include <algorithm>
#include <cstdint>
#include <memory>

#include "simd.h"

namespace bertft {

constexpr int kReadAhead = 3;  // the last group of Gram columns, less the one that is there

template <class T>
struct SentenceScratch {
  explicit SentenceScratch(int64_t longest)
      : gram(aligned<T>(padded<T>(longest) * padded<T>(longest))),
        panel(aligned<T>(longest * 2 * kLanes<T>)),
        golds(aligned<T>(longest * longest + kLanes<T>)),
        squares(aligned<T>(padded<T>(longest))) {}
  Aligned<T> gram;     // (n, n), both rounded up to whole vectors
  Aligned<T> panel;    // (n, 2 vectors)
  Aligned<T> golds;    // (n, n), and a vector read past the end
  Aligned<T> squares;  // (n), rounded up
};

// gram[u, c] = p_(i+u) . p_(j+c) for U rows and one group of columns: lanes run along the coordinates and are summed
// at the end, so that rows of P are read contiguously.
template <class T, int U>
inline void gram_block(int64_t rank, const T* left, const T* right, int64_t ld, T* gram, int64_t width) {
  constexpr int C = kGroup<T>;
  Vector<T> acc[U][C] = {};
  int64_t k = 0;
  for (; k + kLanes<T> <= rank; k += kLanes<T>) {
    Vector<T> a[U];
    for (int u = 0; u < U; ++u) a[u] = load(left + u * ld + k), pin<T>(a[u]);
    for (int c = 0; c < C; ++c) {
      const Vector<T> b = load(right + c * ld + k);
      for (int u = 0; u < U; ++u) acc[u][c] += a[u] * b;
    }
  }
  if (k < rank) {
    const Mask<T> mask = first_lanes<T>(rank - k);
    for (int c = 0; c < C; ++c) {
      const Vector<T> b = keep<T>(load(right + c * ld + k), mask);
      for (int u = 0; u < U; ++u) acc[u][c] += keep<T>(load(left + u * ld + k), mask) * b;
    }
  }
  for (int u = 0; u < U; ++u) store_lane_sums<T>(acc[u], gram + u * width);
}

// Rows i..i+U-1 of the Gram matrix from the diagonal's group on.
template <class T, int U>
inline void gram_rows(int64_t n, int64_t rank, const T* points, int64_t ld, int64_t i, T* gram, int64_t width) {
  for (int64_t j = i / kGroup<T> * kGroup<T>; j < n; j += kGroup<T>)
    gram_block<T, U>(rank, points + i * ld, points + j * ld, ld, gram + i * width + j, width);
}

// out[u, :] = scale * sum_j matrix[j, u] panel[j, :] for U words and a panel of C vectors; the last one may
// be cut.
template <class T, int U, int C>
inline void gradient_block(int64_t n, const T* matrix, int64_t width, const T* panel, T* out, int64_t ld,
                           int64_t columns, T scale) {
  Vector<T> acc[U][C] = {};
  for (int64_t j = 0; j < n; ++j, matrix += width, panel += C * kLanes<T>) {
    Vector<T> right[C];
    for (int c = 0; c < C; ++c) right[c] = load(panel + c * kLanes<T>);
    for (int u = 0; u < U; ++u) {
      const Vector<T> left = splat(matrix[u]);
      for (int c = 0; c < C; ++c) acc[u][c] += left * right[c];
    }
  }
  for (int u = 0; u < U; ++u)
    for (int c = 0; c < C; ++c) {
      const int64_t left = columns - c * kLanes<T>;
      T* to = out + u * ld + c * kLanes<T>;
      acc[u][c] *= scale;
      if (left >= kLanes<T>)
        store(to, acc[u][c]);
      else if (left > 0)
        std::memcpy(to, &acc[u][c], size_t(left) * sizeof(T));
    }
}

// points := scale times matrix (symmetric) times points, for `columns` of their coordinates, at most C vectors.
template <class T, int C>
inline void gradient_panel(int64_t n, const T* matrix, int64_t width, T* points, int64_t ld, int64_t columns, T scale,
                           T* panel) {
  if (columns >= C * kLanes<T>) {
    for (int64_t j = 0; j < n; ++j)
      for (int c = 0; c < C; ++c) store(panel + (j * C + c) * kLanes<T>, load(points + j * ld + c * kLanes<T>));
  } else {
    for (int64_t j = 0; j < n; ++j)
      for (int c = 0; c < C; ++c) {
        const Vector<T> v = load(points + j * ld + c * kLanes<T>);
        store(panel + (j * C + c) * kLanes<T>, keep<T>(v, first_lanes<T>(columns - c * kLanes<T>)));
      }
  }
  // Blocks of 6 words keep the arithmetic units busiest and blocks below 4 leave them idle, so the last 7 to 12 are
  // halved.
  for (int64_t i = 0; i < n;) {
    const int64_t left = n - i, block = left >= 12 ? 6 : left > 6 ? (left + 1) / 2 : left;
    const T* rows = matrix + i;
    T* out = points + i * ld;
    switch (block) {
      case 6:
        gradient_block<T, 6, C>(n, rows, width, panel, out, ld, columns, scale);
        break;
      case 5:
        gradient_block<T, 5, C>(n, rows, width, panel, out, ld, columns, scale);
        break;
      case 4:
        gradient_block<T, 4, C>(n, rows, width, panel, out, ld, columns, scale);
        break;
      case 3:
        gradient_block<T, 3, C>(n, rows, width, panel, out, ld, columns, scale);
        break;
      case 2:
        gradient_block<T, 2, C>(n, rows, width, panel, out, ld, columns, scale);
        break;
      default:
        gradient_block<T, 1, C>(n, rows, width, panel, out, ld, columns, scale);
    }
    i += block;
  }
}

// Copies the upper triangle, whole groups of the diagonal included, to the lower one.
template <class T>
void mirror(int64_t n, T* gram, int64_t width) {
  constexpr int64_t G = kGroup<T>;
  Tile<T> tile;
  for (int64_t i = 0; i < n; i += G)
    for (int64_t j = i + G; j < n; j += G) {
      tile.load(gram + i * width + j, width);
      tile.transposed().store(gram + j * width + i, width);
    }
}

// Turns the Gram matrix into s_ij = sign(d_ij - gold_ij), 0 in lanes past word n; returns sum_ij |d_ij - gold_ij|.
template <class T>
double signs(int64_t n, T* gram, int64_t width, const T* squares, const T* golds) {
  constexpr int64_t kFlush = 8;  // rows summed in T before they go to double
  const Vector<T> zero{}, one = splat(T(1));
  double loss = 0;
  Vector<T> sum{};
  for (int64_t i = 0; i < n; ++i) {
    T* row = gram + i * width;
    const Vector<T> square = splat(squares[i]);
    for (int64_t j = 0; j < n; j += kLanes<T>) {
      const Vector<T> predicted = square + load(squares + j) - T(2) * load(row + j);
      Vector<T> error = predicted - load(golds + i * n + j);
      if (n - j < kLanes<T>) error = keep<T>(error, first_lanes<T>(n - j));
      sum += magnitude<T>(error);
      store(row + j, Vector<T>(error > zero ? one : error < zero ? -one : zero));
    }
    if (i % kFlush == kFlush - 1 || i == n - 1) loss += lane_sum<T>(sum), sum = zero;
  }
  return loss;
}

// s becomes m = s + s' minus, on the diagonal, the sum of m's row: -m P is then sum_j m_ij (p_i - p_j).
template <class T>
void signs_to_matrix(int64_t n, T* matrix, int64_t width, T* sums) {
  constexpr int64_t G = kGroup<T>;
  std::fill(matrix + n * width, matrix + (n + G - 1) / G * G * width, T(0));
  Tile<T> upper, lower;
  for (int64_t i = 0; i < n; i += G)
    for (int64_t j = i; j < n; j += G) {
      upper.load(matrix + i * width + j, width);
      lower.load(matrix + j * width + i, width);
      const Tile<T> other = lower.transposed();
      for (int u = 0; u < G; ++u) upper.row[u] += other.row[u];
      upper.store(matrix + i * width + j, width);
      upper.transposed().store(matrix + j * width + i, width);
    }
  for (int64_t i = 0; i < n; ++i) matrix[i * width + i] = T(0);
  for (int64_t j = 0; j < n; j += kLanes<T>) {  // columns, whose sums are those of the rows
    Vector<T> sum{};
    for (int64_t i = 0; i < n; ++i) sum += load(matrix + i * width + j);
    store(sums + j, sum);
  }
  for (int64_t i = 0; i < n; ++i) matrix[i * width + i] = -sums[i];
}

// Returns sum_ij |d_ij - gold_ij|; replaces points by scale * sum_j (s_ij + s_ji)(p_i - p_j).
template <class T, class Gold>
double probe_distances(int64_t n, int64_t rank, T* points, int64_t ld, const Gold* gold, T scale,
                       SentenceScratch<T>& scratch) {
  const int64_t width = padded<T>(n);
  T* gram = scratch.gram.get();
  T* squares = scratch.squares.get();
  int64_t row = 0;
  for (; row + 2 <= n; row += 2) gram_rows<T, 2>(n, rank, points, ld, row, gram, width);
  if (row < n) gram_rows<T, 1>(n, rank, points, ld, row, gram, width);
  for (int64_t i = 0; i < n; ++i) squares[i] = gram[i * width + i];
  std::fill(squares + n, squares + width, T(0));
  mirror(n, gram, width);
  T* golds = scratch.golds.get();  // all at once: rows have odd lengths
  for (int64_t pair = 0; pair < n * n; ++pair) golds[pair] = T(gold[pair]);
  const double loss = signs(n, gram, width, squares, golds);
  signs_to_matrix(n, gram, width, squares);
  int64_t k = 0;
  for (; k + kLanes<T> < rank; k += 2 * kLanes<T>)
    gradient_panel<T, 2>(n, gram, width, points + k, ld, rank - k, -scale, scratch.panel.get());
  if (k < rank) gradient_panel<T, 1>(n, gram, width, points + k, ld, rank - k, -scale, scratch.panel.get());
  return loss;
}

// Returns sum_i | |p_i|^2 - gold_i |; replaces points by scale * s_i p_i.
template <class T>
double probe_depths(int64_t n, int64_t rank, T* points, int64_t ld, const T* gold, T scale) {
  double loss = 0;
  for (int64_t i = 0; i < n; ++i) {
    T* point = points + i * ld;
    Vector<T> sum{};
    int64_t k = 0;
    for (; k + kLanes<T> <= rank; k += kLanes<T>) sum += load(point + k) * load(point + k);
    double square = lane_sum<T>(sum);
    for (; k < rank; ++k) square += double(point[k]) * double(point[k]);
    const double error = square - double(gold[i]);
    loss += error < 0 ? -error : error;
    const T factor = error > 0 ? scale : error < 0 ? -scale : T(0);
    for (k = 0; k < rank; ++k) point[k] *= factor;
  }
  return loss;
}

}  // namespace bertft
