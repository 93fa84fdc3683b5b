"""Page section: one figure, its downloads and its numbers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from bertft.report.figure import Dots, Figure, HeatMap, Picture
from bertft.report.lines import number, point
from bertft.report.page.download import Download, download

GRIDS = {1: " one", 2: " two"}  # CSS classes by number of columns; more than two have none


@dataclass(frozen=True)
class Drawn:
    """A figure with its pictures."""

    figure: Picture
    png: bytes
    svg: bytes


@dataclass(frozen=True)
class Cell:
    """A number as text, with its interval if it has one."""

    value: str = ""
    interval: str = ""


@dataclass(frozen=True)
class Table:
    """The numbers of one panel: ``rows`` are pairs of a name and its cells, ``corner`` heads the names."""

    title: str
    corner: str
    columns: list[str]
    rows: list[tuple[str, list[Cell]]]
    note: str = ""


@dataclass(frozen=True)
class FigureSection:
    """Content of the template ``sections/figure.html.j2``. ``picture`` is for readers without scripts.

    It is the SVG, which the page holds once: the download of that name has no address until a script gives it this one.
    """

    name: str
    title: str
    caption: str
    grid: str
    panels: list[str]
    moments: list[str]
    picture: str
    downloads: list[Download]
    tables: list[Table]


def figure_section(drawn: Drawn) -> FigureSection:
    """Return the section of a figure."""
    figure = drawn.figure
    svg = download(f"{figure.name}.svg", drawn.svg)
    downloads = [
        download(f"{figure.name}.png", drawn.png),
        dataclasses.replace(svg, href=""),
        download(f"{figure.name}.csv", figure.to_csv().encode()),
    ]
    moments: list[str] = []
    if isinstance(figure, HeatMap):
        caption, tables = f"{figure.label}. {figure.caption}", _map_tables(figure)
    elif isinstance(figure, Dots):
        caption, tables = figure.caption, _dot_tables(figure)
    else:
        caption, tables = figure.caption, _tables(figure)
        if figure.film:
            longest = max(figure.panels, key=lambda panel: len(panel.curves))
            moments = [curve.label for curve in longest.curves]
    return FigureSection(
        figure.name,
        figure.title,
        caption,
        GRIDS.get(min(figure.columns, len(figure.panels)), ""),
        [panel.title for panel in figure.panels],
        moments,
        svg.href,
        downloads,
        tables,
    )


def _tables(figure: Figure) -> list[Table]:
    """Return one table per panel: a row per curve, a column per layer."""
    tables = []
    for panel in figure.panels:
        layers = sorted({layer for curve in panel.curves for layer in curve.line.layers})
        rows = []
        for curve in panel.curves:
            cells = []
            for layer in layers:
                at = curve.line.at(layer)
                value, _, interval = ("", "", "") if at is None else point(curve.line, at).partition(" ")
                cells.append(Cell(value, interval))
            rows.append((curve.label, cells))
        columns = [f"{figure.x} {layer}" for layer in layers]
        tables.append(Table(f"{panel.title}: {panel.ylabel}", "curve", columns, rows))
    return tables


def _dot_tables(figure: Dots) -> list[Table]:
    """Return one table per panel: a row per word."""
    tables = []
    for panel in figure.panels:
        rows = []
        for row in panel.rows:
            mean = "" if row.mean is None else number(row.mean)
            count = "" if row.count is None else f"{row.count:,}"
            rows.append((row.label, [Cell(number(row.value)), Cell(mean), Cell(count)]))
        tables.append(Table(f"{panel.title}: {figure.xlabel}", "word", ["farthest", "mean", "words"], rows))
    return tables


def _map_tables(figure: HeatMap) -> list[Table]:
    """Return one table per panel, its rows from top to bottom as they are drawn."""
    note = f"Rows: {figure.ylabel}. Columns: {figure.xlabel}."
    tables = []
    for panel in figure.panels:
        rows = [
            (name, [Cell(f"{value:.3f}") for value in values])
            for name, values in zip(reversed(panel.rows), reversed(panel.values), strict=True)
        ]
        tables.append(Table(f"{panel.title}: {figure.label}", "layer", list(panel.columns), rows, note))
    return tables
