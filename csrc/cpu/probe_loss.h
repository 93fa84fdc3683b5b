// Structural-probe losses and their gradients over packed sentences; see probe_loss.cpp.
#pragma once
#include <cstdint>

#include "parallel.h"

namespace bertft {

enum class Storage { same, bfloat16, float16 };  // type of h: that of the computation, or a half type

// T is float or double. Every pointer is row-major; sentence s holds the next lengths[s] of the words.
template <class T>
struct ProbeLoss {
  int64_t layers, words, dim, rank;
  int64_t distance_rank;  // the first distance_rank columns of weight probe distance, the others depth
  int64_t sentences;
  const int64_t* lengths;  // (S,), non-negative, sum = words
  const void* h;           // (L, T, D), unit stride in D; strides in elements
  int64_t layer_stride, word_stride;
  Storage storage;
  const T* weight;        // (L, D, R)
  const void* distances;  // packed (n_s, n_s) blocks, uint8_t or T; unread where distance_rank = 0
  bool distances_are_bytes;
  const T* depths;  // (T,); unread where distance_rank = rank
  T* loss;          // (L, 2): distance, depth; 0 for a kind without columns
  T* grad_weight;   // (L, D, R) or null
  T* grad_h;        // (K, L, T, D) or null; K = number of kinds with columns, distance first
};

template <class T>
void probe_loss_cpu(const ProbeLoss<T>& problem, const Pool& pool);

}  // namespace bertft
