// The CPU kernels without torch, held against plain loops in double: what runs them on a CPU that only an emulator has.
//
//   g++ -std=c++20 -O2 -DBERTFT_NO_BLAS -Icsrc/cpu tests/ops/native/alone/kernels.cpp csrc/cpu/*.cpp -o alone &&
//   ./alone
//
// Prints one line per kernel and type, with the largest error as a share of its bound, and exits with 1 if one exceeds
// its bound. Sizes are such that vectors, groups of rows and tiles have leftovers, and that some have more than one.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <string>
#include <vector>

#include "cross_moments.h"
#include "half.h"
#include "nearest.h"
#include "pairwise_distance.h"
#include "plain.h"
#include "probe_loss.h"
#include "rdm_correlation.h"
#include "simd.h"

namespace {

template <class T>
void check_distances() {
  const int64_t n = 530, m = 37, d = 45;
  Check check{std::string("pairwise_distance ") + type_name<T>}, back{std::string("  its gradient ") + type_name<T>};
  for (int code = 0; code < 6; ++code) {
    const Metric metric = Metric(code);
    const auto x = numbers<T>(n * d, 0.3), y = numbers<T>(m * d, 0.3);
    const Numbers u = formed(x, n, d, metric), v = formed(y, m, d, metric);
    std::vector<T> cross(n * m), own(n * (n - 1) / 2);
    pairwise_distance_cpu<T>({matrix(x, n, d), matrix(y, m, d), metric, false, cross.data()}, kPool);
    pairwise_distance_cpu<T>({matrix(x, n, d), Matrix{}, metric, true, own.data()}, kPool);
    const double bound = 8 * double(d) * kEpsilon<T>;  // of three sums of d products of at most 1.7
    int64_t at = 0;
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < m; ++j) check.near(cross[i * m + j], distance(&u[i * d], &v[j * d], d, metric), bound);
      for (int64_t j = i + 1; j < n; ++j) check.near(own[at++], distance(&u[i * d], &u[j * d], d, metric), bound);
    }
    const auto g = numbers<T>(n * m);
    std::vector<T> gx(n * d), gy(m * d);
    pairwise_distance_backward_cpu<T>(
        {matrix(x, n, d), matrix(y, m, d), metric, false, g.data(), m, 1, cross.data(), gx.data(), gy.data()}, kPool);
    Numbers ex(n * d), ey(m * d);
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < m; ++j)
        for (int64_t k = 0; k < d; ++k) {
          const double a = u[i * d + k], b = v[j * d + k], w = g[i * m + j], step = a - b;
          const double s = metric == Metric::manhattan   ? double((step > 0) - (step < 0))
                           : metric == Metric::euclidean ? step / distance(&u[i * d], &v[j * d], d, metric)
                           : normalised(metric)          ? step
                                                         : 2 * step;
          ex[i * d + k] += w * (metric == Metric::dot ? b : s), ey[j * d + k] += w * (metric == Metric::dot ? a : -s);
        }
    for (int64_t k = 0; k < n * d; ++k) back.near(gx[k], ex[k], 4 * double(m) * kEpsilon<T>);
    for (int64_t k = 0; k < m * d; ++k) back.near(gy[k], ey[k], 4 * double(n) * kEpsilon<T>);
  }
}

