"""Names and definitions of dissimilarities between rows.

==============  ==========================================================  =====================================
metric          entry d(x, y)                                               as ``scale * (u.v + p_x + p_y) + offset``
==============  ==========================================================  =====================================
``dot``         ``x.y``: the plain inner product, a *similarity*            scale 1, offset ``|m|^2``
``cosine``      ``1 - x.y / (|x| |y|)``                                     scale -1, offset ``1 - |m|^2``
``correlation`` ``1 -`` Pearson's r: cosine of the row-centred vectors      scale -1, offset ``1 - |m|^2``
``sqeuclidean`` ``|x - y|^2``: squared, not divided by the number of dims   scale -2, offset 0
``euclidean``   ``|x - y|``: with the root                                  has no such form
``manhattan``   ``sum_k |x_k - y_k|``                                       has no such form
==============  ==========================================================  =====================================

The right column is the linear form of `bertft.ops.moments.cross_moments`, with any provisional mean m. Pearson and rank
correlations ignore the offset, a positive scale, and the sign of the scale if both sides use the same metric. A ``dot``
matrix keeps its sign beside a ``cosine`` one, so the two matrices of a space are negatively correlated.
"""

from __future__ import annotations

from bertft.errors import BertftError

METRICS = (
    "dot",
    "cosine",
    "correlation",
    "sqeuclidean",
    "euclidean",
    "manhattan",
)  # the index is the kernels' code: csrc/metric_codes.h
LINEAR = ("dot", "cosine", "correlation", "sqeuclidean")  # have a linear form
NORMALISED = ("cosine", "correlation")  # undefined for a row of norm 0
SCALE = {"dot": 1.0, "cosine": -1.0, "correlation": -1.0, "sqeuclidean": -2.0}
COMPARISONS = (
    "pearson",
    "cosine",
    "spearman",
    "rho_a",
    "kendall",
)  # of two matrices; the index is the GPU kernels' code
RANKS = ("spearman", "rho_a")  # of the entries' ranks


def check_metric(metric: str, allowed: tuple[str, ...] = METRICS, *, op: str) -> str:
    """Return ``metric``; raise BertftError if it is not one of ``allowed``."""
    if metric not in allowed:
        raise BertftError(f"{op}: metric must be one of {', '.join(allowed)}, not {metric!r}")
    return metric
