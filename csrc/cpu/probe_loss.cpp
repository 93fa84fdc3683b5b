// Structural-probe losses (Hewitt and Manning 2019) and their gradients in one pass over packed sentences.
//
//   P = H B, a row p_i for each word;  d_ij = |p_i - p_j|^2,  e_i = |p_i|^2
//   distance loss = 1/S sum_s 1/n_s^2 sum_{i,j in s} |d_ij - gold_ij|
//   depth loss    = 1/S sum_s 1/n_s   sum_{i in s}   |e_i - gold_i|          (S counts sentences that have words)
//   with s_ij = sign(d_ij - gold_ij), m_ij = s_ij + s_ji, c = 2 / (S n^2):  dL/dp_i = c sum_j m_ij (p_i - p_j)
//   with s_i  = sign(e_i - gold_i),   c = 2 / (S n):                        dL/dp_i = c s_i p_i
//   Q holds the rows dL/dp_i:  dL/dB = H' Q,  dL/dH = Q B'
//
// Work per word: 4 D R in the two unavoidable matrix products, and about 3 n R in between, in one hand-written kernel
// per sentence (probe_sentence.h), because n is small. Q overwrites P. P is stored word by word, as the product H B
// writes it: BLAS is up to 15 % slower at writing and reading the transpose.
//
// Threads take whole layers, in as many rounds as fill all threads. All threads share each remaining layer: first its
// words (P, signs, dL/dH), then, when all words are done, slices of D (dL/dB). Long inputs take rounds of kPiece words
// per thread, so memory is R * kPiece per thread for any T, plus n^2 for the longest sentence. Each partial sum belongs
// to a sentence or a slice, never to a thread: results repeat for a fixed number of threads.
#include "probe_loss.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "gemm.h"
#include "half.h"
#include "probe_sentence.h"

namespace bertft {
namespace {

constexpr int64_t kPiece = 1024;  // words to a matrix product: BLAS is slow on fewer than 256, caches on many more

struct Sentence {
  int64_t word, length, gold;  // first word, words, first entry of its distances
};

// Sentences in runs of about kPiece words (a longer sentence is its own run); runs in rounds, one run per thread.
struct Run {
  int64_t first, last;  // sentences
  int64_t word, words;
};

std::vector<Run> cut(const std::vector<Sentence>& sentences, int64_t words, int64_t threads) {
  const int64_t share = std::min(kPiece, (words + threads - 1) / threads);
  std::vector<Run> runs;
  for (int64_t s = 0; s < int64_t(sentences.size()); ++s) {
    // Rounds to the nearest sentence, which keeps the runs of a short batch even.
    if (runs.empty() || runs.back().words + sentences[s].length / 2 > share)
      runs.push_back({s, s, sentences[s].word, 0});
    runs.back().last = s + 1;
    runs.back().words += sentences[s].length;
  }
  return runs;
}

template <class T>
class Pass {
 public:
  Pass(const ProbeLoss<T>& problem, const Pool& pool) : p(problem), pool_(pool) {
    int64_t word = 0, gold = 0;
    for (int64_t s = 0; s < p.sentences; ++s) {
      const int64_t n = p.lengths[s];
      if (n > 0) sentences_.push_back({word, n, gold});
      word += n, gold += n * n;
      longest_ = std::max(longest_, n);
    }
    losses_.resize(size_t(p.layers) * sentences_.size() * 2);
  }

  void run() {
    if (sentences_.empty()) return clear();
    const Pool alone{1, [](int64_t begin, int64_t end, int64_t, Pool::Body body, void* c) { body(begin, end, c); }};
    const int64_t whole = pool_.threads > 1 ? p.layers - p.layers % pool_.threads : 0;
    parallel_tasks(pool_, whole, [&](int, int64_t layer) { run_layer(layer, alone); });
    for (int64_t layer = whole; layer < p.layers; ++layer) run_layer(layer, pool_);
    for (int64_t layer = 0; layer < p.layers; ++layer) sum_losses(layer);
  }

 private:
  void clear() {
    std::fill_n(p.loss, p.layers * 2, T(0));
    if (p.grad_weight) std::fill_n(p.grad_weight, p.layers * p.dim * p.rank, T(0));
  }

  void sum_losses(int64_t layer) {
    const double* losses = &losses_[size_t(layer) * sentences_.size() * 2];
    for (int kind = 0; kind < 2; ++kind) {
      double sum = 0;
      for (size_t s = 0; s < sentences_.size(); ++s) sum += losses[2 * s + kind];
      p.loss[2 * layer + kind] = T(sum / double(sentences_.size()));
    }
  }

  void run_layer(int64_t layer, const Pool& pool) {
    const std::vector<Run> runs = cut(sentences_, p.words, pool.threads);
    for (size_t first = 0; first < runs.size(); first += size_t(pool.threads)) {
      const size_t count = std::min(runs.size() - first, size_t(pool.threads));
      run_round(layer, pool, &runs[first], int64_t(count), first > 0);
    }
  }