template <class T>
void check_moments() {
  const int64_t n = 2100, d = 41, e = 19;
  Check check{std::string("cross_moments ") + type_name<T>};
  for (Metric metric : {Metric::dot, Metric::cosine, Metric::correlation, Metric::sqeuclidean}) {
    const auto x = numbers<T>(n * d, 0.2), y = numbers<T>(n * e, 0.2);
    const Numbers mx(d, 0.1), my(e, 0.1);
    Numbers gram(d * d), of_x(3 * d + 6), cross(d * e), both(2 * (d + e) + 4), gram_y(e * e), of_y(3 * e + 6);
    cross_moments_cpu<T>({matrix(x, n, d), matrix(y, n, e), metric, metric, mx.data(), my.data(), gram.data(),
                          of_x.data(), cross.data(), both.data(), gram_y.data(), of_y.data(), false},
                         true, kPool);
    const Numbers fx = formed(x, n, d, metric), fy = formed(y, n, e, metric);
    Numbers sums(d * d), cross_sums(d * e), stats(3 * d + 6), pair(2 * (d + e) + 4);
    for (int64_t i = 0; i < n; ++i) {
      Numbers u(d), v(e);
      double a = 0, b = 0, p = 0, q = 0;
      for (int64_t k = 0; k < d; ++k) u[k] = T(fx[i * d + k] - mx[k]), a += u[k] * u[k], p += u[k] * mx[k];
      for (int64_t k = 0; k < e; ++k) v[k] = T(fy[i * e + k] - my[k]), b += v[k] * v[k], q += v[k] * my[k];
      if (metric == Metric::sqeuclidean) p = -a / 2, q = -b / 2;
      for (int64_t k = 0; k < d; ++k) {
        for (int64_t l = 0; l < d; ++l) sums[k * d + l] += u[k] * u[l];
        for (int64_t l = 0; l < e; ++l) cross_sums[k * e + l] += u[k] * v[l];
        stats[k] += u[k], stats[d + k] += p * u[k], stats[2 * d + k] += a * u[k];
        pair[k] += q * u[k], pair[d + k] += b * u[k];
      }
      for (int64_t k = 0; k < e; ++k) pair[2 * d + k] += p * v[k], pair[2 * d + e + k] += a * v[k];
      const double last[] = {1, a, p, a * a, a * p, p * p}, mixed[] = {a * b, p * q, q * a, p * b};
      for (int k = 0; k < 6; ++k) stats[3 * d + k] += last[k];
      for (int k = 0; k < 4; ++k) pair[2 * (d + e) + k] += mixed[k];
    }
    const double rounding = 2 * kEpsilon<T> + 64 * kEpsilon<double>;  // T sums a few rows before double does
    const double squares = stats[3 * d + 1], fourth = stats[3 * d + 3] + squares;
    for (int64_t k = 0; k < d * d; ++k) check.near(gram[k], sums[k], rounding * squares);
    for (int64_t k = 0; k < d * e; ++k) check.near(cross[k], cross_sums[k], rounding * squares);
    for (int64_t k = 0; k < 3 * d + 6; ++k) check.near(of_x[k], stats[k], rounding * (fourth + double(n)));
    for (int64_t k = 0; k < 2 * (d + e) + 4; ++k) check.near(both[k], pair[k], rounding * (fourth + double(n)));
  }
}

template <class T>
void check_matrices() {
  const int64_t n = 300, d = 21, layers = 3;
  Check check{std::string("rdm_correlation ") + type_name<T>}, ranked{std::string("  of ranks ") + type_name<T>};
  for (int code = 0; code < 6; ++code) {
    std::vector<std::vector<T>> x;
    std::vector<Numbers> entries(layers), ranks(layers);
    for (int64_t l = 0; l < layers; ++l) {
      x.push_back(numbers<T>(n * d, 0.2));
      for (int64_t k = 0; l > 0 && k < n * d; ++k) x[l][k] += x[0][k];  // so that layers correlate
      const Numbers u = formed(x[l], n, d, Metric(code));
      for (int64_t i = 0; i < n; ++i)
        for (int64_t j = i + 1; j < n; ++j) entries[l].push_back(distance(&u[i * d], &u[j * d], d, Metric(code)));
      Numbers sorted = entries[l];
      std::sort(sorted.begin(), sorted.end());
      for (double value : entries[l])
        ranks[l].push_back(double(std::lower_bound(sorted.begin(), sorted.end(), value) - sorted.begin()));
    }
    for (bool of_ranks : {false, true}) {
      Numbers sums(layers), products(layers * layers), shifts(layers), within(layers);
      RdmTiles problem{{}, {}, {}, layers, of_ranks, sums.data(), products.data(), shifts.data(), within.data()};
      for (int64_t l = 0; l < layers; ++l) {
        problem.layers.push_back(matrix(x[l], n, d)), problem.metrics.push_back(Metric(code));
        problem.forms.emplace_back(n);
        row_forms(problem.layers[l], Metric(code), problem.forms[l].data(), kPool);
      }
      rdm_tiles_cpu<T>(problem, kPool);
      const auto centred = [&](int64_t a, int64_t b) {
        return products[a * layers + b] - sums[a] * sums[b] / double(entries[0].size());
      };
      for (int64_t a = 0; a < layers; ++a)
        for (int64_t b = 0; b < layers; ++b) {
          const Numbers &r = of_ranks ? ranks[a] : entries[a], &s = of_ranks ? ranks[b] : entries[b];
          const double found = centred(a, b) / std::sqrt(centred(a, a) * centred(b, b)), expected = pearson(r, s);
          // a cell of ranks is a 65,536th of the range; ranks inside one count as tied
          (of_ranks ? ranked : check).near(found, expected, of_ranks ? 1e-5 : 2 * kEpsilon<T> + 512 * kEpsilon<double>);
        }
    }
  }
}

