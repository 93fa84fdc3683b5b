"""From the tidy table to lines over layers: the one form that figures, tables and the headline are made from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bertft.runs.rows import Row

BASE, RANDOM = "base", "random"
NO_MODEL = ("difference", "along")  # rows of two encoders, of one on its way
PERCENT = {"las_conll18", "uas_conll18", "las_nopunct", "uas_nopunct", "exact_match", "f1"}
"""Measures that run from 0 to 100."""


@dataclass(frozen=True)
class Line:
    """One measure of one encoder on one text, by layer. ``low``/``high`` are None where there is no interval."""

    model: str
    data: str
    measure: str
    layers: tuple[int, ...]
    values: tuple[float, ...]
    lows: tuple[float | None, ...]
    highs: tuple[float | None, ...]
    n: tuple[int | None, ...]

    def lowest(self) -> int:
        """Position of the smallest value."""
        return min(range(len(self.values)), key=self.values.__getitem__)

    def highest(self) -> int:
        """Position of the largest value."""
        return max(range(len(self.values)), key=self.values.__getitem__)

    def at(self, layer: int) -> int | None:
        """Position of a layer, or None."""
        return self.layers.index(layer) if layer in self.layers else None


@dataclass(frozen=True)
class Context:
    """What the run folder's config says about the rows: order of the models and which text is a model's own."""

    models: tuple[str, ...]
    own_text: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tuned(self) -> tuple[str, ...]:
        """The models without the base and the random encoder."""
        return tuple(model for model in self.models if model not in (BASE, RANDOM))

    def relation(self, model: str, data: str) -> str:
        """``own`` text, another task's (``other``), or out of every task's domain (``out``)."""
        if self.own_text.get(model) == data:
            return "own"
        return "other" if data in self.own_text.values() else "out"


def context(config: Mapping[str, Any], rows: Iterable[Row]) -> Context:
    """The models in the order base, the study's tasks, anything else, random; and each task's own text."""
    tasks = config.get("tasks") or {}
    seen = list(dict.fromkeys(row.model for row in rows if row.task not in NO_MODEL))
    order = [name for name in (BASE, *tasks, *seen) if name in seen and name != RANDOM]
    own: dict[str, str] = {}
    first: dict[tuple[str, str], str] = {}
    for name, task in tasks.items():
        own[name] = first.setdefault((str(task.get("task") or name), str(task.get("dev"))), name)
    models = (*dict.fromkeys(order), *([RANDOM] if RANDOM in seen else []))
    return Context(models, own, config)


def lines(rows: Iterable[Row], task: str) -> list[Line]:
    """Every line of one analysis (``rsa``, ``structural``), layers ascending, in the table's order."""
    groups: dict[tuple[str, str, str], dict[int, Row]] = {}
    for row in rows:
        if row.task == task and row.layer is not None:
            groups.setdefault((row.model, row.data, row.measure), {})[row.layer] = row
    found = []
    for (model, data, measure), by_layer in groups.items():
        ordered = [by_layer[layer] for layer in sorted(by_layer)]
        found.append(
            Line(
                model,
                data,
                measure,
                tuple(row.layer for row in ordered if row.layer is not None),
                tuple(row.value for row in ordered),
                tuple(row.low for row in ordered),
                tuple(row.high for row in ordered),
                tuple(row.n for row in ordered),
            )
        )
    return found


def number(value: float, low: float | None = None, high: float | None = None, digits: int = 3) -> str:
    """``0.412 [0.380, 0.444]``, or without the brackets where there is no interval."""
    text = f"{value:.{digits}f}"
    return text if low is None or high is None else f"{text} [{low:.{digits}f}, {high:.{digits}f}]"


def score(row: Row) -> str:
    """A row's value with its interval; scores of 0..100 with one digit, shares with three."""
    return number(row.value, row.low, row.high, 1 if row.measure in PERCENT else 3)


def point(line: Line, position: int) -> str:
    """A line's value at a position, with its interval."""
    return number(line.values[position], line.lows[position], line.highs[position])


def apart(line: Line, position: int, other: Line, other_position: int) -> bool | None:
    """Whether two intervals do not overlap; None where either has none."""
    low, high = line.lows[position], line.highs[position]
    other_low, other_high = other.lows[other_position], other.highs[other_position]
    if low is None or high is None or other_low is None or other_high is None:
        return None
    return high < other_low or other_high < low


def count(lines: Sequence[Line]) -> str:
    """How many items the lines rest on: ``n = 5000``, or a range."""
    found = sorted({n for line in lines for n in line.n if n is not None})
    if not found:
        return ""
    return f"n = {found[0]:,}" if found[0] == found[-1] else f"n = {found[0]:,} to {found[-1]:,}"