  void run_round(int64_t layer, const Pool& pool, const Run* runs, int64_t count, bool accumulate) {
    const int64_t start = runs[0].word, words = runs[count - 1].word + runs[count - 1].words - start;
    const int64_t ld = padded<T>(p.rank);
    const Aligned<T> projected = aligned<T>((words + kReadAhead) * ld);
    std::fill_n(projected.get() + words * ld, kReadAhead * ld, T(0));
    Aligned<T> converted;
    const T* h;  // word `start` of this layer, (words, D)
    int64_t stride = p.word_stride;
    if (p.storage == Storage::same) {
      h = static_cast<const T*>(p.h) + layer * p.layer_stride + start * stride;
    } else {
      converted = aligned<T>(words * p.dim);
      h = converted.get();
    }
    parallel_tasks(pool, count, [&](int, int64_t r) {
      const int64_t offset = runs[r].word - start, n = runs[r].words;
      if (converted) convert_words(layer, runs[r], converted.get() + offset * p.dim);
      const T* run_h = converted ? h + offset * p.dim : h + offset * stride;
      const int64_t run_stride = converted ? p.dim : stride;
      T* run_p = projected.get() + offset * ld;
      const T* weight = p.weight + layer * p.dim * p.rank;
      gemm(false, false, n, p.rank, p.dim, T(1), run_h, run_stride, weight, p.rank, T(0), run_p, ld);
      probe_sentences(layer, runs[r], run_p, ld);
      if (p.grad_h) write_grad_h(layer, runs[r], run_p, ld);
    });
    if (converted) stride = p.dim;
    if (!p.grad_weight) return;
    T* grad = p.grad_weight + layer * p.dim * p.rank;
    const int64_t slices = std::min<int64_t>(pool.threads, p.dim);
    parallel_tasks(pool, slices, [&](int, int64_t slice) {
      const int64_t begin = p.dim * slice / slices, end = p.dim * (slice + 1) / slices;
      gemm(true, false, end - begin, p.rank, words, T(1), h + begin, stride, projected.get(), ld, T(accumulate),
           grad + begin * p.rank, p.rank);
    });
  }

  void convert_words(int64_t layer, const Run& run, T* out) const {
    for (int64_t i = 0; i < run.words; ++i) {
      const int64_t offset = layer * p.layer_stride + (run.word + i) * p.word_stride;
      widen(p.storage == Storage::float16, static_cast<const uint16_t*>(p.h) + offset, p.dim, out + i * p.dim);
    }
  }

  // Losses of the run's sentences; turns its P into Q.
  void probe_sentences(int64_t layer, const Run& run, T* projected, int64_t ld) {
    SentenceScratch<T> scratch(longest_);
    const double count = double(sentences_.size());
    for (int64_t s = run.first; s < run.last; ++s) {
      const auto [word, n, gold] = sentences_[s];
      T* points = projected + (word - run.word) * ld;
      double* loss = &losses_[size_t(layer * int64_t(sentences_.size()) + s) * 2];
      if (p.distance_rank > 0) {
        const T scale = T(2 / (count * double(n) * double(n)));
        if (p.distances_are_bytes)
          loss[0] = probe_distances(n, p.distance_rank, points, ld, static_cast<const uint8_t*>(p.distances) + gold,
                                    scale, scratch);
        else
          loss[0] = probe_distances(n, p.distance_rank, points, ld, static_cast<const T*>(p.distances) + gold, scale,
                                    scratch);
        loss[0] /= double(n) * double(n);
      }
      if (p.distance_rank < p.rank)
        loss[1] = probe_depths(n, p.rank - p.distance_rank, points + p.distance_rank, ld, p.depths + word,
                               T(2 / (count * double(n)))) /
                  double(n);
    }
  }

  // dL/dH = Q B', one product for each kind, since each kind's loss may be weighted differently downstream.
  void write_grad_h(int64_t layer, const Run& run, const T* gradient, int64_t ld) const {
    const int64_t ranks[2] = {p.distance_rank, p.rank - p.distance_rank};
    for (int64_t kind = 0, column = 0, slot = 0; kind < 2; column += ranks[kind++]) {
      if (ranks[kind] == 0) continue;
      T* out = p.grad_h + ((slot++ * p.layers + layer) * p.words + run.word) * p.dim;
      const T* weight = p.weight + layer * p.dim * p.rank + column;
      gemm(false, true, run.words, p.dim, ranks[kind], T(1), gradient + column, ld, weight, p.rank, T(0), out, p.dim);
    }
  }

  const ProbeLoss<T>& p;
  const Pool& pool_;
  std::vector<Sentence> sentences_;
  std::vector<double> losses_;  // (L, S, 2)
  int64_t longest_ = 0;
};

}  // namespace

template <class T>
void probe_loss_cpu(const ProbeLoss<T>& problem, const Pool& pool) {
  Pass<T>(problem, pool).run();
}

template void probe_loss_cpu<float>(const ProbeLoss<float>&, const Pool&);
template void probe_loss_cpu<double>(const ProbeLoss<double>&, const Pool&);

}  // namespace bertft
