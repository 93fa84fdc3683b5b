"""What is measured between a base encoder and tuned ones, accumulated batch by batch: sums, a reservoir, rows."""

from __future__ import annotations

import itertools
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.ops.metrics import COMPARISONS, LINEAR, METRICS
from bertft.runs.progress import SILENT, Progress
from bertft.runs.rows import Row
from bertft.similarity import measures
from bertft.similarity.augmented_rows import augment
from bertft.similarity.compare import all_pairs as sampled
from bertft.similarity.influence import (
    Interval,
    angle_interval,
    anisotropy_influence,
    augmented_rows,
    cka_influence,
    clustered_difference,
    clustered_interval,
    dimension_influence,
    entries,
    positive_interval,
    rsa_influence,
    scatter_influence,
    shape_influence,
)
from bertft.similarity.moments import CrossMoments
from bertft.similarity.pairwise_rsa import LARGEST
from bertft.similarity.reservoir import Reservoir

SCATTER = ("cca", "svcca", "pwcca", "procrustes", "shape_distance", "linear_r2")
WHITENED = {"cca", "pwcca", "linear_r2"}  # what depends on directions of little variance, which float32 products blur
SPACES = ("effective_dimension", "anisotropy")  # of each encoder alone
PAIRS = ("mutual_knn", "cka_rbf")  # of the sampled stimuli
MEASURES = ("rsa", "cka", *SCATTER, *SPACES, *PAIRS)


@dataclass(frozen=True)
class Plan:
    """Which similarities are measured.

    ``metrics`` and ``compares`` make the kinds of RSA: dot, cosine, correlation and sqeuclidean under pearson or cosine
    are exact over all stimuli, all others are taken on the ``sample``. ``measures`` are some of `MEASURES`. ``sample``
    is the size of the random sample of whole sentences that intervals and measures over pairs rest on. ``all_layers``
    also sets every layer of the base against every layer of a tuned encoder, for what is exact over all stimuli.
    ``float64`` takes the sums' products in float64, as cca, pwcca and linear_r2 do anyway. ``permutations`` of the
    sampled sentences make a Mantel test (`bertft.similarity.rsa`) of each kind of RSA but kendall; 0 for none.
    """

    metrics: tuple[str, ...] = ("cosine",)
    compares: tuple[str, ...] = ("pearson",)
    measures: tuple[str, ...] = ("rsa", "cka")
    intervals: bool = True
    sample: int = 5000
    seed: int = 0
    all_layers: bool = False
    float64: bool = False
    permutations: int = 0

    def __post_init__(self) -> None:
        for name, chosen, allowed in (
            ("metric", self.metrics, METRICS),
            ("compare", self.compares, COMPARISONS),
            ("measures", self.measures, MEASURES),
        ):
            for entry in chosen or ("",):
                if entry not in allowed:
                    raise BertftError(f"similarity: {name} must be one of {', '.join(allowed)}, found {entry!r}")
        if self.sample < 4:
            raise BertftError(f"similarity: sample must be at least 4, found {self.sample}")
        if self.permutations < 0:
            raise BertftError(f"similarity: permutations must be at least 0, found {self.permutations}")
        if self.permutations and self.sample > LARGEST:
            raise BertftError(
                f"similarity: permutations take a sample of at most {LARGEST} stimuli, found {self.sample} (--sample)"
            )
        if self.permutations and not self.tested:
            raise BertftError(
                "similarity: permutations test rsa by pearson, cosine, spearman or rho_a, which the measures lack "
                "(--measures, --compare)"
            )

    @property
    def streamed(self) -> list[tuple[str, str]]:
        """The kinds of RSA that are exact over all stimuli, as (metric, compare)."""
        return [kind for kind in self._kinds if kind[0] in LINEAR and kind[1] in ("pearson", "cosine")]

    @property
    def pairwise(self) -> list[tuple[str, str]]:
        """The kinds of RSA that need every pair: of the sampled stimuli."""
        return [kind for kind in self._kinds if kind not in self.streamed]

    @property
    def tested(self) -> list[tuple[str, str]]:
        """The kinds of RSA whose relation is tested by permutation, on the sampled stimuli."""
        return [kind for kind in self._kinds if kind[1] != "kendall"] if self.permutations else []

    @property
    def over_pairs(self) -> bool:
        """Whether anything needs the pairs of the sampled stimuli."""
        return bool(self.pairwise or self.tested or set(PAIRS) & set(self.measures))

    @property
    def _kinds(self) -> list[tuple[str, str]]:
        if "rsa" not in self.measures:
            return []
        return list(dict.fromkeys(itertools.product(self.metrics, self.compares)))

    @property
    def preparations(self) -> list[str]:
        """The metrics whose sums are needed."""
        wanted = [metric for metric, _ in self.streamed]
        if "anisotropy" in self.measures:
            wanted.append("cosine")
        raw = {"cka", "effective_dimension", *SCATTER} & set(self.measures)
        if (raw and not {"dot", "sqeuclidean"} & set(wanted)) or not wanted:
            wanted.append("dot")
        return list(dict.fromkeys(wanted))

    def in_float64(self, metric: str) -> bool:
        """Whether the products of this metric's sums are taken in float64."""
        return self.float64 or (bool(WHITENED & set(self.measures)) and metric == self.of_raw_rows)

    @property
    def of_raw_rows(self) -> str:
        """The metric whose sums serve what is measured on raw vectors."""
        return next(metric for metric in self.preparations if metric in ("dot", "sqeuclidean"))


