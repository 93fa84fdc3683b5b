// Bounds, random numbers and definitions for kernels.cpp.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "parallel.h"
#include "rows.h"

using namespace bertft;
using Numbers = std::vector<double>;

inline int failures = 0;

// Errors of one kernel. A bound is absolute: a share of the largest sum of magnitudes that the kernel adds up.
struct Check {
  std::string name;
  double worst = 0;

  void near(double found, double expected, double bound) {
    const double share = std::isfinite(found) ? std::abs(found - expected) / bound : 1e9;
    worst = std::max(worst, share);
  }
  ~Check() {
    std::printf("%-34s %.3f of the bound%s\n", name.c_str(), worst, worst <= 1 ? "" : "  FAILED");
    failures += worst > 1;
  }
};

template <class T>
inline constexpr const char* type_name = sizeof(T) == 4 ? "float32" : "float64";
template <class T>
inline constexpr double kEpsilon = std::numeric_limits<T>::epsilon();

// Two workers, so that tasks are divided.
inline const Pool kPool{2, [](int64_t begin, int64_t end, int64_t, Pool::Body body, void* context) {
                          std::vector<std::thread> workers;
                          for (int64_t i = begin; i < end; ++i) workers.emplace_back(body, i, i + 1, context);
                          for (auto& worker : workers) worker.join();
                        }};

inline uint64_t state = 88172645463325252ull;
inline double uniform() {  // (-1, 1); xorshift64, the same on every machine
  state ^= state << 13, state ^= state >> 7, state ^= state << 17;
  return double(int64_t(state)) * 0x1p-63;
}
template <class T>
std::vector<T> numbers(int64_t count, double shift = 0) {
  std::vector<T> made(count);
  for (T& value : made) value = T(uniform() + shift);
  return made;
}

template <class T>
Matrix matrix(const std::vector<T>& x, int64_t rows, int64_t dim) {
  return {x.data(), sizeof(T) == 4 ? Element::float32 : Element::float64, rows, dim, dim};
}

// Rows in their metric's form, by the definition.
template <class T>
Numbers formed(const std::vector<T>& x, int64_t rows, int64_t dim, Metric metric) {
  Numbers u(x.begin(), x.end());
  for (int64_t i = 0; i < rows && normalised(metric); ++i) {
    double mean = 0, square = 0;
    for (int64_t k = 0; k < dim; ++k) mean += u[i * dim + k] / double(dim);
    for (int64_t k = 0; k < dim; ++k) {
      double& value = u[i * dim + k];
      if (metric == Metric::correlation) value -= mean;
      square += value * value;
    }
    for (int64_t k = 0; k < dim; ++k) u[i * dim + k] /= std::sqrt(square);
  }
  return u;
}

inline double distance(const double* u, const double* v, int64_t dim, Metric metric) {
  double dot = 0, square = 0, sum = 0;
  for (int64_t k = 0; k < dim; ++k)
    dot += u[k] * v[k], square += (u[k] - v[k]) * (u[k] - v[k]), sum += std::abs(u[k] - v[k]);
  if (metric == Metric::dot) return dot;
  if (normalised(metric)) return 1 - dot;
  if (metric == Metric::manhattan) return sum;
  return metric == Metric::euclidean ? std::sqrt(square) : square;
}

inline double pearson(const Numbers& r, const Numbers& s) {
  double mean_r = 0, mean_s = 0, rs = 0, rr = 0, ss = 0;
  for (size_t k = 0; k < r.size(); ++k) mean_r += r[k] / double(r.size()), mean_s += s[k] / double(r.size());
  for (size_t k = 0; k < r.size(); ++k) {
    const double a = r[k] - mean_r, b = s[k] - mean_s;
    rs += a * b, rr += a * a, ss += b * b;
  }
  return rs / std::sqrt(rr * ss);
}
