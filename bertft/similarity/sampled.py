"""What needs every pair of stimuli, on the sampled ones: tiles instead of matrices, and the time said beforehand."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from torch import Tensor

from bertft.errors import BertftError
from bertft.progress import SILENT, Progress
from bertft.results import Row
from bertft.similarity import neighbours, pairwise

if TYPE_CHECKING:
    from bertft.similarity.comparison import Plan

RESAMPLES = 1000
TRIAL = 400  # stimuli on which the time is measured beforehand
WORTH_SAYING = 5.0  # seconds

Estimate = tuple[float, float | None, float | None]
Work = Callable[[Tensor, Tensor, Tensor], Estimate]


def rows(
    name: str,
    data: str,
    plan: Plan,
    groups: Tensor,
    x: Tensor,
    y: Tensor,
    *,
    progress: Progress = SILENT,
) -> list[Row]:
    """The pairwise measures of ``plan`` between x (L, R, D) and y (L, R, E), whose sentences are ``groups`` (R,).

    Intervals are 95 % percentiles over resampled sentences. A row's ``n`` is R.
    """
    n, found = x.shape[1], []
    for measure, work in _measures(plan):
        expected = _forecast(work, groups, x, y)
        if expected >= WORTH_SAYING:
            progress.say(f"{measure} of {name}: {n} sampled stimuli, about {expected:.0f} s expected")
        with progress.step(f"{measure} of {name}", total=len(x), unit="layers") as step:
            for layer, (a, b) in enumerate(zip(x, y, strict=True)):
                value, low, high = work(a, b, groups)
                if not math.isfinite(value):
                    raise BertftError(f"{measure} of {name} at layer {layer} on {data}: all dissimilarities are equal")
                task = "similarity" if measure.startswith("mutual") else "rsa"
                found.append(Row(name, task, data, layer, measure, value, low, high, n, plan.seed))
                step.advance()
    return found


def _measures(plan: Plan) -> Iterator[tuple[str, Work]]:
    resamples = RESAMPLES if plan.intervals else 0
    for metric, compare in plan.pairwise:

        def rsa(a: Tensor, b: Tensor, groups: Tensor, metric: str = metric, compare: str = compare) -> Estimate:
            found = pairwise.rsa(a, b, metric, compare, groups=groups, bootstrap=resamples, seed=plan.seed)
            return found.estimate, found.low, found.high

        yield f"rsa_{metric}_{compare}", rsa
    for measure in plan.measures:
        if measure == "mutual_knn":
            yield f"mutual_knn_{neighbours.K}", lambda a, b, g: neighbours.knn_interval(a, b, g, plan.intervals)
        elif measure == "cka_rbf":
            yield "cka_rbf", lambda a, b, g: neighbours.rbf_cka(a, b, g if plan.intervals else None)


def _forecast(work: Work, groups: Tensor, x: Tensor, y: Tensor) -> float:
    """Seconds for all layers: those of the first stimuli of one layer, times the number of pairs; 0 for few stimuli."""
    n = x.shape[1]
    if n <= 2 * TRIAL or len(set(groups[:TRIAL].tolist())) < 2:
        return 0.0
    cut = TRIAL
    begun = time.monotonic()
    work(x[0, :cut], y[0, :cut], groups[:cut])
    return (time.monotonic() - begun) * (n / cut) ** 2 * len(x)
