"""Measures of one pair of layers while the stimuli of one side change places.

What a space has of its own does not change with the order of its stimuli, so it is computed once: sums, whiteners,
RDMs, kernels and neighbours. An order then costs n D E products for the measures of each metric's sums, and n^2
operations for each measure over pairs. RSA and debiased CKA also give the influence of each stimulus.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bertft.ops import reference
from bertft.ops.moments.formulas import cka_from_moments, rsa_from_moments, self_pair
from bertft.ops.moments.layout import Moments
from bertft.runs.vocabulary import MeasureName
from bertft.similarity import measures, neighbours
from bertft.similarity import pairwise_rsa as pairwise
from bertft.similarity.augmented_rows import LINEAR, RDM, augmented
from bertft.similarity.compare.plan import PAIRS, SCATTER, Plan
from bertft.similarity.influence import cka_influence, entries_about, rsa_influence
from bertft.similarity.null_influence import (
    cka_null_influence,
    matrix_influence,
    matrix_null_influence,
    rsa_null_influence,
    without_pairs_of_a_text,
)
from bertft.similarity.traded_texts import TradedTexts

Influences = Callable[[TradedTexts], tuple[Tensor, Tensor]]
Shifts = Callable[[TradedTexts], tuple[float, float]]


@dataclass(frozen=True)
class Value:
    """A measure of an order (n,): stimulus i of x stands beside stimulus ``order[i]`` of y.

    ``influences`` gives those of the stimuli (n,) on the measure in their places, and on its mean while texts trade. It
    is None for measures whose expectation depends on the number of stimuli. ``shifts`` are the changes of both if no
    pair of stimuli is of one text; None for a measure that is taken on the sample alone.
    """

    of: Callable[[Tensor], float]
    influences: Influences | None = None
    shifts: Shifts | None = None

    def __call__(self, order: Tensor) -> float:
        """Return the measure."""
        return self.of(order)


class _Side(NamedTuple):
    """One space's prepared rows about their mean, and their sums."""

    u: Tensor  # (n, D)
    p: Tensor  # (n,) float64
    a: Tensor  # (n,) float64
    mean: Tensor  # (D,) float64
    own: Moments  # of the space with itself

    @property
    def rows(self) -> Tensor:
        """The augmented rows (n, D+3)."""
        return augmented(self.u, self.a, self.p)


class LinearPair:
    """Moments of x (n, D) and y (n, E) under one metric, for any order of y.

    Products are taken in float64 if ``float64``, else in float32, whose error of 1e-6 is far below a null's spread.
    """

    def __init__(self, x: Tensor, y: Tensor, metric: str, *, float64: bool) -> None:
        dtype = torch.float64 if float64 or torch.float64 in (x.dtype, y.dtype) else torch.float32
        self.metric = metric
        self.x, self.y = (_side(t, metric, dtype) for t in (x, y))
        self._last: tuple[Tensor, Moments] | None = None

    def at(self, order: Tensor) -> Moments:
        """Return the moments with stimulus i of x beside stimulus ``order[i]`` of y, once for all measures."""
        if self._last is None or self._last[0] is not order:
            self._last = order, self._moments(order)
        return self._last[1]

    def _moments(self, order: Tensor) -> Moments:
        x, y = self.x, self.y
        v, q, b = y.u[order], y.p[order], y.a[order]
        of_x = torch.stack([q, b]).to(x.u.dtype) @ x.u
        of_y = torch.stack([x.p, x.a]).to(v.dtype) @ v
        rest = torch.stack([x.a @ b, x.p @ q, q @ x.a, x.p @ b])
        stats = torch.cat([of_x.double().flatten(), of_y.double().flatten(), rest])
        return Moments(x.own.gram_x, x.own.stats_x, (x.u.mT @ v).double(), stats, y.own.gram_x, y.own.stats_x)

    @cached_property
    def rows(self) -> tuple[Moments, Tensor, Tensor]:
        """The moments of the stimuli in their places, and the augmented rows of both spaces."""
        return self.at(torch.arange(len(self.x.u))), self.x.rows, self.y.rows

    @property
    def spaces(self) -> tuple[Tensor, Tensor]:
        """The centred scatter matrices of x (D, D) and of y (E, E)."""
        return measures.scatter(self.x.own)[0], measures.scatter(self.y.own)[0]


def _side(x: Tensor, metric: str, dtype: torch.dtype) -> _Side:
    rows = reference.metric_rows(x.double(), metric)
    mean = rows.mean(0)
    u, p = reference.prepared_rows(x, mean, metric)
    a = (u * u).sum(1)
    stats = torch.stack([torch.tensor(float(len(u)), dtype=torch.float64), a.sum(), p.sum(), a @ a, a @ p, p @ p])
    own = self_pair(u.mT @ u, torch.cat([u.sum(0), p @ u, a @ u, stats]))
    return _Side(u.to(dtype), p, a, mean, own)


def values(plan: Plan, x: Tensor, y: Tensor, noise: float) -> Iterator[tuple[str, Value]]:
    """Yield the measures of ``plan`` that compare two spaces x (n, D) and y (n, E), but for kendall.

    ``noise`` is the share of variance below which directions are left out (`bertft.similarity.measures`).
    """
    pairs = {metric: LinearPair(x, y, metric, float64=plan.in_float64(metric)) for metric in plan.preparations}
    raw = pairs.get(plan.of_raw_rows) if {"cka", *SCATTER} & set(plan.measures) else None
    for measure in plan.measures:
        if measure == "rsa":
            yield from ((str(MeasureName.rsa(*kind)), _rsa(pairs[kind[0]], kind[1])) for kind in plan.streamed)
            yield from (
                (str(MeasureName.rsa(*kind)), _over_rdms(x, y, *kind)) for kind in plan.pairwise if kind[1] != "kendall"
            )
        elif measure == "cka" and raw is not None:
            yield "cka_debiased", _debiased(raw)
        elif measure in SCATTER and raw is not None:
            yield measure, Value(_of_scatter(raw, measure, noise))
        elif measure in PAIRS:
            yield _OVER_PAIRS[measure](x, y)


