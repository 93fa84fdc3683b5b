"""Comparison of a base encoder with tuned ones, by batches."""

from __future__ import annotations

import dataclasses
import itertools
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from bertft.errors import BadRow, BertftError
from bertft.runs.intervals import Interval, clustered_difference, clustered_interval, positive_interval
from bertft.runs.progress import SILENT, Progress
from bertft.runs.rows import Row
from bertft.runs.vocabulary import MeasureName
from bertft.similarity import measures
from bertft.similarity.augmented_rows import augment
from bertft.similarity.compare import all_pairs
from bertft.similarity.compare.plan import SCATTER, SPACES, Plan
from bertft.similarity.influence import (
    angle_interval,
    anisotropy_influence,
    augmented_rows,
    cka_influence,
    dimension_influence,
    entries,
    rsa_influence,
    scatter_influence,
    shape_influence,
)
from bertft.similarity.moments import CrossMoments
from bertft.similarity.reservoir import Reservoir


class _Measure(NamedTuple):
    """A measure that follows from the sums of one pair of layers."""

    name: str
    metric: str  # of the sums that it takes
    values: Callable[[CrossMoments], Tensor]
    influence: Callable[[CrossMoments, int, Tensor, Tensor], Tensor]
    interval: Callable[..., Interval] = clustered_interval


class _Estimate(NamedTuple):
    """The value of a measure at one layer of a tuned encoder."""

    encoder: str
    measure: _Measure
    layer: int
    value: float


class _OfSpace(NamedTuple):
    """The value of a measure of a single space: of the base (``side`` 0) or of a tuned encoder (1)."""

    model: str
    measure: str
    layer: int
    value: float
    encoder: str  # the tuned encoder of the sums that have the space
    side: int


class _Sample(NamedTuple):
    """The reservoir's contents: the sentence (R,) of each stimulus, and vectors (L, R, D) by encoder."""

    groups: Tensor
    base: Tensor
    tuned: dict[str, Tensor]


