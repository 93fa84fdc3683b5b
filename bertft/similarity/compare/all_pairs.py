"""All-pairs measures on the sample, with a time forecast.

They work in tiles instead of whole matrices.
"""

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
from bertft.runs.intervals import ENDS, clustered_difference, clustered_interval
from bertft.runs.progress import SILENT, Progress
from bertft.runs.rows import Row
from bertft.runs.vocabulary import MeasureName, pairs_of_models
from bertft.similarity import neighbours
from bertft.similarity import pairwise_rsa as pairwise

if TYPE_CHECKING:
    from bertft.similarity.compare.plan import Plan

RESAMPLES = 1000
TRIAL = 400  # stimuli in the trial, in sentences of 16
DRAWN = 1_000_000  # pairs that give ranks, mean or kernel width of more than EXACT stimuli
WORTH_SAYING = 5.0  # seconds from which the forecast names a measure


class Estimate(NamedTuple):
    """The value of a measure at one layer.

    ``spread`` serves the difference of two encoders: the bootstrap's values (B,), from the same resamples for all
    encoders, or the stimuli's influences (R,), with the cluster ``of`` each. None without intervals.
    """

    value: float
    low: float | None = None
    high: float | None = None
    spread: Tensor | np.ndarray | None = None
    route: Route | None = None
    of: Tensor | None = None


class PairMeasure(NamedTuple):
    """A measure: its name, its task, its work on x (R, D), y (R, E), groups (R,), and its cost.

    Seconds are proportional to ``growth(R)``, plus those for ``drawn(R)`` pairs of stimuli drawn in both spaces.
    """

    measure: str
    task: str
    work: Callable[[Tensor, Tensor, Tensor], Estimate]
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
    """Return the pairwise measures of ``plan`` between the base and each tuned encoder, by the place of the layer.

    Intervals are clustered by sentence: 95 % percentiles over resampled sentences for RSA, influences for the others.
    Then come the differences of each two tuned encoders over the same resamples or sentences. If pairs were drawn
    (kendall) or ranks binned, ``<measure>_error`` is the resulting error of the value (kendall: a standard error), with
    the number of pairs as its ``n``. If no two sentences have the same size, nothing can be permuted, and ``progress``
    gets a message.

    Args:
        data: name of the texts in the rows.
        plan: the measures.
        groups: (R,) sentences of the stimuli.
        base: (L, R, D) vectors of the base.
        tuned: (M, R, E) vectors of each tuned encoder.
        progress: receives a step per measure, and messages.
    """
    found: dict[tuple[str, str, int], Estimate] = {}
    table: list[Row] = []
    n, sizes = base.shape[1], torch.bincount(groups)
    all_pairs = n * (n - 1) // 2
    if plan.tested and len(sizes.unique()) == len(sizes):
        plan = dataclasses.replace(plan, permutations=0)
        progress.say(f"{data}: no permutation test, the sizes of the {len(sizes)} sampled texts all differ")
    for (name, space), kind in itertools.product(tuned.items(), pair_measures(plan)):
        errors: list[Row] = []
        with progress.step(f"{kind.measure} of {name}", total=min(len(base), len(space)), unit="layers") as step:
            for layer, (a, b) in enumerate(zip(base, space, strict=False)):
                one = found[name, kind.measure, layer] = kind.work(a, b, groups)
                if not math.isfinite(one.value):
                    where = f"{kind.measure} of {name} at layer {plan.number(layer)} on {data}"
                    raise BertftError(f"{where}: all dissimilarities are equal")
                head = (name, kind.task, data, layer, kind.measure)
                table.append(Row(*head, one.value, one.low, one.high, n, plan.seed))
                if one.route is not None and one.route.error:
                    head = (name, "precision", data, layer, _error_of(kind.measure))
                    errors.append(Row(*head, one.route.error, n=one.route.pairs or all_pairs, seed=plan.seed))
                step.advance()
        if errors:
            progress.say(f"{kind.measure} of {name}: {_precision(errors, all_pairs)}")
        table += errors
    return table + list(_differences(data, plan, n, found, list(tuned)))


def _error_of(measure: str) -> str:
    return str(dataclasses.replace(MeasureName.parse(measure), derived="error"))


def _precision(errors: Sequence[Row], all_pairs: int) -> str:
    """Return by how much a measure's pairs or ranks move it, as a message."""
    worst, pairs = max(row.value for row in errors), errors[0].n
    how = "drawn" if pairs != all_pairs else "with ranks in bins"
    return f"{pairs:,} pairs {how}, which moves it by about {worst:.1g}"