template <class T>
void check_nearest() {
  const int64_t rows = 23, columns = 151, k = 5;
  Check check{std::string("nearest ") + type_name<T>};
  const auto tile = numbers<T>(rows * columns);
  const T none = -std::numeric_limits<T>::infinity();
  std::vector<T> across(rows * k, none), down(columns * k, none);
  std::vector<int64_t> place(rows * k, -1), place_down(columns * k, -1);
  nearest_cpu<T>(tile.data(), rows, columns, k, {across.data(), place.data(), 100},
                 {down.data(), place_down.data(), 200}, kPool);
  const auto expect = [&](int64_t lines, int64_t length, int64_t step, int64_t stride, const std::vector<T>& value,
                          const std::vector<int64_t>& at, int64_t first) {
    for (int64_t line = 0; line < lines; ++line) {
      std::vector<std::pair<T, int64_t>> all;
      for (int64_t i = 0; i < length; ++i) all.emplace_back(-tile[line * step + i * stride], first + i);
      std::sort(all.begin(), all.end());
      for (int64_t i = 0; i < k; ++i) {
        check.near(value[line * k + i], -all[i].first, 1e-300);
        check.near(double(at[line * k + i]), double(all[i].second), 1e-300);
      }
    }
  };
  expect(rows, columns, columns, 1, across, place, 100);
  expect(columns, rows, 1, columns, down, place_down, 200);
}

