// One sentence of the structural-probe losses: predicted values, loss, and gradient in place.
//
// `points` is the sentence's part of P', (R, n) with row stride ld: points[k * ld + i] is coordinate k of word i. Whole
// vectors are read past word n (the caller pads the last row); what lies there, the next sentence or nothing
// in particular, never reaches a result. Both functions replace P' by Q', the gradient with respect to the points.
//
// Presumption: sentences are short (tens of words), ranks in the tens or hundreds; the n x n matrix stays in the
// first cache levels, and a register block of kRows x 2 vectors covers most of a sentence's width.
#pragma once
#include <algorithm>
#include <cstdint>
#include <memory>

#include "simd.h"

namespace bertft {

constexpr int kRows = 6;  // 6 x 2 accumulators, 2 loads and 1 broadcast fit the 16 registers of AVX2

template <class T>
struct SentenceScratch {
  explicit SentenceScratch(int64_t longest)
      : width(padded<T>(longest)),
        gram(new T[size_t((longest + kRows) * width)]),
        rows(new T[size_t(kRows * longest)]),
        squares(new T[size_t(width + kLanes<T>)]) {}
  int64_t width;
  std::unique_ptr<T[]> gram;     // (n + kRows, width)
  std::unique_ptr<T[]> rows;     // (n, kRows)
  std::unique_ptr<T[]> squares;  // (width)
};

// acc[u][c] = sum_k a[k * a_step + u * a_row] * b[k * b_step + c * lanes ...], U rows by C vectors.
template <class T, int U, int C>
inline __attribute__((always_inline)) void outer_sum(int64_t count, const T* a, int64_t a_step, int64_t a_row,
                                                     const T* b, int64_t b_step, Vector<T> (&acc)[U][C]) {
  for (int u = 0; u < U; ++u)
    for (int c = 0; c < C; ++c) acc[u][c] = Vector<T>{};
  for (int64_t k = 0; k < count; ++k, a += a_step, b += b_step) {
    Vector<T> right[C];
    for (int c = 0; c < C; ++c) right[c] = load(b + c * kLanes<T>);
    for (int u = 0; u < U; ++u) {
      const Vector<T> left = splat(a[u * a_row]);
      for (int c = 0; c < C; ++c) acc[u][c] += left * right[c];
    }
  }
}

template <class T, int U, int C>
inline void gram_block(int64_t rank, const T* points, int64_t ld, int64_t i, int64_t j, T* gram, int64_t width) {
  Vector<T> acc[U][C];
  outer_sum<T, U, C>(rank, points + i, ld, 1, points + j, ld, acc);
  for (int u = 0; u < U; ++u)
    for (int c = 0; c < C; ++c) store(gram + (i + u) * width + j + c * kLanes<T>, acc[u][c]);
}

// Gram matrix p_i . p_j for j >= i (and up to a vector more), rows i..i+U-1.
template <class T, int U>
inline void gram_rows(int64_t n, int64_t rank, const T* points, int64_t ld, int64_t i, T* gram, int64_t width) {
  int64_t j = i / kLanes<T> * kLanes<T>;
  for (; j + 2 * kLanes<T> <= padded<T>(n); j += 2 * kLanes<T>) gram_block<T, U, 2>(rank, points, ld, i, j, gram, width);
  if (j < n) gram_block<T, U, 1>(rank, points, ld, i, j, gram, width);
}

template <class T, int U, int C>
inline void gradient_block(int64_t n, const T* rows, const T* matrix, int64_t width, int64_t i, T* out, int64_t ld) {
  Vector<T> acc[U][C];
  outer_sum<T, U, C>(n, rows, U, 1, matrix + i, width, acc);
  const int64_t left = n - i;
  for (int u = 0; u < U; ++u)
    for (int c = 0; c < C; ++c) {
      T* to = out + u * ld + i + c * kLanes<T>;
      if (left >= (c + 1) * kLanes<T>) {
        store(to, acc[u][c]);
      } else if (left > c * kLanes<T>) {  // the next word's column belongs to the next sentence
        T lanes[kLanes<T>];
        store(lanes, acc[u][c]);
        std::copy_n(lanes, left - c * kLanes<T>, to);
      }
    }
}

// out[u, i] = sum_j points[u, j] matrix[j, i] for U coordinates, in place.
template <class T, int U>
inline void gradient_rows(int64_t n, T* points, int64_t ld, const T* matrix, int64_t width, T* rows) {
  for (int u = 0; u < U; ++u)
    for (int64_t j = 0; j < n; ++j) rows[j * U + u] = points[u * ld + j];
  int64_t i = 0;
  for (; i + 2 * kLanes<T> <= padded<T>(n); i += 2 * kLanes<T>)
    gradient_block<T, U, 2>(n, rows, matrix, width, i, points, ld);
  if (i < n) gradient_block<T, U, 1>(n, rows, matrix, width, i, points, ld);
}

// Gold distances gold[i..] as a vector; the tail of a row is read one by one, since the packed array may end there.
template <class T, class Gold>
inline Vector<T> load_gold(const Gold* gold, int64_t left) {
  T lanes[kLanes<T>] = {};
  if (left >= kLanes<T>)
    for (int lane = 0; lane < kLanes<T>; ++lane) lanes[lane] = T(gold[lane]);
  else
    for (int64_t lane = 0; lane < left; ++lane) lanes[lane] = T(gold[lane]);
  return load(lanes);
}

// Returns sum_ij |d_ij - gold_ij|; replaces points by scale * sum_j (s_ij + s_ji)(p_i - p_j).
template <class T, class Gold>
double probe_distances(int64_t n, int64_t rank, T* points, int64_t ld, const Gold* gold, T scale,
                       SentenceScratch<T>& scratch) {
  const int64_t width = padded<T>(n);
  T* gram = scratch.gram.get();
  T* squares = scratch.squares.get();
  int64_t row = 0;
  for (; row + kRows <= n; row += kRows) gram_rows<T, kRows>(n, rank, points, ld, row, gram, width);
  if (row + 4 <= n) gram_rows<T, 4>(n, rank, points, ld, row, gram, width), row += 4;
  if (row + 2 <= n) gram_rows<T, 2>(n, rank, points, ld, row, gram, width), row += 2;
  if (row < n) gram_rows<T, 1>(n, rank, points, ld, row, gram, width);
  for (int64_t i = 0; i < n; ++i) squares[i] = gram[i * width + i];
  std::fill(squares + n, squares + width, T(0));
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < i; ++j) gram[i * width + j] = gram[j * width + i];

