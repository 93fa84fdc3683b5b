// Second moments of the entries, or of the ranks of the entries, of many dissimilarity matrices; see
// rdm_correlation.cpp.
#pragma once
#include <cstdint>
#include <vector>

#include "parallel.h"
#include "rows.h"

namespace bertft {

// P = L + M matrices of the same N stimuli: those of x, then those of y. Pairs are i < j.
struct RdmTiles {
  std::vector<Matrix> layers;            // P
  std::vector<Metric> metrics;           // P
  std::vector<std::vector<Form>> forms;  // P x N, of row_forms
  int64_t first_y;                       // L; = P where x is compared with itself
  bool ranks;
  // Out, all double, with e the entry less its layer's shift, or the centred rank over the number of pairs:
  double* sums;      // (P,) sum e
  double* products;  // (P, P) sum e e' for pairs of layers that are compared, and each with itself; else 0
  double* shifts;    // (P,)
  double* within;    // (P,) share of the variance of ranks inside bins (0 without ranks)
};

template <class T>
void rdm_tiles_cpu(const RdmTiles& problem, const Pool& pool);

}  // namespace bertft
