"""Causes of a change: which block, exchanged alone, moves the top layer.

All similarities are with the top layer of the base. For each part (0 the embeddings, k block k):

    swap_in    of the base with the tuned part alone; low if this part suffices to change the top
    swap_out   of the tuned encoder with the base's part alone; close to 1 if the change needs this part

Every batch keeps the inputs of all blocks, so that a hybrid runs from the exchanged block up. A part whose weights are
the same in both encoders is not run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.models.batching import length_sorted_batches
from bertft.models.block_swap import BlockSwap
from bertft.ops.metrics import LINEAR
from bertft.runs.intervals import Interval, clustered_difference, clustered_interval
from bertft.runs.progress import SILENT, Progress
from bertft.runs.rows import Row
from bertft.runs.vocabulary import MeasureName
from bertft.similarity.augmented_rows import augment
from bertft.similarity.influence import cka_influence, rsa_influence
from bertft.similarity.moments import CrossMoments
from bertft.similarity.paired_stimuli import Draw, Stimuli
from bertft.similarity.reservoir import Reservoir

if TYPE_CHECKING:
    from bertft.models.encoder import Encoder

TASK = "causes"  # of the rows
SAMPLE = 5000  # stimuli in the sample behind the intervals
UNCHANGED = Interval(1.0, 1.0, 1.0, 0.0)


@dataclass(frozen=True)
class Causes:
    """The causes of one tuned encoder's change, by one measure of similarity.

    Attributes:
        measure: its name in results.
        n: number of stimuli.
        whole: the similarity of the top layers of base and tuned encoder.
        swap_in: by part, as the module's docstring defines.
        swap_out: likewise.
        lead: how much further the base moves by its `strongest` part than by the next one, paired by stimulus; an
            interval above 0 names one part. None if fewer than two parts differ.
    """

    measure: str
    n: int
    whole: Interval
    swap_in: tuple[Interval, ...]
    swap_out: tuple[Interval, ...]
    lead: Interval | None = None

    @property
    def strongest(self) -> int:
        """The part that changes the base most when it is exchanged alone."""
        return min(range(len(self.swap_in)), key=lambda part: self.swap_in[part].value)


def block_causes(
    base: Encoder,
    tuned: Mapping[str, Encoder],
    texts: Sequence[Any],
    *,
    metric: str = "cosine",
    draw: Draw = Draw(tokens=2000),  # noqa: B008 - frozen
    progress: Progress = SILENT,
) -> dict[str, list[Causes]]:
    """Return the causes of each tuned encoder's change, by RSA of ``metric`` and by debiased CKA.

    At most 2 L + 4 passes of encoders with L blocks, on average half of their height. Texts beyond an encoder's window
    are left out.

    Args:
        base: the encoder before fine-tuning.
        tuned: encoders of the same architecture, by name.
        texts: as in `bertft.similarity.compare_encoders`.
        metric: dot, cosine, correlation or sqeuclidean.
        draw: which stimuli of the texts to take, the last text whole.
        progress: receives the steps.

    Raises:
        BertftError: Architectures or tokenizers differ, the metric is unknown, or there are fewer than 2 texts.
    """
    if metric not in LINEAR:
        raise BertftError(f"causes: metric must be one of {', '.join(LINEAR)}, found {metric!r}")
    stimuli = Stimuli("causes", base, tuned, texts, draw)
    items = [item for item in stimuli.items if len(item) <= base.max_length]
    if len(items) < len(stimuli.items):
        progress.say(f"causes: left out {len(stimuli.items) - len(items)} texts beyond the window of {base.max_length}")
    if len(items) < 2:
        raise BertftError(f"causes: needs at least 2 texts within the window of {base.max_length}, found {len(items)}")
    found = {}
    for name, encoder in tuned.items():
        swap = BlockSwap(base, encoder)
        parts, run = swap.changed(), _Run(metric, draw.seed)
        with progress.step(f"exchange blocks of {name}", total=len(items), unit="texts") as step:
            for group in length_sorted_batches(items, draw.batch_tokens):
                run.add([item.index for item in group], [item.count for item in group], swap.tops(group, parts))
                step.advance(len(group))
        found[name] = [run.causes(measure, swap.parts, parts) for measure in run.sums]
    return found


class _Run:
    """Sums and a sample of the top layers of the base (first) and of all others."""

    def __init__(self, metric: str, seed: int) -> None:
        self.metrics = {str(MeasureName.rsa(metric, "pearson")): metric, "cka_debiased": "dot"}
        self.sums: dict[str, CrossMoments] = {}
        self.reservoir, self.texts = Reservoir(SAMPLE, seed), 0

    def add(self, index: Sequence[int], counts: Sequence[int], tops: Tensor) -> None:
        """Add the top layers (1 + H, T, D) of a batch."""
        if not self.sums:
            self.sums = {name: CrossMoments(1, len(tops) - 1, kind, "all") for name, kind in self.metrics.items()}
        with torch.inference_mode():
            for moments in self.sums.values():
                moments.update(tops[:1], tops[1:])
            self.reservoir.offer(torch.tensor(index), torch.tensor(counts), tops)
        self.texts += len(index)

    def causes(self, measure: str, parts: int, run: Sequence[int]) -> Causes:
        """Return the causes by one measure; ``run`` are the parts that were exchanged, of ``parts``."""
        moments = self.sums[measure]
        values = (moments.cka() if measure == "cka_debiased" else moments.rsa())[0].tolist()
        influence_of = cka_influence if measure == "cka_debiased" else rsa_influence
        groups, (sampled,) = self.reservoir.contents()
        counts: dict[str, Any] = {"groups": groups, "stimuli": len(moments), "sentences": self.texts}
        influences, intervals = [], []
        for h, value in enumerate(values):
            pairs = zip((sampled[0], sampled[1 + h]), moments.means(0, h), strict=True)
            z, w = (augment(rows, mean, self.metrics[measure]).float() for rows, mean in pairs)
            influences.append(influence_of(moments.moments(0, h), z, w))
            intervals.append(clustered_interval(value, influences[h], **counts))
        whole, rest = intervals[0], intervals[1:]
        alone, without = dict(zip(run, rest, strict=False)), dict(zip(run, rest[len(run) :], strict=False))
        lead = None
        if len(run) > 1:
            first, second = sorted(range(len(run)), key=lambda h: rest[h].value)[:2]
            both = influences[1 + second], influences[1 + first]
            lead = clustered_difference(rest[second].value, rest[first].value, both, **counts)
        return Causes(
            measure,
            len(moments),
            whole,
            tuple(alone.get(part, UNCHANGED) for part in range(parts)),
            tuple(without.get(part, whole) for part in range(parts)),
            lead,
        )


def rows_of_causes(found: Mapping[str, Sequence[Causes]], data: str, seed: int | None = None) -> list[Row]:
    """Return the rows of `block_causes`: by part, and without a layer the similarity of the whole encoders.

    ``swap_in_<measure>_difference`` is `Causes.lead`, at the layer of the strongest part.
    """
    rows = []
    for name, listed in found.items():
        for causes in listed:
            w = causes.whole
            rows.append(Row(name, TASK, data, None, causes.measure, w.value, w.low, w.high, causes.n, seed))
            for way in ("swap_in", "swap_out"):
                measure = str(MeasureName.swapped(way, causes.measure))
                rows += [
                    Row(name, TASK, data, part, measure, e.value, e.low, e.high, causes.n, seed)
                    for part, e in enumerate(getattr(causes, way))
                ]
            if causes.lead is not None:
                measure = str(replace(MeasureName.swapped("swap_in", causes.measure), derived="difference"))
                e = causes.lead
                rows.append(Row(name, TASK, data, causes.strongest, measure, e.value, e.low, e.high, causes.n, seed))
    return rows
