"""Similarity of all layers of two models: correlation of their dissimilarity matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.ops import extension, reference
from bertft.ops.cross_moments import Moments, cross_moments, provisional_mean
from bertft.ops.metrics import LINEAR, METRICS, check_metric
from bertft.ops.moment_formulas import rsa_from_moments
from bertft.ops.pairwise_distance import pairwise_distance
from bertft.ops.rows import check_matrix, check_nan, with_sentence

COMPARISONS = ("pearson", "cosine", "spearman", "rho_a", "kendall")


def rdm_correlation(
    x: Tensor,
    y: Tensor | None = None,
    *,
    metric: str = "cosine",
    compare: str = "pearson",
    metric_y: str | None = None,
    float64: bool = False,
    nan: str = "raise",
) -> Tensor:
    """``out[l, m]`` = comparison of the upper triangles (i < j) of the matrices of x[k] and y[m]: RSA.

    Args:
        x: (L, N, D) float64, float32, bfloat16 or float16.
        y: (M, N, E), other vectors of the same N stimuli; None compares the layers of x with one another.
        metric: an entry of a matrix, as in `pairwise_distance`; ``metric_y`` for y if it differs.
        compare: pearson, cosine, spearman, rho_a or kendall (tau-b).
        float64: compute in float64 throughout; float64 input always does.
        nan: raise for rows that are not finite or have norm 0 under cosine or correlation, or propagate NaN.

    Returns:
        (L, M) float64; NaN where a matrix is constant. Without y symmetric, with ones on the diagonal.
    """
    check_metric(metric, op="rdm_correlation")
    metric_y = check_metric(metric_y or metric, op="rdm_correlation (metric_y)")
    if compare not in COMPARISONS:
        raise BertftError(f"rdm_correlation: compare must be one of {', '.join(COMPARISONS)}, not {compare!r}")
    check_nan(nan, op="rdm_correlation")
    check_matrix(x, "(L, N, D)", (3,), op="rdm_correlation", name="x")
    if y is not None:
        check_matrix(y, "(M, N, E)", (3,), op="rdm_correlation", name="y")
        if y.shape[1] != x.shape[1]:
            raise BertftError(
                f"rdm_correlation: x and y must hold the same stimuli, found {x.shape[1]} and {y.shape[1]} rows"
            )
    if _by_tiles(x, y, metric, metric_y, compare):
        return _tiles(x, y, metric, metric_y, compare, float64, nan)
    if compare in ("pearson", "cosine") and metric in LINEAR and metric_y in LINEAR:
        return _linear(x, y, metric, metric_y, compare, float64, nan)
    return _matrices(x, y, metric, metric_y, compare, float64, nan)


def _by_tiles(x: Tensor, y: Tensor | None, metric: str, metric_y: str, compare: str) -> bool:
    """On a GPU: whether tiles of pairs cost less than the other ways.

    Tiles take (L + M) N^2 D / 2 products for all layers against all, sums over stimuli (L M + L + M) N D^2. Ranks of
    few stimuli are exact the other way, and their matrices small.
    """
    if x.device.type != "cuda" or compare == "kendall" or not extension.serves(x):
        return False
    L, N, D = x.shape
    M = L if y is None else len(y)
    if compare in ("spearman", "rho_a"):
        return N > 1000
    if metric not in LINEAR or metric_y not in LINEAR:
        return True
    return N * (L if y is None else L + M) < 2 * D * (L * M + L + M)


def _tiles(x: Tensor, y: Tensor | None, metric: str, metric_y: str, compare: str, float64: bool, nan: str) -> Tensor:
    """All layers of both sides in one pass over tiles of pairs (csrc/cuda/rdm_correlation.cu), no matrix in memory."""
    types = {x.dtype, x.dtype if y is None else y.dtype}
    if float64 or len(types) > 1:
        common = torch.float64 if float64 or torch.float64 in types else torch.float32
        x, y = x.to(common), None if y is None else y.to(common)
    path = 1 if torch.cuda.get_device_capability(x.device) >= (8, 0) else 0  # three-term tf32: float32 accuracy
    codes = METRICS.index(metric), METRICS.index(metric_y), COMPARISONS.index(compare), path
    return with_sentence(lambda: torch.ops.bertft.rdm_tiles(x, y, *codes, nan == "raise"))


def _linear(x: Tensor, y: Tensor | None, metric: str, metric_y: str, compare: str, float64: bool, nan: str) -> Tensor:
    """Layer by layer through the sums of `cross_moments`: n d^2 work and d^2 memory for a pair."""
    means = [provisional_mean(layer, metric) for layer in x]
    options = {"float64": float64, "nan": nan}
    of_x = [_space(x, k, means[k], metric, options, "x") for k in range(len(x))]
    if y is None:
        other, means_y, of_y = x, means, of_x
    else:
        other, means_y = y, [provisional_mean(layer, metric_y) for layer in y]
        of_y = [_space(y, m, means_y[m], metric_y, options, "y") for m in range(len(y))]
    rows = []
    for k in range(len(x)):
        row = []
        for m in range(len(other)):
            if y is None and m < k:
                row.append(rows[m][k])
                continue
            if y is None and m == k:
                pair = Moments(*of_x[k][:2], None, None, None, None)
                cross = (
                    pair.gram_x,
                    torch.cat([pair.x.pu, pair.x.au] * 2 + [torch.stack([pair.x.aa, pair.x.pp, pair.x.ap, pair.x.ap])]),
                )
            else:
                cross = cross_moments(
                    x[k],
                    other[m],
                    mean_x=means[k],
                    mean_y=means_y[m],
                    metric=metric,
                    metric_y=metric_y,
                    grams=False,
                    **options,
                )[2:4]
            moments = Moments(*of_x[k][:2], *cross, *of_y[m][:2])
            row.append(
                rsa_from_moments(
                    moments, metric=metric, metric_y=metric_y, compare=compare, mean_x=means[k], mean_y=means_y[m]
                )
            )
        rows.append(row)
    if not rows or not rows[0]:
        return x.new_zeros(len(x), len(other), dtype=torch.float64)
    return torch.stack([torch.stack(row) for row in rows])


def _space(x: Tensor, k: int, mean: Tensor, metric: str, options: dict, name: str) -> Moments:
    call = lambda: cross_moments(x[k], mean_x=mean, metric=metric, **options)
    return with_sentence(call, op="rdm_correlation", x=f"{name} in layer {k}")


def _matrices(x: Tensor, y: Tensor | None, metric: str, metric_y: str, compare: str, float64: bool, nan: str) -> Tensor:
    def condensed(x: Tensor, metric: str) -> Tensor:
        return pairwise_distance(x.double() if float64 else x, metric=metric, condensed=True, nan=nan)

    a = condensed(x, metric)
    b = a if y is None else condensed(y, metric_y)
    out = torch.zeros(len(a), len(b), dtype=torch.float64)
    for k in range(len(a)):
        for m in range(len(b)):
            out[k, m] = reference.compare_matrices(a[k], b[m], compare)
    return out