  // Signs s_ij take the place of the Gram matrix; lanes past word n become 0.
  double loss = 0;
  const Vector<T> zero{}, one = splat(T(1));
  for (int64_t i = 0; i < n; ++i) {
    T* line = gram + i * width;
    const Vector<T> square = splat(squares[i]);
    Vector<T> sum{};
    for (int64_t j = 0; j < n; j += kLanes<T>) {
      const Vector<T> predicted = square + load(squares + j) - T(2) * load(line + j);
      Vector<T> error = predicted - load_gold<T>(gold + i * n + j, n - j);
      if (n - j < kLanes<T>) error = keep<T>(error, first_lanes<T>(n - j));
      sum += magnitude<T>(error);
      store(line + j, Vector<T>(error > zero ? one : error < zero ? -one : zero));
    }
    loss += lane_sum<T>(sum);
  }

  // m = s + s', its row sums on the diagonal minus m elsewhere: Q = scale * that times P.
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < i; ++j) {
      const T m = -scale * (gram[i * width + j] + gram[j * width + i]);
      gram[i * width + j] = gram[j * width + i] = m;
    }
    gram[i * width + i] = T(0);
  }
  for (int64_t i = 0; i < n; ++i) {
    Vector<T> sum{};
    for (int64_t j = 0; j < n; j += kLanes<T>) sum += load(gram + i * width + j);
    gram[i * width + i] = -T(lane_sum<T>(sum));
  }
  int64_t k = 0;
  for (; k + kRows <= rank; k += kRows)
    gradient_rows<T, kRows>(n, points + k * ld, ld, gram, width, scratch.rows.get());
  for (; k + 2 <= rank; k += 2) gradient_rows<T, 2>(n, points + k * ld, ld, gram, width, scratch.rows.get());
  if (k < rank) gradient_rows<T, 1>(n, points + k * ld, ld, gram, width, scratch.rows.get());
  return loss;
}

// Returns sum_i | |p_i|^2 - gold_i |; replaces points by scale * s_i p_i.
template <class T>
double probe_depths(int64_t n, int64_t rank, T* points, int64_t ld, const T* gold, T scale,
                    SentenceScratch<T>& scratch) {
  T* factors = scratch.squares.get();
  std::fill_n(factors, n, T(0));
  for (int64_t k = 0; k < rank; ++k)
    for (int64_t i = 0; i < n; ++i) factors[i] += points[k * ld + i] * points[k * ld + i];
  double loss = 0;
  for (int64_t i = 0; i < n; ++i) {
    const T error = factors[i] - gold[i];
    loss += double(error < T(0) ? -error : error);
    factors[i] = error > T(0) ? scale : error < T(0) ? -scale : T(0);
  }
  for (int64_t k = 0; k < rank; ++k)
    for (int64_t i = 0; i < n; ++i) points[k * ld + i] *= factors[i];
  return loss;
}

}  // namespace bertft