class Comparison:
    """Sums over all stimuli, and a reservoir of some, of a base encoder beside tuned ones.

    Args:
        plan: the similarities to measure.
        layers: numbers of layers (of the base, of the tuned encoder) by name of the tuned encoder. Layer k is compared
            with layer k as far as both encoders have it.
    """

    def __init__(self, plan: Plan, layers: Mapping[str, tuple[int, int]]) -> None:
        self.plan, self.layers = plan, {name: min(both) for name, both in layers.items()}
        self.sums = {
            name: {
                metric: CrossMoments(*both, metric, "all", precision=plan.precision_of(metric))
                if plan.all_layers
                else CrossMoments(min(both), min(both), metric, precision=plan.precision_of(metric))
                for metric in plan.preparations
            }
            for name, both in layers.items()
        }
        self.reservoir = Reservoir(plan.sample, plan.seed)
        self.sentences = 0

    def __len__(self) -> int:
        """Return the number of stimuli so far."""
        return len(next(iter(next(iter(self.sums.values())).values())))

    def start(self, spaces: Sequence[Tensor]) -> None:
        """Fix the provisional means by these rows without adding them."""
        self._feed(spaces, CrossMoments.start)

    def update(
        self,
        index: Tensor,
        lengths: Tensor,
        spaces: Sequence[Tensor],
        text: Callable[[int], str] = lambda index: f"text {index + 1} of the stream",
    ) -> None:
        """Add a batch.

        Args:
            index: (S,) the batch's examples.
            lengths: (S,) stimuli of each.
            spaces: vectors (L, T, D) of the base and of each tuned encoder.
            text: name of an example, for errors.

        Raises BertftError for a row that is not finite or has no direction, with its encoder, layer, text and place in
        the text. In a text that was cut into windows, the place is that in the window.
        """
        try:
            self._feed(spaces, CrossMoments.update)
        except BadRow as bad:
            ends = lengths.cumsum(0)
            which = int(torch.searchsorted(ends, bad.row, right=True))
            row, name = bad.row - int(ends[which] - lengths[which]), text(int(index[which]))
            raise BertftError(
                f"similarity: row {row} of {name}, in layer {bad.layer} of {bad.side}, {bad.why}"
            ) from None
        self.reservoir.offer(index, lengths, *spaces)

    def _feed(self, spaces: Sequence[Tensor], method: Callable[[CrossMoments, Tensor, Tensor], object]) -> None:
        """Call ``method`` of every accumulator with its layers; a `BadRow` then names the encoder as its side."""
        for (name, table), space in zip(self.sums.items(), spaces[1:], strict=True):
            for moments in table.values():
                try:
                    method(moments, spaces[0][: moments.layers_x], space[: moments.layers_y])
                except BadRow as bad:
                    raise dataclasses.replace(bad, side="the base" if bad.side == "x" else name) from None
                except BertftError as error:
                    raise BertftError(f"similarity: base (x) and {name} (y): {error}") from None

    def rows(self, data: str, *, progress: Progress = SILENT) -> list[Row]:
        """Return every measure of every encoder and layer and, of several tuned encoders, their differences."""
        plan = self.plan
        if plan.intervals and self.sentences < 2:
            raise BertftError(f"similarity: needs at least 2 texts for an interval, found {self.sentences} in {data}")
        sample = self._sample() if plan.intervals or plan.over_pairs else None
        estimates, crossed = self._estimates(data)
        rows: list[Row] = []
        influences: dict[str, dict[tuple[str, int], tuple[float, Tensor]]] = {name: {} for name in self.sums}
        for name, measure, layer, value in estimates:
            ends: tuple[float | None, float | None] = (None, None)
            if plan.intervals and sample is not None:
                sums, x, y = self.sums[name][measure.metric], sample.base[layer], sample.tuned[name][layer]
                influence = measure.influence(sums, layer, x, y)
                influences[name][measure.name, layer] = value, influence
                ends = _ends(measure.interval(value, influence, sample.groups, **self._size))
            rows.append(self._row(name, _task(measure.name), data, layer, measure.name, value, ends))
        rows += self._of_spaces(data, sample)
        if plan.intervals and sample is not None:
            rows += self._differences(influences, sample.groups, data)
        if plan.over_pairs and sample is not None:
            rows += all_pairs.rows(data, plan, sample.groups, sample.base, sample.tuned, progress=progress)
        return rows + crossed

    def _sample(self) -> _Sample:
        groups, (base, *tuned) = self.reservoir.contents()
        return _Sample(groups, base, dict(zip(self.sums, tuned, strict=True)))

    @property
    def _size(self) -> dict[str, int]:
        return {"stimuli": len(self), "sentences": self.sentences}

    def _row(
        self,
        model: str,
        task: str,
        data: str,
        layer: int,
        measure: str,
        value: float,
        ends: tuple[float | None, float | None] = (None, None),
    ) -> Row:
        return Row(model, task, data, layer, measure, value, *ends, len(self), self.plan.seed)

    def _estimates(self, data: str) -> tuple[list[_Estimate], list[Row]]:
        """Return the values of all measures from sums, and the rows that cross all layers."""
        estimates: list[_Estimate] = []
        crossed: list[Row] = []
        for (name, table), measure in itertools.product(self.sums.items(), list(self._measures())):
            values = measure.values(table[measure.metric])
            if not values.isfinite().all():
                layer = int((~values.isfinite()).nonzero()[0, -1])
                raise BertftError(f"{measure.name} of {name} at layer {layer} on {data}: all dissimilarities are equal")
            if self.plan.all_layers:
                crossed += self._crossed(name, data, measure.name, values)
                values = values.diagonal()
            estimates += [_Estimate(name, measure, layer, value) for layer, value in enumerate(values.tolist())]
        return estimates, crossed

    def _crossed(self, name: str, data: str, measure: str, values: Tensor) -> Iterator[Row]:
        """Yield ``<measure>_base<l>`` at layer k: layer k of the tuned encoder against layer l of the base."""
        for of_base, of_tuned in enumerate(values.tolist()):
            for layer, value in enumerate(of_tuned):
                named = str(dataclasses.replace(MeasureName.parse(measure), base_layer=of_base))
                yield self._row(name, "heatmap", data, layer, named, value)

    def _measures(self) -> Iterator[_Measure]:
        """Yield the measures that follow from sums, in the order of the plan."""
        raw = self.plan.of_raw_rows if {"cka", *SCATTER} & set(self.plan.measures) else ""
        for measure in self.plan.measures:
            if measure == "rsa":
                yield from (_rsa(metric, compare) for metric, compare in self.plan.streamed)
            elif measure == "cka":
                values = operator.methodcaller("cka", debiased=True)
                yield _Measure("cka_debiased", raw, values, partial(_influence, cka_influence))
            elif measure == "shape_distance":
                influence = partial(_influence, shape_influence)
                yield _Measure(measure, raw, operator.methodcaller(measure), influence, angle_interval)
            elif measure in SCATTER:
                yield _Measure(measure, raw, operator.methodcaller(measure), partial(_of_scatter, measure))

    def _of_spaces(self, data: str, sample: _Sample | None) -> list[Row]:
        """Return the measures of single spaces: the base's once, then each tuned encoder's."""
        rows = []
        for request in self._spaces():
            ends: tuple[float | None, float | None] = (None, None)
            if self.plan.intervals and sample is not None:
                ends = self._interval_of_space(request, sample)
            rows.append(
                self._row(request.model, "similarity", data, request.layer, request.measure, request.value, ends)
            )
        return rows

    def _spaces(self) -> list[_OfSpace]:
        """Return the values of single spaces; the base's layers are those of the first encoder that has them."""
        found: dict[tuple[str, str, int], _OfSpace] = {}
        chosen = [measure for measure in SPACES if measure in self.plan.measures]
        for measure, (encoder, table) in itertools.product(chosen, self.sums.items()):
            sides = getattr(table[self._metric_of_space(measure)], measure)()
            for side, (model, values) in enumerate(zip(("base", encoder), sides, strict=True)):
                for layer, value in enumerate(values.tolist()):
                    request = _OfSpace(model, measure, layer, value, encoder, side)
                    found.setdefault((measure, model, layer), request)
        return list(found.values())

    def _metric_of_space(self, measure: str) -> str:
        return "cosine" if measure == "anisotropy" else self.plan.of_raw_rows

    def _interval_of_space(self, request: _OfSpace, sample: _Sample) -> tuple[float | None, float | None]:
        metric, layer, side = self._metric_of_space(request.measure), request.layer, request.side
        m = self.sums[request.encoder][metric]
        other = layer if m.pairs == "diagonal" else 0  # the other space's layer makes no difference
        pair = (layer, other) if side == 0 else (other, layer)
        x = (sample.base, sample.tuned[request.encoder])[side][layer]
        influence_of, interval = (
            (anisotropy_influence, clustered_interval)
            if request.measure == "anisotropy"
            else (dimension_influence, positive_interval)
        )
        influence = influence_of(m.moments(*pair), augment(x, m.means(*pair)[side], metric), side)
        _, low, high, _ = interval(request.value, influence, sample.groups, **self._size)
        return low, high

    def _differences(
        self, influences: Mapping[str, Mapping[tuple[str, int], tuple[float, Tensor]]], groups: Tensor, data: str
    ) -> Iterator[Row]:
        """Yield first minus second of each two tuned encoders, measure by measure, with the paired interval."""
        for first, second in itertools.combinations(influences, 2):
            for measure, layer in influences[first]:
                if (measure, layer) not in influences[second]:
                    continue
                (a, of_a), (b, of_b) = influences[first][measure, layer], influences[second][measure, layer]
                apart = clustered_difference(a, b, (of_a, of_b), groups, **self._size)
                in_noise = measure == "shape_distance" and max(a, b) < measures.SHAPE_FLOOR
                ends = (None, None) if in_noise else _ends(apart)
                yield self._row(f"{first} - {second}", "difference", data, layer, measure, apart.value, ends)