def _rsa(pair: LinearPair, compare: str) -> Value:
    settings: dict[str, Any] = {"metric": pair.metric, "compare": compare, "mean_x": pair.x.mean, "mean_y": pair.y.mean}
    form = entries_about((pair.metric, pair.metric), (pair.x.mean, pair.y.mean)) if compare == "cosine" else None

    def influences(texts: TradedTexts) -> tuple[Tensor, Tensor]:
        return rsa_influence(*pair.rows, form), rsa_null_influence(*pair.rows, texts, form)

    shifts = lambda texts: without_pairs_of_a_text(*pair.rows, texts, RDM, form)
    return Value(lambda order: float(rsa_from_moments(pair.at(order), **settings).clamp(-1, 1)), influences, shifts)


def _debiased(pair: LinearPair) -> Value:
    influences = lambda texts: (cka_influence(*pair.rows), cka_null_influence(*pair.rows, texts))
    shifts = lambda texts: without_pairs_of_a_text(*pair.rows, texts, LINEAR)
    return Value(lambda order: float(cka_from_moments(pair.at(order), debiased=True)), influences, shifts)


def _of_scatter(pair: LinearPair, measure: str, noise: float) -> Callable[[Tensor], float]:
    """Return a measure of scatter matrices; those of each space, and their whiteners, are computed once."""
    xx, yy = pair.spaces
    cross = lambda order: measures.scatter(pair.at(order))[2]
    if measure in ("procrustes", "shape_distance"):
        scale = (xx.trace() * yy.trace()).sqrt()
        cosine = lambda order: (_nuclear(cross(order)) / scale).clamp(max=1.0)
        return lambda order: float(cosine(order) if measure == "procrustes" else cosine(order).arccos())
    if measure == "cka_biased":
        size = (xx.square().sum() * yy.square().sum()).sqrt()
        return lambda order: float(cross(order).square().sum() / size)
    variance = 0.99 if measure == "svcca" else None
    left = measures.whitener(xx, noise, variance)
    if measure == "linear_r2":
        return lambda order: float((left.mT @ cross(order)).square().sum() / yy.trace())
    right = measures.whitener(yy, noise, variance)
    if measure == "pwcca":
        correlations = partial(measures.correlations_of, left, right)
        return lambda order: float(measures.weighted_correlation(*correlations(cross(order)), xx))
    rank = min(left.shape[1], right.shape[1])
    return lambda order: float((_singular(left.mT @ cross(order) @ right)[-rank:]).clamp(max=1.0).mean())


def _singular(matrix: Tensor) -> Tensor:
    """Return singular values, smallest first, by the eigenvalues of a product: five times as fast as by SVD.

    Those near 0 are off by 1e-8 of the largest, which a null's spread hides.
    """
    small = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.mT
    return torch.linalg.eigvalsh(small.mT @ small).clamp(min=0).sqrt()


def _nuclear(matrix: Tensor) -> Tensor:
    return _singular(matrix).sum()


def _over_rdms(x: Tensor, y: Tensor, metric: str, compare: str) -> Value:
    """Return RSA over all pairs: only sum K L changes with the order (`bertft.similarity.pairwise_rsa`)."""
    a, b = (torch.from_numpy(pairwise.matrix(t, metric, compare)).float() for t in (x, y))
    pairs = len(a) * (len(a) - 1) / 2
    if compare == "rho_a":
        size = (pairs**3 - pairs) / 6  # twice the variance of ranks without ties, as every pair appears twice
    else:
        size = float(a.double().square().sum().sqrt() * b.double().square().sum().sqrt())
    influences = lambda texts: (matrix_influence(a, b, size), matrix_null_influence(a, b, size, texts))
    return Value(partial(_product, a, b, size), influences)


def _product(a: Tensor, b: Tensor, size: float, order: Tensor) -> float:
    """Return sum_ij a_ij b_(order i)(order j) / size."""
    shuffled = b.index_select(0, order).index_select(1, order)
    return float(torch.linalg.vecdot(a, shuffled).double().sum()) / size


def _rbf(x: Tensor, y: Tensor) -> tuple[str, Value]:
    a, b = (neighbours.gaussian_kernel(t) for t in (x, y))
    size = float((a.square().sum() * b.square().sum()).sqrt())
    return "cka_rbf", Value(partial(_product, a.float(), b.float(), size))


def _knn(x: Tensor, y: Tensor) -> tuple[str, Value]:
    k = min(neighbours.K, len(x) - 1)
    a, b = neighbours.nearest(x, k), neighbours.nearest(y, k)

    def value(order: Tensor) -> float:
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order))  # where each stimulus of y stands now
        return float((a.unsqueeze(2) == place[b[order]].unsqueeze(1)).any(2).double().mean())

    return str(MeasureName.neighbours(neighbours.K)), Value(value)


_OVER_PAIRS = {"mutual_knn": _knn, "cka_rbf": _rbf}
