"""Null of every measure: its values when texts trade places.

A similarity of 0.4 says little unless one knows what unrelated texts would score. Texts of a sample trade places
(`bertft.similarity.traded_texts`), so that base and tuned encoder read different texts, while every token keeps its
position. What is left is what position and frequency alone give, and the bias of the measure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.runs.progress import SILENT, Progress
from bertft.runs.rows import Row
from bertft.runs.vocabulary import Derived, MeasureName, is_noise
from bertft.similarity.compare.calibration import Tie, calibrated, tie
from bertft.similarity.compare.null_values import Value, values
from bertft.similarity.compare.plan import Plan
from bertft.similarity.compare.streamed import task_of
from bertft.similarity.traded_texts import LEAST, TradedTexts

TASK = "null"  # of the rows
LEVEL = 0.95
SCALE = 1e-6  # smallest distance of a null from equal spaces that a value can be put on a scale by


Known = Mapping[tuple[object, ...], Row]


class Nulls(NamedTuple):
    """Values of one measure: ``own`` (L,) of the stimuli in their places, ``traded`` (L, K) of K derangements.

    ``ties`` are those of each layer, None where the measure has none.
    """

    own: np.ndarray
    traded: np.ndarray
    ties: Sequence[Tie | None]

    def zero(self, layer: int, value: float, share: float) -> tuple[float, Tie | None]:
        """Return the mean beside ``value`` of all stimuli, and its tie with the error of a mean of K added.

        ``share`` is the share of the stimuli in the sample.
        """
        drawn, found = self.traded[layer], self.ties[layer]
        mean = float(drawn.mean())
        if found is None:
            return mean, None
        error = math.hypot(found.error, float(drawn.std(ddof=1)) / math.sqrt(len(drawn)))
        return found.null_beside(value, float(self.own[layer]), mean, share), found._replace(error=error)


def rows(
    data: str,
    plan: Plan,
    groups: Tensor,
    base: Tensor,
    tuned: Mapping[str, Tensor],
    known: Known,
    *,
    noise: float = 0.0,
    progress: Progress = SILENT,
) -> list[Row]:
    """Return the null of each measure of ``plan`` that compares two encoders, from ``plan.null`` derangements.

    All layers and measures share the derangements. Each measure has three kinds of rows of the task ``null``:

    - ``<measure>_null`` by layer: the mean, with the one-sided 95 % `upper_bound` as ``high`` (``low`` of a distance).
      RSA and debiased CKA carry theirs over to all stimuli (`bertft.similarity.compare.calibration`).
    - ``<measure>_null_max``, of no layer: the same of the largest value over layers (of the smallest distance).
    - ``<measure>_calibrated`` by layer: (value - mean) / (equal - mean) with ``equal`` the measure of equal spaces (1;
      0 for a distance). RSA and debiased CKA take value and interval of ``known``, any other measure the value of the
      sample without an interval. No row if unrelated spaces score like equal ones, as in CCA with few stimuli.

    Args:
        data: name of the texts.
        plan: the measures.
        groups: (R,) texts of the sampled stimuli.
        base: (L, R, D) vectors of the base.
        tuned: (M, R, E) vectors of each tuned encoder.
        known: rows with the measures' values, by `Row.key`.
        noise: share of variance below which CCA and its relatives leave out a direction.
        progress: receives a step per encoder, and a message if there are fewer than `LEAST` texts.
    """
    groups, base, tuned = _wanted(plan, groups, base, tuned)
    if not len(texts := TradedTexts(groups, plan.seed)):
        progress.say(f"{data}: no null, expected at least {LEAST} sampled texts, found {int(groups.max()) + 1}")
        return []
    orders, table = [torch.arange(len(texts)), *texts.derangements(plan.null)], list[Row]()
    for name, space in tuned.items():
        measured: dict[str, list[tuple[list[float], Tie | None]]] = {}
        for x, y in _shown(progress, f"null of {name}", base[:, texts.kept], space[:, texts.kept]):
            of_layer = dict(values(plan, x, y, noise))
            for measure, column in _values_of(of_layer, orders):
                measured.setdefault(measure, []).append((column, _tie(of_layer[measure], texts)))
        for measure, by_layer in measured.items():
            numbers = np.asarray([column for column, _ in by_layer])
            if not np.isfinite(numbers).all():
                raise BertftError(f"null of {measure} of {name} on {data}: all dissimilarities are equal")
            head = Row(name, TASK, data, None, measure, 0.0, n=len(texts), seed=plan.seed)
            table += _of_measure(head, Nulls(numbers[:, 0], numbers[:, 1:], [found for _, found in by_layer]), known)
    return table


def _wanted(
    plan: Plan, groups: Tensor, base: Tensor, tuned: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
    """Return texts, base and tuned encoders of the stimuli that the plan's null takes."""
    if not plan.null_of_noise:
        tuned = {name: space for name, space in tuned.items() if not is_noise(name)}
    if plan.null_sample is None:
        return groups, base, tuned
    some = _some_texts(groups, plan.null_sample, plan.seed)
    numbered = groups[some].unique(return_inverse=True)[1]
    return numbered, base[:, some], {name: space[:, some] for name, space in tuned.items()}


