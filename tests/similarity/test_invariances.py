"""Invariances of every measure.

What it ignores and what it does not, for either side.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bertft.similarity import CrossMoments, mutual_knn, rbf_cka, rsa

N, D = 90, 5
G = torch.Generator().manual_seed(4)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=G, dtype=torch.float64)


X = normal(N, D) @ normal(D, D) + 1
Y = X @ normal(D, D) + 2 * normal(N, D)
ROTATION = torch.linalg.qr(normal(D, D)).Q
LINEAR, STEP = normal(D, D), normal(D)
MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "rotation": lambda t: t @ ROTATION,
    "scale": lambda t: 3 * t,
    "translation": lambda t: t + 2 * STEP,
    "linear": lambda t: t @ LINEAR,
    "rows": lambda t: t * (1 + torch.arange(N).double()[:, None] / N),  # a positive factor for each stimulus
    "shift": lambda t: t + torch.arange(N).double()[:, None] / 9,  # the same in all dimensions of a stimulus
}


def streamed(name: str, metric: str = "dot", *arguments: object) -> Callable[[Tensor, Tensor], float]:
    return lambda x, y: float(getattr(CrossMoments(1, 1, metric).update(x[None], y[None]), name)(*arguments))


def of_one(name: str, metric: str, side: int) -> Callable[[Tensor, Tensor], float]:
    return lambda x, y: float(getattr(CrossMoments(1, 1, metric).update(x[None], y[None]), name)()[side])


def pairwise(metric: str, compare: str) -> Callable[[Tensor, Tensor], float]:
    return lambda x, y: rsa(x, y, metric, compare).estimate


TURNED = {"rotation", "scale"}
MOVED = TURNED | {"translation"}
MAPPED = MOVED | {"linear"}
OF_METRIC = {
    "cosine": TURNED | {"rows"},
    "dot": TURNED,
    "correlation": {"scale", "rows", "shift"},
    "sqeuclidean": MOVED,
    "euclidean": MOVED,
    "manhattan": {"scale", "translation"},
}
# measure, what it ignores of x, what it ignores of y
MEASURES: dict[str, tuple[Callable[[Tensor, Tensor], float], set[str], set[str]]] = {
    "cka": (streamed("cka"), MOVED, MOVED),
    "cka biased": (streamed("cka", "dot", False), MOVED, MOVED),
    "cca": (streamed("cca"), MAPPED, MAPPED),
    "svcca": (streamed("svcca", "dot", 0.9), MOVED, MOVED),
    "pwcca": (streamed("pwcca"), {"scale", "translation"}, MAPPED),
    "procrustes": (streamed("procrustes"), MOVED, MOVED),
    "shape_distance": (streamed("shape_distance"), MOVED, MOVED),
    "linear_r2": (streamed("linear_r2"), MAPPED, MOVED),
    "effective_dimension of x": (of_one("effective_dimension", "dot", 0), MOVED, set(MAPS)),
    "effective_dimension of y": (of_one("effective_dimension", "dot", 1), set(MAPS), MOVED),
    "anisotropy of x": (of_one("anisotropy", "cosine", 0), OF_METRIC["cosine"], set(MAPS)),
    "anisotropy of y": (of_one("anisotropy", "cosine", 1), set(MAPS), OF_METRIC["cosine"]),
    "knn": (lambda x, y: float(mutual_knn(x, y).mean()), OF_METRIC["cosine"], OF_METRIC["cosine"]),
    "cka_rbf": (lambda x, y: rbf_cka(x, y)[0], MOVED, MOVED),
}
for metric, ignored in OF_METRIC.items():
    for compare in ("pearson", "cosine", "spearman", "rho_a", "kendall"):
        MEASURES[f"rsa {metric} {compare}"] = (pairwise(metric, compare), ignored, ignored)
    if metric not in ("euclidean", "manhattan"):
        MEASURES[f"streamed rsa {metric}"] = (streamed("rsa", metric), ignored, ignored)


@pytest.mark.parametrize("side", ["x", "y"])
@pytest.mark.parametrize("measure", MEASURES)
def test_a_measure_ignores_what_it_states_and_nothing_else(measure, side):
    value, of_x, of_y = MEASURES[measure]
    start = value(X, Y)
    for name, change in MAPS.items():
        changed = value(change(X), Y) if side == "x" else value(X, change(Y))
        if name in (of_x if side == "x" else of_y):
            assert changed == pytest.approx(start, abs=1e-9), name
        else:
            assert abs(changed - start) > 1e-4, name