class _Streamed(NamedTuple):
    name: str
    metric: str  # whose sums it takes
    values: Callable[[CrossMoments], Tensor]
    influence: Callable[[CrossMoments, int, Tensor, Tensor], Tensor]
    interval: Callable[..., Interval] = clustered_interval


def _influence(function: Callable[..., Tensor], m: CrossMoments, k: int, x: Tensor, y: Tensor) -> Tensor:
    return function(m.moments(k, k), *augmented_rows(m, k, x, y))


def _of_scatter(measure: str, m: CrossMoments, k: int, x: Tensor, y: Tensor) -> Tensor:
    function = getattr(measures, measure)
    settings = {} if measure == "procrustes" else {"noise": m.noise}
    return _influence(partial(scatter_influence, partial(function, **settings)), m, k, x, y)


class Comparison:
    """Sums and reservoir of a base encoder beside tuned ones.

    ``layers`` holds the base's number of layers and each tuned encoder's; layer k is compared with layer k as far as
    both have it.
    """

    def __init__(self, plan: Plan, layers: Mapping[str, tuple[int, int]]) -> None:
        self.plan, self.layers = plan, {name: min(both) for name, both in layers.items()}
        self.sums = {
            name: {
                metric: CrossMoments(*both, metric, "all", float64=plan.in_float64(metric))
                if plan.all_layers
                else CrossMoments(min(both), min(both), metric, float64=plan.in_float64(metric))
                for metric in plan.preparations
            }
            for name, both in layers.items()
        }
        self.reservoir = Reservoir(plan.sample, plan.seed)
        self.sentences = 0

    def __len__(self) -> int:
        """Stimuli so far."""
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
        """Add a batch: examples ``index`` (S,) of ``lengths`` (S,), and of the base and each tuned encoder (L, T, D).

        A row that is not finite or has no direction is a BertftError that names encoder, layer, ``text`` (of its index)
        and the row: of a text that was cut into windows, its row in its window.
        """
        try:
            self._feed(spaces, CrossMoments.update)
        except BertftError as error:

            def place(found: re.Match[str]) -> str:
                row, ends = int(found[1]), lengths.cumsum(0)
                which = int(torch.searchsorted(ends, row, right=True))
                return f"row {row - int(ends[which] - lengths[which])} of {text(int(index[which]))}, in {found[2]},"

            raise BertftError(re.sub(r"row (\d+) of ([xy])", place, str(error), count=1)) from None
        self.reservoir.offer(index, lengths, *spaces)

    def _feed(self, spaces: Sequence[Tensor], method: Callable[[CrossMoments, Tensor, Tensor], object]) -> None:
        for (name, table), space in zip(self.sums.items(), spaces[1:], strict=True):
            for moments in table.values():
                try:
                    method(moments, spaces[0][: moments.layers_x], space[: moments.layers_y])
                except BertftError as error:
                    raise BertftError(f"similarity: base (x) and {name} (y): {error}") from None

    def rows(self, data: str, *, progress: Progress = SILENT) -> list[Row]:
        """Every measure of every pair and layer, and with several tuned encoders their differences."""
        total, plan = len(self), self.plan
        if plan.intervals and self.sentences < 2:
            raise BertftError(f"similarity: needs at least 2 texts for an interval, found {self.sentences} in {data}")
        needed = plan.intervals or plan.over_pairs
        nothing = torch.zeros(0)
        groups, kept = self.reservoir.contents() if needed else (nothing, [nothing] * (len(self.sums) + 1))
        rows: list[Row] = []
        crossed: list[Row] = []
        influences: dict[str, dict[tuple[str, int], tuple[float, Tensor]]] = {}
        for (name, table), space in zip(self.sums.items(), kept[1:], strict=True):
            found: dict[tuple[str, int], tuple[float, Tensor]] = {}
            for measure in self._streamed():
                values = measure.values(table[measure.metric])
                for layer in (~values.isfinite()).nonzero()[:1].tolist():
                    raise BertftError(
                        f"{measure.name} of {name} at layer {layer[-1]} on {data}: all dissimilarities are equal"
                    )
                if plan.all_layers:
                    crossed += self._crossed(name, data, measure.name, values)
                    values = values.diagonal()
                for layer, value in enumerate(values.tolist()):
                    low = high = None
                    if plan.intervals:
                        influence = measure.influence(table[measure.metric], layer, kept[0][layer], space[layer])
                        found[measure.name, layer] = value, influence
                        size = {"stimuli": total, "sentences": self.sentences}
                        low, high = _ends(measure.interval(value, influence, groups, **size))
                    rows.append(
                        Row(name, _task(measure.name), data, layer, measure.name, value, low, high, total, plan.seed)
                    )
            influences[name] = found
        rows += self._of_spaces(data, groups, kept)
        if plan.intervals:
            rows += self._differences(influences, groups, data)
        if plan.over_pairs:
            tuned = dict(zip(self.layers, kept[1:], strict=True))
            rows += sampled.rows(data, plan, groups, kept[0], tuned, progress=progress)
        return rows + crossed

    def _crossed(self, name: str, data: str, measure: str, values: Tensor) -> Iterator[Row]:
        """``<measure>_base<l>`` at layer k: layer k of the tuned encoder against layer l of the base."""
        for of_base, of_tuned in enumerate(values.tolist()):
            for layer, value in enumerate(of_tuned):
                named = f"{measure}_base{of_base}"
                yield Row(name, "heatmap", data, layer, named, value, n=len(self), seed=self.plan.seed)

    def _streamed(self) -> Iterator[_Streamed]:
        """The measures that follow from sums, in the order of the plan."""
        for measure in self.plan.measures:
            if measure == "rsa":
                for metric, compare in self.plan.streamed:
                    yield _rsa(metric, compare)
            elif measure == "cka":
                yield _Streamed(
                    "cka_debiased", self.plan.of_raw_rows, lambda m: m.cka(debiased=True),
                    partial(_influence, cka_influence),
                )  # fmt: skip
            elif measure == "shape_distance":
                yield _Streamed(
                    measure, self.plan.of_raw_rows, operator.methodcaller(measure),
                    partial(_influence, shape_influence), angle_interval,
                )  # fmt: skip
            elif measure in SCATTER:
                yield _Streamed(
                    measure, self.plan.of_raw_rows, operator.methodcaller(measure), partial(_of_scatter, measure)
                )

    def _of_spaces(self, data: str, groups: Tensor, kept: Sequence[Tensor]) -> list[Row]:
        """Measures of single spaces: the base's once, then each tuned encoder's."""
        rows: dict[tuple[str, str, int], Row] = {}
        size = {"stimuli": len(self), "sentences": self.sentences}
        for measure in (m for m in SPACES if m in self.plan.measures):
            cosine = measure == "anisotropy"
            metric = "cosine" if cosine else self.plan.of_raw_rows
            influence_of, interval = (
                (anisotropy_influence, clustered_interval) if cosine else (dimension_influence, positive_interval)
            )
            for (name, table), space in zip(self.sums.items(), kept[1:], strict=True):
                m = table[metric]
                for side, (model, values) in enumerate(zip(("base", name), getattr(m, measure)(), strict=True)):
                    for layer, value in enumerate(values.tolist()):
                        if (measure, model, layer) in rows:
                            continue
                        low = high = None
                        if self.plan.intervals:
                            other = layer if m.pairs == "diagonal" else 0  # any layer of the other space will do
                            pair = (layer, other) if side == 0 else (other, layer)
                            z = augment((kept[0], space)[side][layer], m.means(*pair)[side], metric)
                            influence = influence_of(m.moments(*pair), z, side)
                            _, low, high, _ = interval(value, influence, groups, **size)
                        row = Row(
                            model, "similarity", data, layer, measure, value, low, high, len(self), self.plan.seed
                        )
                        rows[measure, model, layer] = row
        return list(rows.values())

    def _differences(
        self, influences: Mapping[str, Mapping[tuple[str, int], tuple[float, Tensor]]], groups: Tensor, data: str
    ) -> Iterator[Row]:
        """First minus second of each two tuned encoders, measure by measure, with the paired interval."""
        size = {"stimuli": len(self), "sentences": self.sentences}
        for first, second in itertools.combinations(influences, 2):
            for measure, layer in influences[first]:
                if (measure, layer) in influences[second]:
                    (a, of_a), (b, of_b) = influences[first][measure, layer], influences[second][measure, layer]
                    of_both = clustered_difference(a, b, (of_a, of_b), groups, **size)
                    value, (low, high) = of_both.value, _ends(of_both)
                    if measure == "shape_distance" and max(a, b) < measures.SHAPE_FLOOR:
                        low = high = None
                    yield Row(
                        f"{first} - {second}", "difference", data, layer, measure, value, low, high,
                        len(self), self.plan.seed,
                    )  # fmt: skip


def _rsa(metric: str, compare: str) -> _Streamed:
    def influence(m: CrossMoments, k: int, x: Tensor, y: Tensor) -> Tensor:
        form = entries(m, k) if compare == "cosine" else None
        return rsa_influence(m.moments(k, k), *augmented_rows(m, k, x, y), form)

    return _Streamed(f"rsa_{metric}_{compare}", metric, lambda m: m.rsa(compare), influence)


def _ends(interval: Interval) -> tuple[float | None, float | None]:
    """The ends of an interval, None for both where there is none."""
    return (None, None) if math.isnan(interval.low) else (interval.low, interval.high)


def _task(measure: str) -> str:
    """RSA and CKA are what the report draws; the others stand in the table only."""
    return "rsa" if measure.startswith(("rsa_", "cka_")) else "similarity"
