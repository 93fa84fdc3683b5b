"""Comparison of a base encoder with tuned ones, by batches."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bertft.errors import BadRow, BertftError
from bertft.runs.intervals import Interval, clustered_difference, clustered_interval, positive_interval
from bertft.runs.progress import SILENT, Progress
from bertft.runs.rows import Row
from bertft.runs.vocabulary import MeasureName, pairs_of_models
from bertft.similarity import measures
from bertft.similarity.augmented_rows import augment
from bertft.similarity.compare import all_pairs, nulls
from bertft.similarity.compare.plan import SPACES, Plan
from bertft.similarity.compare.streamed import StreamedMeasure, streamed_measures, task_of
from bertft.similarity.influence import anisotropy_influence, dimension_influence
from bertft.similarity.moments import CrossMoments, merged
from bertft.similarity.reservoir import Reservoir
from bertft.similarity.sinks import TASK, Massive, Tables, dimension_rows


class _Estimate(NamedTuple):
    """The value of a measure at one layer of a tuned encoder."""

    encoder: str
    measure: StreamedMeasure
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
        self.sums = self._tables(layers)
        self.massive = Massive(["base", *layers], self._tables(layers))
        self.reservoir = Reservoir(plan.sample, plan.seed)
        self.sentences = 0

    def _tables(self, layers: Mapping[str, tuple[int, int]]) -> Tables:
        """Return empty sums by name of the tuned encoder and metric."""
        plan = self.plan
        return {
            name: {
                metric: CrossMoments(*both, metric, "all", precision=plan.precision_of(metric))
                if plan.all_layers
                else CrossMoments(min(both), min(both), metric, precision=plan.precision_of(metric))
                for metric in plan.preparations
            }
            for name, both in layers.items()
        }

    def __len__(self) -> int:
        """Return the number of stimuli so far, massive ones included."""
        return self.ordinary + len(self.massive)

    @property
    def ordinary(self) -> int:
        """The number of stimuli behind all measures: those massive in no layer (`bertft.similarity.sinks`)."""
        return len(next(iter(next(iter(self.sums.values())).values())))

    def place(self, devices: Sequence[torch.device]) -> None:
        """Keep the sums of the layer at place k on ``devices[k]``."""
        for table in self.sums.values():
            for moments in table.values():
                moments.place(devices[: moments.layers_x])

    def start(self, spaces: Sequence[Tensor]) -> None:
        """Fix the provisional means and the thresholds of massive activations by these rows without adding them."""
        self.massive.fit(spaces)
        layers = self.massive.layers_of(spaces)
        if layers is not None:
            ordinary = ~torch.stack([massive.any(0) for massive in layers]).any(0)
            spaces = [space[:, ordinary.to(space.device)] for space in spaces] if ordinary.any() else spaces
        self._feed(self.sums, spaces, CrossMoments.start)

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
        self.massive.fit(spaces)
        self.add(index, lengths, spaces, text, self.massive.layers_of(spaces))

    def add(
        self,
        index: Tensor,
        lengths: Tensor,
        spaces: Sequence[Tensor],
        text: Callable[[int], str],
        layers: Sequence[Tensor] | None,
    ) -> None:
        """Add a batch like `update`; ``layers`` are those of `Massive.layers_of`."""
        kept: list[tuple[Tables, Tensor | None]] = [(self.sums, None)]
        if layers is not None:
            massive = self.massive.note(layers, index, lengths)
            kept = [(self.sums, (~massive).nonzero()[:, 0]), (self.massive.sums, massive.nonzero()[:, 0])]
        for sums, rows in kept:
            chosen = spaces if rows is None else [space[:, rows.to(space.device)] for space in spaces]
            try:
                self._feed(sums, chosen, CrossMoments.update)
            except BadRow as bad:
                ends, at = lengths.cumsum(0), bad.row if rows is None else int(rows[bad.row])
                which = int(torch.searchsorted(ends, at, right=True))
                layer = None if bad.layer is None else self.plan.number(bad.layer)
                row, name = at - int(ends[which] - lengths[which]), text(int(index[which]))
                where = f"similarity: row {row} of {name}, in layer {layer} of {bad.side}"
                raise BertftError(f"{where}, {bad.why}") from None
        self.reservoir.offer(index, lengths, *spaces)

    def state(self) -> tuple[dict[str, Tensor], float | None]:
        """Return the tensors of sums, sample and massive activations, and the sample's limit, for `restore`."""
        kept, limit = self.reservoir.state()
        tensors = {f"reservoir/{key}": tensor for key, tensor in kept.items()}
        for name, table in self.sums.items():
            for metric, moments in table.items():
                tensors.update({f"sums/{name}/{metric}/{key}": tensor for key, tensor in moments.state.items()})
        tensors.update({f"massive/{key}": tensor for key, tensor in self.massive.state().items()})
        return tensors, limit

    def restore(self, tensors: Mapping[str, Tensor], limit: float | None) -> None:
        """Resume from a `state`."""
        self.reservoir.restore(_under("reservoir/", tensors), limit)
        for name, table in self.sums.items():
            for metric, moments in table.items():
                moments.restore(_under(f"sums/{name}/{metric}/", tensors))
        self.massive.restore(_under("massive/", tensors))

    def _feed(
        self, sums: Tables, spaces: Sequence[Tensor], method: Callable[[CrossMoments, Tensor, Tensor], object]
    ) -> None:
        """Call ``method`` of every accumulator with its layers; a `BadRow` then names the encoder as its side."""
        for (name, table), space in zip(sums.items(), spaces[1:], strict=True):
            for moments in table.values():
                try:
                    method(moments, spaces[0][: moments.layers_x], space[: moments.layers_y])
                except BadRow as bad:
                    raise dataclasses.replace(bad, side="the base" if bad.side == "x" else name) from None
                except BertftError as error:
                    raise BertftError(f"similarity: base (x) and {name} (y): {error}") from None

    def rows(self, data: str, *, progress: Progress = SILENT) -> list[Row]:
        """Return every measure of every encoder and layer and, of several tuned encoders, their differences."""
        return [
            row if row.layer is None else dataclasses.replace(row, layer=self.plan.number(row.layer))
            for row in self._rows(data, progress)
        ]

    def _rows(self, data: str, progress: Progress) -> list[Row]:
        """Return the rows of `rows` with the places of the layers among those compared as their numbers."""
        plan = self.plan
        if plan.intervals and self.sentences < 2:
            raise BertftError(f"similarity: needs at least 2 texts for an interval, found {self.sentences} in {data}")
        sample = self._sample() if plan.intervals or plan.over_pairs or plan.null else None
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
            rows.append(self._row(name, task_of(measure.name), data, layer, measure.name, value, ends))
        rows += self._with_massive(data, rows, progress)
        rows += self._of_spaces(data, sample)
        if plan.intervals and sample is not None:
            rows += self._differences(influences, sample.groups, data)
        if plan.over_pairs and sample is not None:
            rows += all_pairs.rows(data, plan, sample.groups, sample.base, sample.tuned, progress=progress)
        if plan.null and sample is not None:
            noise = max(table[metric].noise for table in self.sums.values() for metric in table)
            known = {row.key: row for row in rows}
            spaces = sample.groups, sample.base, sample.tuned
            rows += nulls.rows(data, plan, *spaces, known, noise=noise, progress=progress)
        return rows + crossed

    def _with_massive(self, data: str, rows: Sequence[Row], progress: Progress) -> list[Row]:
        """Return how many stimuli are massive, and the measures of all stimuli that leave the interval of ``rows``."""
        size: dict[str, Any] = {"n": len(self), "seed": self.plan.seed}
        found = self.massive.rows(data, **size)
        if found:
            progress.say(
                f"{data}: {len(self.massive):,} of {len(self):,} stimuli are massive activations and left out "
                "(<measure>_with_massive counts them in)"
            )
            known = {(row.model, row.measure, row.layer): row for row in rows}
            for name, measure in itertools.product(self.sums, list(streamed_measures(self.plan))):
                both = merged([sums[name][measure.metric] for sums in (self.sums, self.massive.sums)])
                values = measure.values(both)
                for layer, value in enumerate((values.diagonal() if self.plan.all_layers else values).tolist()):
                    row = known[name, measure.name, layer]
                    low, high = (row.value if end is None else end for end in (row.low, row.high))
                    if math.isfinite(value) and not low <= value <= high:
                        named = str(dataclasses.replace(MeasureName.parse(measure.name), derived="with_massive"))
                        found.append(Row(name, TASK, data, layer, named, value, **size))
        return found + dimension_rows(self.sums, data, self.ordinary, self.plan.seed)

    def _sample(self) -> _Sample:
        """Return the ordinary stimuli of the reservoir."""
        groups, spaces = self.reservoir.contents()
        layers = self.massive.layers_of(spaces)
        if layers is not None:
            ordinary = (~torch.stack([massive.any(0) for massive in layers]).any(0)).nonzero()[:, 0]
            groups, spaces = groups[ordinary].unique(return_inverse=True)[1], [space[:, ordinary] for space in spaces]
        base, *tuned = spaces
        return _Sample(groups, base, dict(zip(self.sums, tuned, strict=True)))

    @property
    def _size(self) -> dict[str, int]:
        return {"stimuli": self.ordinary, "sentences": self.sentences}

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
        return Row(model, task, data, layer, measure, value, *ends, self.ordinary, self.plan.seed)

    def _estimates(self, data: str) -> tuple[list[_Estimate], list[Row]]:
        """Return the values of all measures from sums, and the rows that cross all layers."""
        estimates: list[_Estimate] = []
        crossed: list[Row] = []
        for (name, table), measure in itertools.product(self.sums.items(), list(streamed_measures(self.plan))):
            values = measure.values(table[measure.metric])
            if not values.isfinite().all():
                layer = self.plan.number(int((~values.isfinite()).nonzero()[0, -1]))
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
        for first, second in pairs_of_models(influences):
            for measure, layer in influences[first]:
                if (measure, layer) not in influences[second]:
                    continue
                (a, of_a), (b, of_b) = influences[first][measure, layer], influences[second][measure, layer]
                apart = clustered_difference(a, b, (of_a, of_b), groups, **self._size)
                in_noise = measure == "shape_distance" and max(a, b) < measures.SHAPE_FLOOR
                ends = (None, None) if in_noise else _ends(apart)
                yield self._row(f"{first} - {second}", "difference", data, layer, measure, apart.value, ends)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def _ends(interval: Interval) -> tuple[float | None, float | None]:
    """Return the ends of an interval, or None for both if it has none."""
    return (None, None) if math.isnan(interval.low) else (interval.low, interval.high)
