// Codes of the metrics, the same in Python, in the bindings and in the kernels.
#pragma once

namespace bertft {

enum class Metric : int { dot, cosine, correlation, sqeuclidean, euclidean, manhattan };  // order of ops/metrics.py

constexpr bool normalised(Metric metric) { return metric == Metric::cosine || metric == Metric::correlation; }

}  // namespace bertft
