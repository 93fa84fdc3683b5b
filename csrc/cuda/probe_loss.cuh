// Plan of the probe losses: which block works on which words. Made on the host, where the lengths are.
#pragma once
#include <algorithm>
#include <vector>

#include "common.cuh"

namespace bertft {

constexpr int kProbeTile = 32;    // words of a tile
constexpr int kProbeShort = 128;  // sentences up to here share one launch with little shared memory

struct ProbeTile {
  long long pairs;   // first entry of the sentence in the packed distances
  long long word;    // first word of the sentence
  int words, first;  // words of the sentence; first word of the tile within it
};

// Tiles of all sentences, longest sentence first, so that the longest blocks do not start last.
inline std::vector<ProbeTile> plan_probe_tiles(const long long* lengths, long long sentences) {
  std::vector<ProbeTile> tiles;
  long long word = 0, pairs = 0;
  for (long long s = 0; s < sentences; ++s) {
    const int n = static_cast<int>(lengths[s]);
    for (int first = 0; first < n; first += kProbeTile) tiles.push_back({pairs, word, n, first});
    word += n;
    pairs += static_cast<long long>(n) * n;
  }
  std::stable_sort(tiles.begin(), tiles.end(),
                   [](const ProbeTile& a, const ProbeTile& b) { return a.words > b.words; });
  return tiles;
}

}  // namespace bertft
