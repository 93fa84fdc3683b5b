"""What needs every pair of stimuli, on the sampled ones: tiles instead of matrices, and the time said beforehand."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.ops import reference
from bertft.ops.rdm.routes import Route
from bertft.runs.progress import SILENT, Progress
from bertft.runs.rows import Row
from bertft.similarity import neighbours
from bertft.similarity import pairwise_rsa as pairwise
from bertft.similarity.influence import clustered_difference, clustered_interval

if TYPE_CHECKING:
    from bertft.similarity.compare.comparison import Plan

RESAMPLES = 1000
TRIAL = 400  # stimuli on which the time is measured beforehand, in sentences of 16
DRAWN = 1_000_000  # pairs from which, of more than EXACT stimuli, a space's ranks, mean or kernel width are known
WORTH_SAYING = 5.0  # seconds


class Found(NamedTuple):
    """A measure of one layer.

    ``spread`` is what the difference of two encoders is estimated from: the bootstrap's values (B,), of the same
    resamples for all encoders, or the stimuli's influences (R,); None without intervals.
    """

    value: float
    low: float | None = None
    high: float | None = None
    spread: Tensor | np.ndarray | None = None
    route: Route | None = None


class Kind(NamedTuple):
    """A measure: its name, the analysis it belongs to, its work on x (R, D), y (R, E), groups (R,), and its cost.

    Seconds are proportional to ``growth`` (R), beside pairs of stimuli that are ``drawn`` (R) in both spaces.
    """

    measure: str
    task: str
    work: Callable[[Tensor, Tensor, Tensor], Found]
    growth: Callable[[int], float] = lambda n: float(n) * n
    drawn: Callable[[int], int] = lambda n: 0


def rows(
    data: str,
    plan: Plan,
    groups: Tensor,
    base: Tensor,
    tuned: Mapping[str, Tensor],
    *,
    progress: Progress = SILENT,
) -> list[Row]:
    """The pairwise measures of ``plan`` between the base (L, R, D) and each tuned encoder (M, R, E), layer by layer.

    ``groups`` (R,) are the stimuli's sentences. Intervals are clustered by sentence: 95 % percentiles over resampled
    sentences for RSA, influences for the others; then follow the differences of each two tuned encoders over the same
    resamples or sentences. A row's ``n`` is R. Where pairs were drawn (kendall) or ranks binned, ``<measure>_error``
    says by how much that moves the value (kendall: a standard error), with the number of pairs as its ``n``. Where no
    two sentences have one size nothing can be permuted, which ``progress`` is told.
    """
    found: dict[tuple[str, str, int], Found] = {}
    table: list[Row] = []
    n, sizes = base.shape[1], torch.bincount(groups)
    if plan.tested and len(sizes.unique()) == len(sizes):
        plan = dataclasses.replace(plan, permutations=0)
        progress.say(f"{data}: no permutation test, each of the {len(sizes)} sampled texts has a size of its own")
    for (name, space), kind in itertools.product(tuned.items(), kinds(plan)):
        errors: list[Row] = []
        with progress.step(f"{kind.measure} of {name}", total=min(len(base), len(space)), unit="layers") as step:
            for layer, (a, b) in enumerate(zip(base, space, strict=False)):
                one = found[name, kind.measure, layer] = kind.work(a, b, groups)
                if not math.isfinite(one.value):
                    where = f"{kind.measure} of {name} at layer {layer} on {data}"
                    raise BertftError(f"{where}: all dissimilarities are equal")
                head = (name, kind.task, data, layer, kind.measure)
                table.append(Row(*head, one.value, one.low, one.high, n, plan.seed))
                if one.route is not None and one.route.error:
                    pairs = one.route.pairs or n * (n - 1) // 2
                    measure = f"{kind.measure}_error"
                    errors.append(
                        Row(name, "precision", data, layer, measure, one.route.error, n=pairs, seed=plan.seed)
                    )
                step.advance()
        if errors:
            worst, pairs = max(row.value for row in errors), errors[0].n
            how = "drawn" if pairs != n * (n - 1) // 2 else "with ranks in bins"
            progress.say(f"{kind.measure} of {name}: {pairs:,} pairs {how}, which moves it by about {worst:.1g}")
        table += errors
    return table + list(_differences(data, plan, groups, found, list(tuned)))


def _differences(
    data: str, plan: Plan, groups: Tensor, found: Mapping[tuple[str, str, int], Found], tuned: Sequence[str]
) -> Iterator[Row]:
    """First minus second of each two tuned encoders, measure by measure, with the paired interval."""
    size = {"stimuli": len(groups), "sentences": int(groups.max()) + 1}
    for first, second in itertools.combinations(tuned, 2):
        for (name, measure, layer), a in found.items():
            b = found.get((second, measure, layer))
            if name != first or b is None or a.spread is None or b.spread is None:
                continue
            if isinstance(a.spread, Tensor) and isinstance(b.spread, Tensor):
                _, low, high, _ = clustered_difference(a.value, b.value, (a.spread, b.spread), groups, **size)
            else:
                low, high = np.nanpercentile(np.asarray(a.spread) - np.asarray(b.spread), [2.5, 97.5]).tolist()
            head = (f"{first} - {second}", "difference", data, layer, measure)
            yield Row(*head, a.value - b.value, low, high, len(groups), plan.seed)


def kinds(plan: Plan) -> Iterator[Kind]:
    """The measures over pairs that ``plan`` asks for."""
    resamples = RESAMPLES if plan.intervals else 0

    def rsa(a: Tensor, b: Tensor, groups: Tensor, metric: str, compare: str, **wanted: int) -> pairwise.Rsa:
        return pairwise.rsa(a, b, metric, compare, groups=groups, seed=plan.seed, **wanted)

    def estimated(metric: str, compare: str) -> Kind:
        def work(a: Tensor, b: Tensor, groups: Tensor) -> Found:
            one = rsa(a, b, groups, metric, compare, bootstrap=resamples)
            return Found(one.estimate, one.low, one.high, one.resamples, one.route)

        name = f"rsa_{metric}_{compare}"
        if compare == "kendall":  # as many pairs are drawn and sorted however many stimuli there are
            return Kind(name, "rsa", work, growth=lambda n: 1.0)
        of_ranks = bool(resamples) and compare != "cosine"
        return Kind(name, "rsa", work, drawn=lambda n: DRAWN if of_ranks and n > pairwise.EXACT else 0)

    def tested(metric: str, compare: str) -> Kind:
        def work(a: Tensor, b: Tensor, groups: Tensor) -> Found:
            p_value = rsa(a, b, groups, metric, compare, permutations=plan.permutations).p_value
            return Found(math.nan if p_value is None else p_value)

        name = f"rsa_{metric}_{compare}_p"
        return Kind(name, "permutation", work, growth=lambda n: float(n) * n * plan.permutations)

    def knn(a: Tensor, b: Tensor, groups: Tensor) -> Found:
        shares = neighbours.mutual_knn(a, b, min(neighbours.K, len(a) - 1))
        value = float(shares.mean())
        return influenced(value, shares - value if plan.intervals else None, groups)

    def rbf(a: Tensor, b: Tensor, groups: Tensor) -> Found:
        return influenced(*neighbours.rbf_alignment(a, b, influences=plan.intervals), groups)

    def influenced(value: float, influence: Tensor | None, groups: Tensor) -> Found:
        if influence is None:
            return Found(value)
        size: Any = {"stimuli": len(groups), "sentences": int(groups.max()) + 1}
        _, low, high, _ = clustered_interval(value, influence, groups, **size)
        return Found(value, low, high, influence)

    yield from (estimated(*kind) for kind in plan.pairwise)
    yield from (tested(*kind) for kind in plan.tested)
    for measure in plan.measures:
        if measure == "mutual_knn":
            yield Kind(f"mutual_knn_{neighbours.K}", "similarity", knn)
        elif measure == "cka_rbf":
            yield Kind("cka_rbf", "rsa", rbf, drawn=lambda n: DRAWN if n > 1000 else 0)


def forecast(plan: Plan, stimuli: int, encoders: Sequence[tuple[int, tuple[int, int]]]) -> dict[str, float]:
    """Seconds that each pairwise measure of ``plan`` will take over ``stimuli`` sampled stimuli, for all encoders.

    ``encoders`` are the tuned ones: layers compared, and the widths D of the base and E of their own. Taken from a
    trial on random vectors and from how each kind's work grows; 0 for hardly more stimuli than the trial's.
    """
    seconds = dict.fromkeys((kind.measure for kind in kinds(plan)), 0.0)
    if stimuli <= 2 * TRIAL:
        return seconds
    cheap = dataclasses.replace(plan, permutations=min(plan.permutations, 100))
    groups, generator = torch.arange(TRIAL) // 16, torch.Generator().manual_seed(0)
    for d, e in dict.fromkeys(widths for _, widths in encoders):
        layers = sum(count for count, widths in encoders if widths == (d, e))
        x, y = (torch.randn(TRIAL, width, generator=generator) for width in (d, e))
        i, j = torch.randint(0, TRIAL, (2, 20_000), generator=generator)
        drawing = partial(reference.paired_distance, metric="euclidean")
        draw = sum(_seconds(drawing, t, i, j) for t in (x, y)) / len(i)
        for trial, kind in zip(kinds(cheap), kinds(plan), strict=True):
            one = _seconds(trial.work, x, y, groups) * kind.growth(stimuli) / trial.growth(TRIAL)
            seconds[kind.measure] += layers * (one + draw * kind.drawn(stimuli))
    return seconds


def said(seconds: Mapping[str, float], stimuli: int) -> str | None:
    """A ``forecast`` in words, what takes long of it; None where nothing does."""
    long = [f"{measure} about {total:.0f} s" for measure, total in seconds.items() if total >= WORTH_SAYING]
    return f"after the text, on up to {stimuli:,} sampled stimuli: {', '.join(long)}" if long else None


def _seconds(work: Callable[..., object], *arguments: Tensor) -> float:
    begun = time.monotonic()
    work(*arguments)
    return time.monotonic() - begun
