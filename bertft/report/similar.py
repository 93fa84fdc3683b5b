"""Similarity of tuned encoders to their base, as a page and a verdict quote it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from bertft.report.lines import Context, Line, apart, lines, number
from bertft.runs.rows import Row
from bertft.runs.vocabulary import pair

HARDLY = 0.0005  # a loss of similarity that three digits do not show


def is_rsa(line: Line) -> bool:
    """Return whether a line is RSA itself, not derived from it."""
    return line.name.measure.family == "RSA" and line.name.derived is None


def reference(similar: Sequence[Line], model: str, context: Context) -> Line | None:
    """Return the line to report: on text of no task if there is one, else on the task's own, else on any."""
    of_model = [line for line in similar if line.model == model]
    order = ("out", "own", "other")
    return min(of_model, key=lambda line: order.index(context.relation(model, line.data)), default=None)


def derived(rows: Sequence[Row], line: Line, kind: Any) -> Line | None:
    """Return what is derived from a measure of the same encoder and text, such as its ``null``; None if absent."""
    name = str(dataclasses.replace(line.name, derived=kind))
    own = [row for row in rows if (row.model, row.data, row.measure) == (line.model, line.data, name)]
    return next((found for task in dict.fromkeys(row.task for row in own) for found in lines(own, task)), None)


def half(line: Line) -> int:
    """Return the position of the first layer at which half of the largest change is reached."""
    lost = [1 - value for value in line.values]
    return next(i for i, loss in enumerate(lost) if loss >= max(lost) / 2)


def is_lower(rows: Sequence[Row], line: Line, at: int, other: Line, there: int) -> bool:
    """Return whether one similarity is surely below another.

    On the same layer the interval of the paired difference decides if there is one, else the two intervals.
    """
    if line.layers[at] == other.layers[there]:
        for name, sign in ((pair(line.model, other.model), 1), (pair(other.model, line.model), -1)):
            own = (name, line.data, line.measure, line.layers[at], "difference")
            row = next((r for r in rows if (r.model, r.data, r.measure, r.layer, r.task) == own), None)
            if row is not None and row.low is not None and row.high is not None:
                return row.high < 0 if sign == 1 else row.low > 0
    return line.values[at] < other.values[there] and apart(line, at, other, there) is not False


def scale(null: Line | None, layer: int) -> str:
    """Return what the ends of the scale mean: in this text, if there is a null."""
    there = None if null is None else null.at(layer)
    if null is None or there is None:
        return "1 = the same"
    high = null.highs[there]
    bound = "" if high is None else f", at most {number(high)}"
    return f"1 = the same; unrelated texts {number(null.values[there])}{bound}"
