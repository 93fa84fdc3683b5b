// Last step of rdm_correlation: from sums over entries to correlations.
#pragma once
#include "rdm_entries.cuh"

namespace bertft {
namespace rdm {

enum Compare : int { kPearson = 0, kCosineOf = 1, kSpearman = 2, kRhoA = 3 };  // index in ops/rdm_correlation.py

// Which layers are compared at once: nx of x from x0, then ny of y from y0; ny = 0 compares those of x with one
// another.
struct Group {
  int x0, nx, y0, ny;
  __host__ __device__ int all() const { return nx + ny; }
  __host__ __device__ int others() const { return ny ? ny : nx; }
  __host__ __device__ int sums() const { return nx * others() + 2 * all(); }  // products | sums | squares
};

// sums[e] of partial (blocks, gridDim.x), always in the same order.
static __global__ void __launch_bounds__(NT)
    fold_sums_kernel(const double* __restrict__ partial, int blocks, double* __restrict__ sums) {
  BERTFT_SHARED(double, scratch, [NT / 32]);
  double sum = 0;
  for (int b = static_cast<int>(threadIdx.x); b < blocks; b += NT) {
    sum += partial[static_cast<long long>(b) * gridDim.x + blockIdx.x];
  }
  sum = block_sum<NT>(sum, scratch);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// From entries less their shift to the metric's own values: scale * (entry - shift) + origin.
template <class C>
struct Entries {
  int metric;
  const C* shift;        // (layers)
  const double* square;  // (layers) |m|^2 of the provisional mean
  __device__ double scale() const { return scales_rows(metric) ? -1.0 : metric == kSqEuclidean ? -2.0 : 1.0; }
  __device__ double origin(int layer) const {
    const double offset = metric == kDot ? square[layer] : scales_rows(metric) ? 1.0 - square[layer] : 0.0;
    return scale() * static_cast<double>(shift[layer]) + offset;
  }
};

// out (.., width): correlations of the group's pairs of layers; mirrored: y's layers are x's, out is symmetric.
template <class C>
__global__ void __launch_bounds__(NT)
    compare_kernel(const double* __restrict__ sums, Group g, int compare, double pairs, Entries<C> x, Entries<C> y,
                   double* __restrict__ out, int width, bool mirrored) {
  const int e = static_cast<int>(blockIdx.x) * NT + static_cast<int>(threadIdx.x), others = g.others();
  if (e >= g.nx * others) return;
  const int l = e / others, m = e % others;
  if (g.ny == 0 && m < l) return;  // written by its mirror image
  const int b = g.ny ? g.nx + m : m;
  const double *first = sums + g.nx * others, *second = first + g.all();
  const bool own = g.ny == 0;  // then the products hold the squares too, and a layer correlates with itself exactly
  const double ab = sums[e], sa = first[l], sb = first[b];
  const double aa = own ? sums[l * others + l] : second[l], bb = own ? sums[m * others + m] : second[b];
  const double sign = x.scale() * y.scale() < 0 ? -1.0 : 1.0;
  double value;
  if (compare == kRhoA) {
    // ranks are centred and divided by the number of pairs
    value = pairs > 1 ? sign * 12 * ab * pairs / (pairs * pairs - 1) : nan("");
  } else if (compare == kCosineOf) {
    const double ca = x.scale(), cb = y.scale(), oa = x.origin(g.x0 + l), ob = y.origin((own ? g.x0 : g.y0) + m);
    const double products = ca * cb * ab + ca * ob * sa + cb * oa * sb + pairs * oa * ob;
    const double squares_a = ca * ca * aa + 2 * ca * oa * sa + pairs * oa * oa;
    const double squares_b = cb * cb * bb + 2 * cb * ob * sb + pairs * ob * ob;
    value = products / sqrt(squares_a * squares_b);
  } else {
    value = sign * (ab - sa * sb / pairs) / sqrt((aa - sa * sa / pairs) * (bb - sb * sb / pairs));
  }
  const int row = g.x0 + l, col = (own ? g.x0 : g.y0) + m;
  out[static_cast<long long>(row) * width + col] = value;
  if (mirrored) out[static_cast<long long>(col) * width + row] = value;
}

}  // namespace rdm
}  // namespace bertft
