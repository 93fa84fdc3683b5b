"""Comparison of all layers' dissimilarity matrices (RSA)."""

from __future__ import annotations

import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.ops.metrics import COMPARISONS, LINEAR, METRICS, check_metric
from bertft.ops.native import cpu
from bertft.ops.precision import check_precision
from bertft.ops.rdm.routes import ROUTES, Route, choose_route, run_route
from bertft.ops.rows import check_matrix, check_nan, check_width


def rdm_correlation(
    x: Tensor,
    y: Tensor | None = None,
    *,
    metric: str = "cosine",
    compare: str = "pearson",
    metric_y: str | None = None,
    float64: bool = False,
    route: str = "auto",
    samples: int = 100_000,
    seed: int = 0,
    nan: str = "raise",
    return_route: bool = False,
    precision: str = "float32",
) -> Tensor | tuple[Tensor, Route]:
    """Return ``out[l, m]``, a comparison of the upper triangles (i < j) of the matrices of x[l] and y[m].

    Args:
        x: (L, N, D) float64, float32, bfloat16 or float16; any strides.
        y: (M, N, E), other vectors of the same N stimuli. None compares the layers of x with one another.
        metric: definition of an entry, as in `pairwise_distance`.
        compare: ``pearson``; ``cosine`` (no centring, so that shifts count); ``spearman`` (average ranks of ties);
            ``rho_a`` (Schuett et al. 2023: the expected Spearman under random breaks of ties); ``kendall`` (tau-b).
        metric_y: metric of y, by default ``metric``.
        float64: the same as ``precision="float64"``, as for float64 input.
        route: ``auto`` takes the cheapest of the routes below (`bertft.ops.rdm.routes`).
        samples: pairs of stimuli that the route ``sampled`` draws.
        seed: of that draw.
        nan: raise `BadRow` for rows that are not finite or have norm 0 under cosine or correlation, or propagate NaN.
        return_route: return (out, `Route`), which reports the route, the reason, the precision and the error.
        precision: ``float32``, ``fast`` or ``float64`` (`bertft.ops.precision`). Errors: float32 1e-7 (linear 1e-6);
            fast 3e-3 / N (linear 5e-4 / sqrt N), which the route states, where tensor cores serve it; float64 1e-11.

    Returns:
        (L, M) float64; NaN where a matrix is constant or N < 2. Symmetric without y. If x or y requires a gradient,
        only the linear route is possible; the gradient costs n d^2 too.
    """
    check_metric(metric, op="rdm_correlation")
    metric_y = check_metric(metric_y or metric, op="rdm_correlation (metric_y)")
    for name, value, allowed in (("compare", compare, COMPARISONS), ("route", route, ("auto", *ROUTES))):
        if value not in allowed:
            raise BertftError(f"rdm_correlation: {name} must be one of {', '.join(allowed)}, not {value!r}")
    check = check_nan(nan, op="rdm_correlation")
    precision = check_precision(precision, op="rdm_correlation", float64=float64)
    _check_shapes(x, y, (metric, metric_y))
    chosen = choose_route(x, y, (metric, metric_y), compare, route, precision)
    out, chosen = run_route(chosen, x, y, (metric, metric_y), compare, check=check, samples=samples, seed=seed)
    return (out, chosen) if return_route else out


def _check_shapes(x: Tensor, y: Tensor | None, metrics: tuple[str, str]) -> None:
    if y is None and metrics[0] != metrics[1]:
        raise BertftError("rdm_correlation: metric_y needs y")
    check_matrix(x, "(L, N, D)", (3,), op="rdm_correlation", name="x")
    check_width(x, metrics[0], op="rdm_correlation", name="x")
    if y is not None:
        check_matrix(y, "(M, N, E)", (3,), op="rdm_correlation", name="y")
        check_width(y, metrics[1], op="rdm_correlation", name="y")
        if y.shape[1] != x.shape[1] or y.device != x.device:
            raise BertftError(
                "rdm_correlation: x and y must hold the same stimuli on one device, "
                f"found {x.shape[1]} on {x.device} and {y.shape[1]} on {y.device}"
            )


def _register() -> None:
    """Register the shape rule; tiles have no gradient."""

    def fake(x, y, metric_x, metric_y, ranks, float64, check):
        layers = x.shape[0] + (0 if y is None else y.shape[0])
        return tuple(x.new_empty(s, dtype=torch.float64) for s in ((layers,), (layers, layers), (layers,), (layers,)))

    torch.library.register_fake("bertft::rdm_moments", fake)


cpu.on_load(_register)

__all__ = ["LINEAR", "METRICS", "Route", "rdm_correlation"]
