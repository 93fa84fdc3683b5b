"""Directions of the change from a base encoder to a tuned one.

Both must share a basis: the same width, the one made from the other. With d = y - x the change of a stimulus in one
layer, m its mean, C its covariance (divided by n), t = tr C and e_1 >= e_2 >= ... the eigenvalues of C,

    mean_shift_share   |m|^2 / E|d|^2,  where E|d|^2 = |m|^2 + t
    direction_share_j  e_j / t
    direction_rank     t^2 / sum e_j^2, the effective rank (participation ratio): 1 for a line, D for a ball

All three are exact over all stimuli. An interval is Student's t of influences, clustered by text, of a random sample of
whole texts. With c = d - m and v_j the eigenvector of e_j, a stimulus adds

    2 m.c to |m|^2        |c|^2 - t to t        (v_j.c)^2 - e_j to e_j        2 (c'Cc - sum e_j^2) to sum e_j^2

The influence on e_j presumes that e_j is apart from its neighbours; of two nearly equal eigenvalues the larger one is
overestimated, as in any PCA. With S texts the share of a mean shift near 0 is too large, and a rank near S too small,
by more than their intervals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.runs.catalogue import DIRECTIONS
from bertft.runs.intervals import Interval, positive_interval, share_interval
from bertft.runs.progress import SILENT, Progress
from bertft.runs.rows import Row
from bertft.runs.shown import Cells, as_html, as_text, interval, number
from bertft.runs.vocabulary import MeasureName
from bertft.similarity import measures
from bertft.similarity.moments import CrossMoments
from bertft.similarity.paired_stimuli import Draw, Stimuli
from bertft.similarity.reservoir import Reservoir

if TYPE_CHECKING:
    from bertft.models.encoder import Encoder

TASK = "directions"  # of the rows
MEAN = 0  # the number of the mean shift among the directions
ENDS = ("low", "high")


class Change(NamedTuple):
    """Moments of the change of ``n`` stimuli in one layer: mean (D,), and covariance (D, D) divided by n, float64."""

    n: int
    mean: Tensor
    covariance: Tensor

    @property
    def total(self) -> float:
        """The mean squared norm of the change, E|d|^2."""
        return float(self.mean @ self.mean + self.covariance.trace())


class ChangeSums:
    """Sums of d - d_0 and of its outer products, float64, for all layers; d_0 is the mean change of the first chunk.

    They are exact for changes of any size. Sums of the two spaces (`change_of_moments`) lose what is smaller than their
    own rounding.
    """

    def __init__(self) -> None:
        self.n = 0
        self._origin = self._sum = self._gram = torch.empty(0)

    def update(self, x: Tensor, y: Tensor) -> Tensor:
        """Add the stimuli x and y (L, n, D); return their changes (L, n, D) float64."""
        changes = y.double() - x.double()
        if changes.shape[1] == 0:
            return changes
        if self.n == 0:
            layers, _, d = changes.shape
            self._origin = changes.mean(1)
            self._sum, self._gram = changes.new_zeros(layers, d), changes.new_zeros(layers, d, d)
        centred = changes - self._origin.unsqueeze(1)
        self._sum += centred.sum(1)
        for total, rows in zip(self._gram, centred, strict=True):
            total.addmm_(rows.mT, rows)
        self.n += changes.shape[1]
        return changes

    def changes(self) -> list[Change]:
        """Return the moments of every layer, on the CPU."""
        found = []
        for origin, total, gram in zip(self._origin, self._sum, self._gram, strict=True):
            mean = total / self.n
            covariance = gram / self.n - torch.outer(mean, mean)
            found.append(Change(self.n, (origin + mean).cpu(), covariance.cpu()))
        return found


def change_of_moments(moments: CrossMoments, layer: int) -> Change:
    """Return the moments of the change from sums of raw rows: cov(Y - X) = Sxx + Syy - Sxy - Sxy'.

    A change below the rounding of the sums (``moments.noise``) counts as none.

    Raises:
        BertftError: The widths differ, or rows were scaled (metric cosine or correlation).
    """
    metrics = (moments.metric_x, moments.metric_y)
    if not set(metrics) <= {"dot", "sqeuclidean"}:
        raise BertftError(f"directions: expected sums of raw rows (metric dot or sqeuclidean), found {metrics[0]}")
    check_widths("base", moments.widths[0], "tuned", moments.widths[1])
    m, n = moments.moments(layer, layer), len(moments)
    xx, yy, xy = measures.scatter(m)
    mean_x, mean_y = moments.means(layer, layer)
    mean, covariance = mean_y + m.y.s / n - mean_x - m.x.s / n, (xx + yy - xy - xy.mT) / n
    floor = moments.noise * (xx.trace() + yy.trace()) / n
    if covariance.trace() <= floor:
        covariance = torch.zeros_like(covariance)
        mean = mean if mean @ mean > floor else torch.zeros_like(mean)
    return Change(n, mean, covariance)


def check_widths(base: str, width: int, tuned: str, other: int) -> None:
    """Raise BertftError if two encoders differ in width."""
    if width != other:
        raise BertftError(
            f"directions: the change of vectors needs encoders of one width, found {width} for {base} and {other} "
            f"for {tuned}"
        )


@dataclass(frozen=True)
class End:
    """A sampled stimulus at one end of a direction: its word, marked by ``[...]`` in its ``context``.

    Each word is listed once at an end, where its projection is most extreme.

    ``direction`` counts from 1; 0 is the mean shift. ``value`` is the projection of d - m on the direction, and for the
    mean shift that of d. ``count`` is the number of sampled stimuli with this word, in whatever case, and ``mean`` the
    mean of their projections.
    """

    direction: int
    end: str
    value: float
    word: str
    text: str
    context: str
    count: int = 1
    mean: float = math.nan


@dataclass(frozen=True)
class LayerDirections:
    """The change in one layer.

    Attributes:
        layer: the layer.
        n: number of stimuli.
        total: E|d|^2.
        mean_shift_share: with its interval; None if nothing changed.
        rank: the effective rank of C, likewise; None if all stimuli changed alike.
        shares: of the first k directions.
        eigenvalues: all of C (D,), largest first.
        mean: the mean shift (D,).
        vectors: the first k directions (k, D) of norm 1. The sign is such that the cubes of the sampled projections sum
            to a positive number: the longer tail is the high end.
        ends: the sampled stimuli at both ends of the mean shift and of each direction.
    """

    layer: int
    n: int
    total: float
    mean_shift_share: Interval | None
    rank: Interval | None
    shares: tuple[Interval, ...]
    eigenvalues: Tensor
    mean: Tensor
    vectors: Tensor
    ends: tuple[End, ...] = ()

    def __repr__(self) -> str:
        return as_text(self._table())

    def _repr_html_(self) -> str:
        return as_html(self._table())

    def _table(self) -> Cells:
        """Return the mean shift and each direction with its share and the words at both ends."""
        shares = [self.mean_shift_share, *self.shares]
        rank = "" if self.rank is None else f", effective rank {number(self.rank.value)}"
        cells = []
        for place, share in enumerate(shares):
            if share is not None:
                ends = {way: [e.word for e in self.ends if (e.direction, e.end) == (place, way)] for way in ENDS}
                words = [", ".join(ends[way][:5]) for way in ENDS]
                name = f"direction {place}" if place else "mean shift"
                cells.append([name, number(share.value), interval(share.low, share.high), *words])
        head = f"change in layer {self.layer}: {self.n:,} stimuli{rank}"
        return head, ["", "share", "95 % interval", *(f"{way} end" for way in ENDS)], cells


def directions_of_layer(
    change: Change, groups: Tensor, sampled: Tensor, *, sentences: int, k: int = 3, layer: int = 0
) -> LayerDirections:
    """Return the directions of a change with their intervals.

    Args:
        change: moments over all stimuli.
        groups: (R,) the text of each sampled stimulus, numbered from 0.
        sampled: (R, D) the changes of the sampled stimuli.
        sentences: number of all texts.
        k: number of directions.
        layer: the layer's number.
    """
    values, vectors = torch.linalg.eigh(change.covariance)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1).mT[:k]
    c = sampled.double() - change.mean
    projected = c @ vectors.mT
    vectors = vectors * torch.where((projected**3).sum(0) < 0, -1.0, 1.0).double().unsqueeze(1)
    spread, shift = float(change.covariance.trace()), float(change.mean @ change.mean)
    of_spread = (c * c).sum(1) - spread
    counts: dict[str, Any] = {"stimuli": change.n, "sentences": sentences}
    moved = rank = None
    shares: list[Interval] = []
    if (total := spread + shift) > 0:
        influence = (2 * spread * (c @ change.mean) - shift * of_spread) / total**2
        moved = share_interval(shift / total, influence, groups, **counts)
    if spread > 0:
        squares = float(change.covariance.square().sum())
        of_squares = 2 * (((c @ change.covariance) * c).sum(1) - squares)
        influence = (2 * spread * of_spread - spread**2 / squares * of_squares) / squares
        rank = positive_interval(spread**2 / squares, influence, groups, **counts)
        for value, along in zip(values[:k].tolist(), projected.unbind(1), strict=True):
            influence = (along.square() - value - value / spread * of_spread) / spread
            shares.append(share_interval(value / spread, influence, groups, **counts))
    return LayerDirections(
        layer, change.n, total, moved, rank, tuple(shares), values, change.mean, vectors[: len(shares)]
    )


def directions_of_change(
    base: Encoder,
    tuned: Mapping[str, Encoder],
    texts: Sequence[Any],
    *,
    k: int = 3,
    draw: Draw = Draw(),  # noqa: B008 - frozen
    sample: int = 5000,
    extremes: int = 10,
    progress: Progress = SILENT,
) -> dict[str, list[LayerDirections]]:
    """Return the directions along which each tuned encoder left the base, layer by layer, with their words.

    One pass of each encoder keeps sums, (L, D, D) float64 for each tuned encoder, and a random sample of whole texts.

    Args:
        base: the encoder before fine-tuning.
        tuned: encoders by name, of the same width, made from the base. Layers are compared as far as both have them.
        texts: as in `bertft.similarity.compare_encoders`.
        k: number of directions, at most `bertft.runs.catalogue.DIRECTIONS`.
        draw: which stimuli of the texts to take.
        sample: stimuli in the sample behind intervals and words.
        extremes: different words at either end of a direction.
        progress: receives the step.

    Raises:
        BertftError: Widths or tokenizers differ, or there are fewer than 2 texts.
    """
    if not 1 <= k <= DIRECTIONS:
        raise BertftError(f"directions: expected 1 to {DIRECTIONS} directions, found {k}")
    for name, encoder in tuned.items():
        check_widths("the base", base.dim, name, encoder.dim)
    stimuli = Stimuli("directions", base, tuned, texts, draw)
    sums, reservoir = {name: ChangeSums() for name in tuned}, Reservoir(sample, draw.seed)
    with progress.step("directions", total=len(stimuli), unit=f"{draw.unit}s") as step, torch.inference_mode():
        for index, lengths, (first, *others) in stimuli.batches():
            changed = []
            for added, space in zip(sums.values(), others, strict=True):
                layers = min(len(first), len(space))
                changed.append(added.update(first[:layers], space[:layers]).float())
            reservoir.offer(index, lengths, *changed)
            step.advance(int(lengths.sum()))
    groups, sampled = reservoir.contents()
    words = _Words(stimuli, reservoir)
    found: dict[str, list[LayerDirections]] = {name: [] for name in tuned}
    for name, changes in zip(tuned, sampled, strict=True):
        for layer, change in enumerate(sums[name].changes()):
            one = directions_of_layer(change, groups, changes[layer], sentences=len(stimuli.counts), k=k, layer=layer)
            found[name].append(words.with_ends(one, changes[layer], extremes))
    return found


class _Words:
    """The words of the sampled stimuli; ``places`` are the text and the place in it of each."""

    def __init__(self, stimuli: Stimuli, sample: Reservoir) -> None:
        self.stimuli = stimuli
        self.places = [(text, at) for text, n in zip(sample.ids, sample.counts, strict=True) for at in range(n)]
        self.words = [stimuli.word(*place) for place in self.places]
        numbers: dict[str, int] = {}
        self.codes = torch.tensor([numbers.setdefault(word.lower(), len(numbers)) for word in self.words])
        self.counts = torch.bincount(self.codes)

    def with_ends(self, one: LayerDirections, sampled: Tensor, count: int) -> LayerDirections:
        """Return ``one`` with the ``count`` words at both ends of its mean shift and of each direction."""
        axes, starts = [*one.vectors], [one.mean] * len(one.vectors)
        numbers = list(range(1, len(axes) + 1))
        if (norm := one.mean.norm()) > 0:
            axes, starts = [one.mean / norm, *axes], [torch.zeros_like(one.mean), *starts]
            numbers = [MEAN, *numbers]
        ends = []
        for direction, axis, start in zip(numbers, axes, starts, strict=True):
            values = (sampled.double() - start) @ axis
            means = torch.bincount(self.codes, values) / self.counts
            for end, order in (
                ("high", values.argsort(descending=True, stable=True)),
                ("low", values.argsort(stable=True)),
            ):
                for i in self._distinct(order, count):
                    text, place = self.places[i]
                    named = self.words[i], self.stimuli.names[text], self.stimuli.context(text, place)
                    code = int(self.codes[i])
                    ends.append(
                        End(direction, end, float(values[i]), *named, int(self.counts[code]), float(means[code]))
                    )
        return replace(one, ends=tuple(ends))

    def _distinct(self, order: Tensor, count: int) -> list[int]:
        """Return the first ``count`` places of ``order`` whose words differ."""
        first: dict[int, int] = {}
        for i, code in zip(order.tolist(), self.codes[order].tolist(), strict=True):
            if len(first) == count:
                break
            first.setdefault(code, i)
        return list(first.values())


def rows_of_directions(found: Mapping[str, Sequence[LayerDirections]], data: str, seed: int | None = None) -> list[Row]:
    """Return the rows of `directions_of_change`. A layer that did not change has none."""
    rows = []
    for name, layers in found.items():
        for one in layers:
            named = {"mean_shift_share": one.mean_shift_share, "direction_rank": one.rank}
            named |= {str(MeasureName.direction_share(j)): share for j, share in enumerate(one.shares, start=1)}
            rows += [
                Row(name, TASK, data, one.layer, measure, e.value, e.low, e.high, one.n, seed)
                for measure, e in named.items()
                if e is not None
            ]
    return rows