def _differences(
    data: str, plan: Plan, n: int, found: Mapping[tuple[str, str, int], Estimate], tuned: Sequence[str]
) -> Iterator[Row]:
    """Yield first minus second of each two tuned encoders, measure by measure, with the paired interval."""
    for first, second in pairs_of_models(tuned):
        for (name, measure, layer), a in found.items():
            b = found.get((second, measure, layer))
            if name != first or b is None or a.spread is None or b.spread is None:
                continue
            if isinstance(a.spread, Tensor) and isinstance(b.spread, Tensor) and a.of is not None:
                spreads = a.spread, b.spread
                _, low, high, _ = clustered_difference(a.value, b.value, spreads, a.of, **_size(a.of))
            else:
                low, high = np.nanpercentile(np.asarray(a.spread) - np.asarray(b.spread), ENDS).tolist()
            head = (f"{first} - {second}", "difference", data, layer, measure)
            yield Row(*head, a.value - b.value, low, high, n, plan.seed)


def _size(clusters: Tensor) -> dict[str, int]:
    return {"stimuli": len(clusters), "sentences": int(clusters.max()) + 1}


def pair_measures(plan: Plan) -> Iterator[PairMeasure]:
    """Yield the measures over pairs of ``plan``."""
    resamples = RESAMPLES if plan.intervals else 0

    def rsa(a: Tensor, b: Tensor, groups: Tensor, metric: str, compare: str, **wanted: Any) -> pairwise.Rsa:
        return pairwise.rsa(a, b, metric, compare, groups=groups, seed=plan.seed, **wanted)

    def estimated(metric: str, compare: str) -> PairMeasure:
        def work(a: Tensor, b: Tensor, groups: Tensor) -> Estimate:
            one = rsa(a, b, groups, metric, compare, bootstrap=resamples)
            return Estimate(one.estimate, one.low, one.high, one.resamples, one.route)

        name = str(MeasureName.rsa(metric, compare))
        if compare == "kendall":  # draws and sorts the same number of pairs for any number of stimuli
            return PairMeasure(name, "rsa", work, growth=lambda n: 1.0)
        of_ranks = bool(resamples) and compare != "cosine"
        return PairMeasure(name, "rsa", work, drawn=lambda n: DRAWN if of_ranks and n > pairwise.EXACT else 0)

    def tested(metric: str, compare: str) -> PairMeasure:
        def work(a: Tensor, b: Tensor, groups: Tensor) -> Estimate:
            p_value = rsa(a, b, groups, metric, compare, permutations=plan.permutations).p_value
            return Estimate(math.nan if p_value is None else p_value)

        name = str(dataclasses.replace(MeasureName.rsa(metric, compare), derived="p"))
        return PairMeasure(name, "permutation", work, growth=lambda n: float(n) * n * plan.permutations)

    def knn(a: Tensor, b: Tensor, groups: Tensor) -> Estimate:
        k = min(neighbours.K, len(a) - 1)
        value = float(neighbours.mutual_knn(a, b, k).mean())
        return influenced(value, *neighbours.overlap_influence(a, b, groups, k)) if plan.intervals else Estimate(value)

    def rbf(a: Tensor, b: Tensor, groups: Tensor) -> Estimate:
        return influenced(*neighbours.rbf_alignment(a, b, influences=plan.intervals), groups)

    def influenced(value: float, influence: Tensor | None, clusters: Tensor) -> Estimate:
        if influence is None:
            return Estimate(value)
        _, low, high, _ = clustered_interval(value, influence, clusters, **_size(clusters))
        return Estimate(value, low, high, influence, of=clusters)

    yield from (estimated(*kind) for kind in plan.pairwise)
    yield from (tested(*kind) for kind in plan.tested)
    for measure in plan.measures:
        if measure == "mutual_knn":
            yield PairMeasure(str(MeasureName.neighbours(neighbours.K)), "similarity", knn)
        elif measure == "cka_rbf":
            yield PairMeasure("cka_rbf", "rsa", rbf, drawn=lambda n: DRAWN if n > 1000 else 0)


def forecast(plan: Plan, stimuli: int, encoders: Sequence[tuple[int, tuple[int, int]]]) -> dict[str, float]:
    """Return the seconds that each pairwise measure of ``plan`` will take over the sampled stimuli, for all encoders.

    They follow from a trial on random vectors and from the growth of each measure's work; 0 for few more stimuli than
    the trial has.

    Args:
        plan: the measures.
        stimuli: number of sampled stimuli.
        encoders: of each tuned encoder, the number of layers compared and the widths (D of the base, E).
    """
    seconds = dict.fromkeys((kind.measure for kind in pair_measures(plan)), 0.0)
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
        for trial, kind in zip(pair_measures(cheap), pair_measures(plan), strict=True):
            one = _seconds(trial.work, x, y, groups) * kind.growth(stimuli) / trial.growth(TRIAL)
            seconds[kind.measure] += layers * (one + draw * kind.drawn(stimuli))
    return seconds


def forecast_line(seconds: Mapping[str, float], stimuli: int) -> str | None:
    """Return the slow measures of a `forecast` as a message, or None if none is slow."""
    long = [f"{measure} about {total:.0f} s" for measure, total in seconds.items() if total >= WORTH_SAYING]
    return f"after the text, on up to {stimuli:,} sampled stimuli: {', '.join(long)}" if long else None


def _seconds(work: Callable[..., object], *arguments: Tensor) -> float:
    begun = time.monotonic()
    work(*arguments)
    return time.monotonic() - begun
