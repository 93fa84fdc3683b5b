"""Dot plots on paper and on screen: words at both ends of a direction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertft.report.figure import Dot, DotPanel, Dots
from bertft.report.palette import LIGHT, LIGHT_PAGE
from bertft.report.text import plain, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LONGEST = 18  # letters of a word
ROW, REST = 0.19, 1.0  # inches of a row, and of a panel's title and axis


def height(figure: Dots) -> float:
    """Return the height of the panels in inches."""
    return REST + ROW * max(_places(panel)[-1] + 1 for panel in figure.panels)


def draw_panel(axes: Axes, panel: DotPanel, xlabel: str) -> None:
    """Draw one panel with matplotlib."""
    colour, places = LIGHT[panel.slot], _places(panel)
    axes.axvline(0, color=LIGHT["muted"], linewidth=0.8, linestyle=(0, (1, 1.6)))
    for row, place in zip(panel.rows, places, strict=True):
        if row.mean is not None:
            axes.plot([row.mean, row.value], [place, place], color=colour, linewidth=1)
            axes.plot([row.mean], [place], color=colour, marker="o", markersize=4.5, markerfacecolor="white")
        axes.plot([row.value], [place], color=colour, marker="o", markersize=4.5)
    axes.set_yticks(places, [_label(row) for row in panel.rows])
    axes.set_ylim(places[-1] + 0.7, -0.7)
    axes.tick_params(axis="y", labelsize=8, length=0)
    axes.grid(axis="y", color=LIGHT_PAGE["line"], linewidth=0.5)
    axes.set_axisbelow(True)
    axes.set_title(panel.title, loc="left")
    axes.set_xlabel(xlabel)


def dot_panels(figure: Dots) -> list[dict[str, Any]]:
    """Return ``{title, traces, layout}`` of each panel, as `bertft.report.draw.screen.panels` does."""
    return [
        {
            "title": panel.title,
            "traces": _traces(panel),
            "layout": {
                "xaxis": {"title": {"text": figure.xlabel}, "tickangle": 0},
                "yaxis": {
                    "title": {"text": ""}, "automargin": True, "range": [_places(panel)[-1] + 0.7, -0.7],
                    "tickvals": _places(panel), "ticktext": [plain(_label(row)) for row in panel.rows],
                },
                "annotations": [],
            },
        }
        for panel in figure.panels
    ]  # fmt: skip


def _traces(panel: DotPanel) -> list[dict[str, Any]]:
    """Return a line at 0, threads from each mean to the farthest value, and the markers of both."""
    places = _places(panel)
    known = [(row, place) for row, place in zip(panel.rows, places, strict=True) if row.mean is not None]
    about: dict[str, Any] = {"type": "scatter", "meta": {"model": panel.model}}
    marks = {"size": 9, "color": panel.slot, "symbol": "circle"}
    bare: dict[str, Any] = {"mode": "lines", "hoverinfo": "skip"}
    zero = {"x": [0, 0], "y": [-0.7, places[-1] + 0.7], "line": {"color": "muted", "width": 1, "dash": "dot"}}
    threads = {
        "x": [x for row, _ in known for x in (row.mean, row.value, None)],
        "y": [y for _, place in known for y in (place, place, None)],
        "line": {"color": panel.slot, "width": 1.2},
    }
    far = zip(panel.rows, places, strict=True)
    of_values = [(row.value, place, f"{row.label}: farthest {row.value:.3f}") for row, place in far]
    of_means = [(row.mean, place, f"{row.label}: mean of {row.count:,} {row.mean:.3f}") for row, place in known]
    return [
        {**about, **bare, **zero},
        {**about, **bare, **threads},
        {**about, **_marked(of_means), "marker": {**marks, "symbol": "circle-open"}},
        {**about, **_marked(of_values), "marker": marks},
    ]


def _marked(points: list[Any]) -> dict[str, Any]:
    x, y, text = ([list(column) for column in zip(*points, strict=True)]) if points else ([], [], [])
    hover = {"text": [plain(entry) for entry in text], "hovertemplate": "%{text}<extra></extra>"}
    return {"mode": "markers", "x": x, "y": y, "line": {"color": "muted"}, **hover}


def _places(panel: DotPanel) -> list[float]:
    """Return the place of each row from the top, with a gap between both ends."""
    places, gap = [], 0.0
    for i, row in enumerate(panel.rows):
        gap = 0.6 if row.end != panel.rows[0].end else 0.0
        places.append(i + gap)
    return places


def _label(row: Dot) -> str:
    count = "" if row.count is None else f" ×{row.count:,}"
    return f"{shortened(row.label, LONGEST)}{count}"
