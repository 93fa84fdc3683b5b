"""Lines over layers, read from a results table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bertft.runs.rows import Row
from bertft.runs.vocabulary import BASE, PAIRED, RANDOM, MeasureName, is_noise


@dataclass(frozen=True)
class Line:
    """One measure of one encoder on one text, by layer. ``lows`` and ``highs`` are None without an interval."""

    model: str
    data: str
    measure: str
    layers: tuple[int, ...]
    values: tuple[float, ...]
    lows: tuple[float | None, ...]
    highs: tuple[float | None, ...]
    n: tuple[int | None, ...]

    @property
    def name(self) -> MeasureName:
        """Return the parts of the measure's name."""
        return MeasureName.parse(self.measure)

    def lowest(self) -> int:
        """Return the position of the smallest value."""
        return min(range(len(self.values)), key=self.values.__getitem__)

    def highest(self) -> int:
        """Return the position of the largest value."""
        return max(range(len(self.values)), key=self.values.__getitem__)

    def at(self, layer: int) -> int | None:
        """Return the position of a layer, or None."""
        return self.layers.index(layer) if layer in self.layers else None


@dataclass(frozen=True)
class Context:
    """Facts from the configuration: the order of the encoders and the text of each encoder's task."""

    models: tuple[str, ...]
    own_text: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tuned(self) -> tuple[str, ...]:
        """Return the encoders without the base, the random one and those of noise."""
        return tuple(model for model in self.models if model not in (BASE, RANDOM) and not is_noise(model))

    def relation(self, model: str, data: str) -> str:
        """Return ``own`` for the text of the encoder's task, ``other`` for another task's, ``out`` for any other."""
        if self.own_text.get(model) == data:
            return "own"
        return "other" if data in self.own_text.values() else "out"


def context(config: Mapping[str, Any], rows: Iterable[Row]) -> Context:
    """Return the context of a run: base first, then the study's tasks, then any others, the random encoder last.

    Two tasks that share a dev file share one text, which has the name of the first.
    """
    tasks = config.get("tasks") or {}
    seen = list(dict.fromkeys(row.model for row in rows if row.task not in PAIRED))
    order = [name for name in (BASE, *tasks, *seen) if name in seen and name != RANDOM]
    own: dict[str, str] = {}
    first: dict[tuple[str, str], str] = {}
    for name, task in tasks.items():
        own[name] = first.setdefault((str(task.get("task") or name), str(task.get("dev"))), name)
    models = (*dict.fromkeys(order), *([RANDOM] if RANDOM in seen else []))
    return Context(models, own, config)


def lines(rows: Iterable[Row], task: str) -> list[Line]:
    """Return every line of one analysis (``rsa``, ``structural``, ...) in the order of the table, layers ascending."""
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
    """Return ``0.412 [0.380, 0.444]``, or only the value without an interval."""
    text = f"{value:.{digits}f}"
    return text if low is None or high is None else f"{text} [{low:.{digits}f}, {high:.{digits}f}]"


def score(row: Row) -> str:
    """Return a row's value and interval: one digit for a percentage, three otherwise."""
    return number(row.value, row.low, row.high, 1 if MeasureName.parse(row.measure).percent else 3)


def point(line: Line, position: int, digits: int = 3) -> str:
    """Return a line's value and interval at a position."""
    return number(line.values[position], line.lows[position], line.highs[position], digits)


def apart(line: Line, position: int, other: Line, other_position: int) -> bool | None:
    """Return whether two intervals are disjoint; None if either is missing."""
    low, high = line.lows[position], line.highs[position]
    other_low, other_high = other.lows[other_position], other.highs[other_position]
    if low is None or high is None or other_low is None or other_high is None:
        return None
    return high < other_low or other_high < low


def count(lines: Sequence[Line]) -> str:
    """Return how many items the lines are measured on: ``n = 5,000``, a range, or nothing."""
    found = sorted({n for line in lines for n in line.n if n is not None})
    if not found:
        return ""
    return f"n = {found[0]:,}" if found[0] == found[-1] else f"n = {found[0]:,} to {found[-1]:,}"