def _some_texts(groups: Tensor, most: int, seed: int) -> Tensor:
    """Return the places of the stimuli of random texts, as many whole texts as hold at most ``most`` stimuli."""
    lengths = torch.bincount(groups)
    order = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(seed))
    kept = order[lengths[order].cumsum(0) <= most]
    return torch.isin(groups, kept).nonzero()[:, 0]


def _shown(progress: Progress, name: str, *spaces: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield the layers that all spaces have, and report each."""
    with progress.step(name, total=min(map(len, spaces)), unit="layers") as step:
        for layers in zip(*spaces, strict=False):
            yield layers
            step.advance()


def _values_of(of_layer: Mapping[str, Value], orders: Sequence[Tensor]) -> Iterator[tuple[str, list[float]]]:
    """Yield each measure with its values under ``orders``, all measures of one order before those of the next."""
    drawn = [[value(order) for value in of_layer.values()] for order in orders]
    for measure, column in zip(of_layer, zip(*drawn, strict=True), strict=True):
        yield measure, list(column)


def _tie(value: Value, texts: TradedTexts) -> Tie | None:
    found = None if value.influences is None else tie(*value.influences(texts), texts.owner)
    return found if found is None or value.shifts is None else found._replace(shifts=value.shifts(texts))


def _of_measure(head: Row, null: Nulls, known: Known) -> list[Row]:
    """Return the rows of one measure of one encoder; ``head`` has what they share, with the measure's own name."""
    distance = MeasureName.parse(head.measure).kind == "distance"
    sign = -1.0 if distance else 1.0
    traded, of_layers, equal = null.traded.copy(), list[Row](), 0.0 if distance else 1.0
    for layer, own in enumerate(null.own.tolist()):
        whole = known.get(replace(head, layer=layer, task=task_of(head.measure)).key)
        row = replace(head, layer=layer, measure=_named(head.measure, "calibrated"), value=own)
        if whole is not None and of_any_number(head.measure):
            row = replace(row, value=whole.value, low=whole.low, high=whole.high, n=whole.n)
        zero, found = null.zero(layer, row.value, (head.n or 1) / (row.n or 1))
        traded[layer] += zero - traded[layer].mean()
        if abs(equal - zero) > SCALE:
            of_layers.append(calibrated(row, zero, equal, found))
    table = [_bounded(head, "null", layer, row, sign) for layer, row in enumerate(traded)]
    return [*table, _bounded(head, "null_max", None, sign * (sign * traded).max(0), sign), *of_layers]


def of_any_number(measure: str) -> bool:
    """Return whether the expectation of a measure does not depend on the number of stimuli."""
    return measure == "cka_debiased" or MeasureName.parse(measure).measure.family == "RSA"


def _named(measure: str, derived: Derived) -> str:
    return str(replace(MeasureName.parse(measure), derived=derived))


def _bounded(head: Row, derived: Derived, layer: int | None, drawn: np.ndarray, sign: float) -> Row:
    bound = sign * upper_bound(sign * drawn)
    row = replace(head, layer=layer, measure=_named(head.measure, derived), value=float(drawn.mean()))
    return replace(row, high=bound) if sign > 0 else replace(row, low=bound)


def upper_bound(drawn: np.ndarray) -> float:
    """Return the k-th smallest of K values, k = 0.95 (K + 1) rounded up; a further value exceeds it in at most 5 %."""
    return float(np.sort(drawn)[min(len(drawn), math.ceil(LEVEL * (len(drawn) + 1))) - 1])