def _rsa(metric: str, compare: str) -> _Measure:
    def influence(m: CrossMoments, k: int, x: Tensor, y: Tensor) -> Tensor:
        form = entries(m, k) if compare == "cosine" else None
        return rsa_influence(m.moments(k, k), *augmented_rows(m, k, x, y), form)

    return _Measure(str(MeasureName.rsa(metric, compare)), metric, lambda m: m.rsa(compare), influence)


def _influence(function: Callable[..., Tensor], m: CrossMoments, k: int, x: Tensor, y: Tensor) -> Tensor:
    return function(m.moments(k, k), *augmented_rows(m, k, x, y))


def _of_scatter(measure: str, m: CrossMoments, k: int, x: Tensor, y: Tensor) -> Tensor:
    function = getattr(measures, measure)
    settings = {} if measure == "procrustes" else {"noise": m.noise}
    return _influence(partial(scatter_influence, partial(function, **settings)), m, k, x, y)


def _ends(interval: Interval) -> tuple[float | None, float | None]:
    """Return the ends of an interval, or None for both if it has none."""
    return (None, None) if math.isnan(interval.low) else (interval.low, interval.high)


def _task(measure: str) -> str:
    """Return ``rsa`` for RSA and CKA, which the report draws; other measures appear in the table only."""
    return "rsa" if MeasureName.parse(measure).measure.family in ("RSA", "CKA") else "similarity"