template <class T>
void check_probes() {
  const int64_t layers = 2, words = 47, d = 29, rank = 11, of_distance = 7;
  const std::vector<int64_t> lengths{5, 1, 0, 40, 1};
  Check check{std::string("probe_loss ") + type_name<T>}, back{std::string("  its gradients ") + type_name<T>};
  const auto h = numbers<T>(layers * words * d), weight = numbers<T>(layers * d * rank), depths = numbers<T>(words, 3);
  int64_t pairs = 0;
  for (int64_t n : lengths) pairs += n * n;
  const auto gold = numbers<T>(pairs, 4);
  std::vector<T> loss(layers * 2), gw(layers * d * rank), gh(2 * layers * words * d);
  probe_loss_cpu<T>(
      {layers, words, d, rank, of_distance, int64_t(lengths.size()), lengths.data(), h.data(), words * d, d,
       Storage::same, weight.data(), gold.data(), false, depths.data(), loss.data(), gw.data(), gh.data()},
      kPool);
  Numbers losses(layers * 2), ew(layers * d * rank), eh(2 * layers * words * d);
  const double sentences = double(std::count_if(lengths.begin(), lengths.end(), [](int64_t n) { return n > 0; }));
  // one difference (or vector) z = B' x and its share of a loss: value, and gradients through s = sign(|z|^2 - gold)
  const auto add = [&](int64_t l, int kind, const Numbers& x, double goal, double share, double* to_i, double* to_j) {
    const int64_t r0 = kind ? of_distance : 0, r1 = kind ? rank : of_distance;
    double square = 0;
    Numbers z(rank), step(d);
    for (int64_t r = r0; r < r1; ++r) {
      for (int64_t k = 0; k < d; ++k) z[r] += x[k] * weight[(l * d + k) * rank + r];
      square += z[r] * z[r];
    }
    losses[l * 2 + kind] += std::abs(square - goal) * share;
    const double s = (square > goal) - (square < goal);
    for (int64_t k = 0; k < d; ++k)
      for (int64_t r = r0; r < r1; ++r) {
        ew[(l * d + k) * rank + r] += 2 * s * share * x[k] * z[r];
        step[k] += 2 * s * share * z[r] * weight[(l * d + k) * rank + r];
      }
    for (int64_t k = 0; k < d; ++k) to_i[k] += step[k], to_j ? void(to_j[k] -= step[k]) : void();
  };
  for (int64_t l = 0; l < layers; ++l) {
    int64_t first = 0, at = 0;
    for (int64_t n : lengths) {
      for (int64_t i = 0; i < n; ++i) {
        const auto of = [&](int kind, int64_t word) { return &eh[((kind * layers + l) * words + first + word) * d]; };
        const T* hi = &h[(l * words + first + i) * d];
        add(l, 1, Numbers(hi, hi + d), depths[first + i], 1 / (double(n) * sentences), of(1, i), nullptr);
        for (int64_t j = 0; j < n; ++j, ++at) {
          const T* hj = &h[(l * words + first + j) * d];
          Numbers x(d);
          for (int64_t k = 0; k < d; ++k) x[k] = double(hi[k]) - double(hj[k]);
          add(l, 0, x, gold[at], 1 / (double(n * n) * sentences), of(0, i), of(0, j));
        }
      }
      first += n;
    }
  }
  for (int64_t k = 0; k < layers * 2; ++k) check.near(loss[k], losses[k], 64 * kEpsilon<T> * losses[k]);
  const double largest = *std::max_element(ew.begin(), ew.end());
  for (size_t k = 0; k < ew.size(); ++k) back.near(gw[k], ew[k], 64 * kEpsilon<T> * largest);
  for (size_t k = 0; k < eh.size(); ++k) back.near(gh[k], eh[k], 64 * kEpsilon<T> * largest);
}

void check_halves() {  // every pattern of bits, against the definition
  Check check{"float16 and bfloat16 to float32"};
  for (int bits = 0; bits < 1 << 16; ++bits) {
    const uint16_t half = uint16_t(bits);
    float wide = 0;
    const int exponent = (bits >> 10) & 31, mantissa = bits & 1023;
    if (exponent < 31) {  // the others are infinite or no numbers
      const double size = exponent ? std::ldexp(1024 + mantissa, exponent - 25) : std::ldexp(mantissa, -24);
      widen(true, &half, 1, &wide);
      check.near(wide, bits >> 15 ? -size : size, 1e-300);
    }
    const int wide_exponent = (bits >> 7) & 255, fraction = bits & 127;
    if (wide_exponent > 0 && wide_exponent < 255) {
      widen(false, &half, 1, &wide);
      const double size = std::ldexp(128 + fraction, wide_exponent - 134);
      check.near(wide, bits >> 15 ? -size : size, 1e-300);
    }
  }
}

}  // namespace

int main() {
  std::printf("vectors of %d bytes\n", BERTFT_VECTOR_BYTES);
  check_halves();
  check_distances<float>(), check_distances<double>();
  check_moments<float>(), check_moments<double>();
  check_matrices<float>(), check_matrices<double>();
  check_nearest<float>(), check_nearest<double>();
  check_probes<float>(), check_probes<double>();
  return failures > 0;
}
