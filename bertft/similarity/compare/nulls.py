"""Null of every measure: its values when texts trade places.

A similarity of 0.4 says little unless one knows what unrelated texts would score. Texts of a sample trade places
(`bertft.similarity.traded_texts`), so that base and tuned encoder read different texts, while every token keeps its
position. What is left is what position and frequency alone give, and the bias of the measure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.runs.progress import SILENT, Progress
from bertft.runs.rows import Row
from bertft.runs.vocabulary import Derived, MeasureName
from bertft.similarity.compare.null_values import values
from bertft.similarity.compare.plan import Plan
from bertft.similarity.compare.streamed import task_of
from bertft.similarity.traded_texts import LEAST, TradedTexts

TASK = "null"  # of the rows
LEVEL = 0.95
SCALE = 1e-6  # smallest distance of a null from equal spaces that a value can be put on a scale by


Known = Mapping[tuple[object, ...], Row]


class Nulls(NamedTuple):
    """Values of one measure: ``own`` (L,) of the stimuli in their places, ``traded`` (L, K) of K derangements."""

    own: np.ndarray
    traded: np.ndarray


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

    All layers and measures share the derangements. Of each measure there are three kinds of rows of the task ``null``:

    - ``<measure>_null`` by layer: the mean, with the one-sided 95 % bound as ``high``: the k-th of K values with
      k = 0.95 (K + 1), rounded up. ``shape_distance`` has its bound as ``low``.
    - ``<measure>_null_max``, of no layer: the same of the largest value over layers (of the smallest distance).
    - ``<measure>_calibrated`` by layer: (value - mean) / (equal - mean) with ``equal`` the measure of equal spaces (1;
      0 for a distance). It is 0 for unrelated spaces and 1 for equal ones. RSA and debiased CKA, whose expectation does
      not depend on the number of stimuli, take the value and the interval of ``known``. The value of any other measure
      is that of the stimuli of the null, without an interval. There is no row if unrelated spaces score like equal
      ones, as in CCA with fewer stimuli than dimensions.

    Args:
        data: name of the texts in the rows.
        plan: the measures.
        groups: (R,) texts of the sampled stimuli.
        base: (L, R, D) vectors of the base.
        tuned: (M, R, E) vectors of each tuned encoder.
        known: rows with the measures' values, by `Row.key`.
        noise: share of variance below which CCA and its relatives leave out a direction.
        progress: receives a step per encoder, and a message if fewer than `LEAST` texts could trade places.
    """
    texts = TradedTexts(groups, plan.seed)
    if not len(texts):
        progress.say(f"{data}: no null, expected at least {LEAST} sampled texts, found {int(groups.max()) + 1}")
        return []
    orders = [torch.arange(len(texts)), *texts.derangements(plan.null)]
    table: list[Row] = []
    for name, space in tuned.items():
        with progress.step(f"null of {name}", total=min(len(base), len(space)), unit="layers") as step:
            measured: dict[str, list[list[float]]] = {}
            for x, y in zip(base[:, texts.kept], space[:, texts.kept], strict=False):
                of_layer = dict(values(plan, x, y, noise))
                drawn = [[value(order) for value in of_layer.values()] for order in orders]
                for measure, column in zip(of_layer, zip(*drawn, strict=True), strict=True):
                    measured.setdefault(measure, []).append(list(column))
                step.advance()
        for measure, by_layer in measured.items():
            numbers = np.asarray(by_layer)
            if not np.isfinite(numbers).all():
                raise BertftError(f"null of {measure} of {name} on {data}: all dissimilarities are equal")
            null = Nulls(numbers[:, 0], numbers[:, 1:])
            head = Row(name, TASK, data, None, measure, 0.0, n=len(texts), seed=plan.seed)
            table += _of_measure(head, null, known)
    return table


def _of_measure(head: Row, null: Nulls, known: Known) -> list[Row]:
    """Return the rows of one measure of one encoder; ``head`` has what they share, with the measure's own name."""
    distance = MeasureName.parse(head.measure).kind == "distance"
    sign = -1.0 if distance else 1.0
    table = [_bounded(head, "null", layer, row, sign) for layer, row in enumerate(null.traded)]
    table.append(_bounded(head, "null_max", None, sign * (sign * null.traded).max(0), sign))
    for layer, (own, zero) in enumerate(zip(null.own.tolist(), null.traded.mean(1).tolist(), strict=True)):
        whole = known.get(replace(head, layer=layer, task=task_of(head.measure)).key)
        row = replace(head, layer=layer, measure=_named(head.measure, "calibrated"), value=own)
        if whole is not None and of_any_number(head.measure):
            row = replace(row, value=whole.value, low=whole.low, high=whole.high, n=whole.n)
        equal = 0.0 if distance else 1.0
        if abs(equal - zero) > SCALE:
            table.append(_calibrated(row, zero, equal))
    return table


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


def _calibrated(row: Row, zero: float, equal: float) -> Row:
    scaled = lambda value: None if value is None else (value - zero) / (equal - zero)
    value, low, high = (scaled(number) for number in (row.value, row.low, row.high))
    assert value is not None
    return replace(row, value=value, low=low, high=high)
