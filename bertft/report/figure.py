"""Descriptions of figures, independent of how they are drawn.

One description serves paper (`draw.paper`), screen (`draw.screen`), the tables of the page and the CSV file.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from bertft.report.lines import Context, Line, count
from bertft.report.palette import SERIES
from bertft.runs.vocabulary import BASE, RANDOM, is_noise


@dataclass(frozen=True)
class Curve:
    """One drawn line. ``slot`` is its colour: a position in the palette, ``ink`` or ``muted``."""

    label: str
    line: Line
    slot: str
    dash: str = "solid"
    emphasis: bool = True


@dataclass(frozen=True)
class Panel:
    """Curves that share their axes."""

    title: str
    ylabel: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Figure:
    """Panels of curves.

    ``name`` is the stem of its files, ``x`` the quantity on the x axis; ``caption`` states the interval and n. If
    ``film``, the curves of a panel are moments in time, which the page plays one after another.
    """

    name: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    xlabel: str = "layer (0 = embeddings)"
    share_y: bool = True
    columns: int = 3
    x: str = "layer"
    film: bool = False

    def to_csv(self) -> str:
        """Return the numbers of the figure, one row per point."""
        table: list[tuple[object, ...]] = [
            ("panel", "curve", "model", "data", "measure", self.x, "value", "low", "high", "n")
        ]
        for panel in self.panels:
            for curve in panel.curves:
                line = curve.line
                for point in zip(line.layers, line.values, line.lows, line.highs, line.n, strict=True):
                    table.append((panel.title, curve.label, line.model, line.data, line.measure, *point))
        return csv_text(table)


@dataclass(frozen=True)
class Matrix:
    """One panel of a heat map: ``values[i][j]`` is row i, counted from below, and column j."""

    title: str
    values: Sequence[Sequence[float]]
    rows: Sequence[str]
    columns: Sequence[str]


@dataclass(frozen=True)
class HeatMap:
    """Matrices on one colour scale from ``low`` to ``high``, named by ``label``; ``name`` is the stem of its files."""

    name: str
    title: str
    caption: str
    panels: tuple[Matrix, ...]
    xlabel: str
    ylabel: str
    label: str
    low: float = 0.0
    high: float = 1.0
    columns: int = 3

    def to_csv(self) -> str:
        """Return the numbers of the figure, one row per cell."""
        table: list[tuple[object, ...]] = [("panel", "row", "column", "value")]
        for panel in self.panels:
            for row, values in zip(panel.rows, panel.values, strict=True):
                table += [
                    (panel.title, row, column, value) for column, value in zip(panel.columns, values, strict=True)
                ]
        return csv_text(table)


@dataclass(frozen=True)
class Dot:
    """One row of a dot plot: a word at one ``end``, its farthest ``value``, and the ``mean`` of ``count`` occurrences.

    ``mean`` and ``count`` are None where they are not known.
    """

    label: str
    end: str
    value: float
    mean: float | None = None
    count: int | None = None


@dataclass(frozen=True)
class DotPanel:
    """Rows of a dot plot from top to bottom, of one encoder in its colour ``slot``."""

    title: str
    rows: tuple[Dot, ...]
    model: str
    slot: str = "c0"


@dataclass(frozen=True)
class Dots:
    """Dot plots: a row for each word, a filled marker at its farthest value and a hollow one at its mean."""

    name: str
    title: str
    caption: str
    panels: tuple[DotPanel, ...]
    xlabel: str
    columns: int = 2

    def to_csv(self) -> str:
        """Return the numbers of the figure, one row per word."""
        table: list[tuple[object, ...]] = [("panel", "end", "word", "value", "mean", "count")]
        for panel in self.panels:
            table += [(panel.title, row.end, row.label, row.value, row.mean, row.count) for row in panel.rows]
        return csv_text(table)


Picture: TypeAlias = Figure | HeatMap | Dots
"""Any description of a figure."""


def csv_text(table: Iterable[Sequence[object]]) -> str:
    """Return a table as CSV with Unix line ends."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(table)
    return text.getvalue()


def slot(model: str, context: Context) -> str:
    """Return the colour of an encoder, the same in every figure."""
    if model == BASE:
        return "ink"
    if model == RANDOM or is_noise(model):
        return "muted"
    return f"c{context.tuned.index(model) % SERIES}"


def in_order(wanted: Iterable[Line], context: Context, data: str | None = None) -> list[Line]:
    """Return the lines on one text (default all) in the order of the encoders."""
    chosen = [line for line in wanted if data is None or line.data == data]
    return sorted(chosen, key=lambda line: context.models.index(line.model))


def shown_lines(panels: Iterable[Panel]) -> list[Line]:
    """Return the lines of all curves."""
    return [curve.line for panel in panels for curve in panel.curves]


def interval(shown: Sequence[Line], cluster: str) -> str:
    """Return the sentence of a caption that states the interval, its clusters (``sentence``, ...) and n."""
    banded = any(low is not None for line in shown for low in line.lows)
    bands = f"Bands: 95 % interval, clustered by {cluster}" if banded else "No intervals"
    n = count(shown)
    return f"{bands}; {n}." if n else f"{bands}."
