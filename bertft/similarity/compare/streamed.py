"""Measures that follow from the sums of a comparison."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from torch import Tensor

from bertft.runs.intervals import Interval, clustered_interval
from bertft.runs.vocabulary import MeasureName
from bertft.similarity import measures
from bertft.similarity.compare.plan import SCATTER, Plan
from bertft.similarity.influence import (
    angle_interval,
    augmented_rows,
    cka_influence,
    entries,
    rsa_influence,
    scatter_influence,
    shape_influence,
)
from bertft.similarity.moments import CrossMoments


class StreamedMeasure(NamedTuple):
    """A measure that follows from the sums of one pair of layers."""

    name: str
    metric: str  # of the sums that it takes
    values: Callable[[CrossMoments], Tensor]
    influence: Callable[[CrossMoments, int, Tensor, Tensor], Tensor]
    interval: Callable[..., Interval] = clustered_interval


def streamed_measures(plan: Plan) -> Iterator[StreamedMeasure]:
    """Yield the measures that follow from sums, in the order of the plan."""
    raw = plan.of_raw_rows if {"cka", *SCATTER} & set(plan.measures) else ""
    for measure in plan.measures:
        if measure == "rsa":
            yield from (_rsa(metric, compare) for metric, compare in plan.streamed)
        elif measure == "cka":
            values = operator.methodcaller("cka", debiased=True)
            yield StreamedMeasure("cka_debiased", raw, values, partial(_influence, cka_influence))
        elif measure == "shape_distance":
            influence = partial(_influence, shape_influence)
            yield StreamedMeasure(measure, raw, operator.methodcaller(measure), influence, angle_interval)
        elif measure in SCATTER:
            biased = measure == "cka_biased"
            values = operator.methodcaller("cka", debiased=False) if biased else operator.methodcaller(measure)
            yield StreamedMeasure(measure, raw, values, partial(_of_scatter, measure))


def _rsa(metric: str, compare: str) -> StreamedMeasure:
    def influence(m: CrossMoments, k: int, x: Tensor, y: Tensor) -> Tensor:
        form = entries(m, k) if compare == "cosine" else None
        return rsa_influence(m.moments(k, k), *augmented_rows(m, k, x, y), form)

    return StreamedMeasure(str(MeasureName.rsa(metric, compare)), metric, lambda m: m.rsa(compare), influence)


def _influence(function: Callable[..., Tensor], m: CrossMoments, k: int, x: Tensor, y: Tensor) -> Tensor:
    return function(m.moments(k, k), *augmented_rows(m, k, x, y))


def _of_scatter(measure: str, m: CrossMoments, k: int, x: Tensor, y: Tensor) -> Tensor:
    function = getattr(measures, measure)
    settings = {} if measure in ("procrustes", "cka_biased") else {"noise": m.noise}
    return _influence(partial(scatter_influence, partial(function, **settings)), m, k, x, y)


def task_of(measure: str) -> str:
    """Return ``rsa`` for RSA and CKA, which the report draws; other measures appear in the table only."""
    return "rsa" if MeasureName.parse(measure).measure.family in ("RSA", "CKA") else "similarity"
