"""Figures on screen: panels as plotly traces in JSON.

Colours are slots (``c0``, ``ink``, ...). ``page.js`` resolves them from the page's style, so one description serves
the light and the dark page.
"""

from __future__ import annotations

from typing import Any

from bertft.report.axes import FEW, counted, limits
from bertft.report.figure import Curve, Figure, HeatMap, Panel
from bertft.report.lines import point
from bertft.report.palette import SYMBOLS, spread
from bertft.report.text import plain

ROOMY = 9  # most columns of a heat map that shows values in its cells
LABEL_GAP = 0.075  # as a share of the panel's height


def panels(figure: Figure) -> list[dict[str, Any]]:
    """Return ``{title, traces, layout}`` of each panel; ``page.js`` completes and draws them."""
    ranges = [limits(panel) for panel in figure.panels]
    if figure.share_y:
        shared = (min(low for low, _ in ranges), max(high for _, high in ranges))
        ranges = [shared] * len(ranges)
    drawn = []
    for panel, (low, high) in zip(figure.panels, ranges, strict=True):
        traces = [trace for curve in panel.curves for trace in (*_band(curve), _line(curve, figure.x))]
        labels = _labels(panel, low, high)
        if figure.film:
            traces, labels = _moments(panel, figure.x, labels)
        drawn.append(
            {
                "title": panel.title,
                "traces": traces,
                "layout": {
                    "xaxis": _ticks(panel) | {"title": {"text": figure.xlabel}},
                    "yaxis": _values(panel, low, high),
                    "annotations": labels,
                },
            }
        )
    return drawn


def _moments(panel: Panel, x: str, labels: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the traces of a film and their labels, each with the index of its moment."""
    traces = []
    for moment, curve in enumerate(panel.curves):
        for trace in (*_band(curve), _line(curve, x)):
            traces.append({**trace, "meta": {**trace["meta"], "moment": moment}})
    return traces, [{**label, "moment": moment} for moment, label in enumerate(labels)]


def map_panels(figure: HeatMap) -> list[dict[str, Any]]:
    """Return the panels of a heat map, as `panels` does. Cells show their values if there is room."""
    drawn = []
    for panel in figure.panels:
        roomy = len(panel.columns) <= ROOMY
        drawn.append(
            {
                "title": panel.title,
                "traces": [
                    {
                        "type": "heatmap",
                        "x": list(panel.columns),
                        "y": list(panel.rows),
                        "z": [list(values) for values in panel.values],
                        "zmin": figure.low,
                        "zmax": figure.high,
                        "colorscale": "Cividis",
                        "texttemplate": "%{z:.2f}" if roomy else "",
                        "textfont": {"size": 10},
                        "hovertemplate": f"{plain(figure.ylabel)}: %{{y}}<br>{plain(figure.xlabel)}: %{{x}}<br>"
                        "%{z:.3f}<extra></extra>",
                        "meta": {"model": panel.title},
                    }
                ],
                "layout": {
                    "xaxis": {"title": {"text": plain(figure.xlabel)}, "type": "category", "tickangle": 0},
                    "yaxis": {"title": {"text": plain(figure.ylabel)}, "type": "category", "automargin": True},
                    "annotations": [],
                },
            }
        )
    return drawn


def _line(curve: Curve, x: str) -> dict[str, Any]:
    line = curve.line
    hover = [
        f"{point(line, i)}" + (f"<br>n = {line.n[i]:,}" if line.n[i] is not None else "")
        for i in range(len(line.layers))
    ]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "cliponaxis": False,
        "name": plain(curve.label),
        "x": list(line.layers),
        "y": list(line.values),
        "text": hover,
        "hovertemplate": f"%{{fullData.name}}, {x} %{{x}}<br>%{{text}}<extra></extra>",
        "line": {"color": curve.slot, "width": 2.4 if curve.emphasis else 1.4, "dash": curve.dash},
        "marker": {"color": curve.slot, "size": 8 if curve.emphasis else 6, "symbol": SYMBOLS[curve.slot]},
        "meta": {"model": line.model, "data": line.data},
    }


def _band(curve: Curve) -> list[dict[str, Any]]:
    """Return the interval as one closed shape."""
    line = curve.line
    banded = [i for i in range(len(line.layers)) if line.lows[i] is not None and line.highs[i] is not None]
    if not banded:
        return []
    forth, back = banded, banded[::-1]
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "x": [line.layers[i] for i in (*forth, *back)],
            "y": [*(line.highs[i] for i in forth), *(line.lows[i] for i in back)],
            "fill": "toself",
            "fillcolor": curve.slot,
            "line": {"width": 0, "color": curve.slot},
            "hoverinfo": "skip",
            "meta": {"model": line.model, "data": line.data, "band": True},
        }
    ]


def _labels(panel: Panel, low: float, high: float) -> list[dict[str, Any]]:
    ends = [(curve.line.values[-1] - low) / (high - low) for curve in panel.curves]
    return [
        {
            "text": plain(curve.label),
            "x": 1.0,
            "xref": "paper",
            "xanchor": "left",
            "xshift": 8,
            "y": place,
            "yref": "paper",
            "yanchor": "middle",
            "showarrow": False,
            "font": {"color": curve.slot, "size": 13},
            "model": curve.line.model,
        }
        for curve, place in zip(panel.curves, spread(ends, LABEL_GAP), strict=True)
    ]


def _values(panel: Panel, low: float, high: float) -> dict[str, Any]:
    """Return the y axis; that of counts has whole ticks only."""
    axis: dict[str, Any] = {"title": {"text": panel.ylabel}, "range": [low, high], "automargin": True}
    if counted(panel):
        axis |= {"tickformat": ",d"} | ({"dtick": 1} if high - low <= FEW else {})
    return axis


def _ticks(panel: Panel) -> dict[str, Any]:
    layers = sorted({layer for curve in panel.curves for layer in curve.line.layers})
    shown = [layer for layer in layers if len(layers) <= 9 or layer % 2 == 0]
    edge = 0.03 * max(1, layers[-1] - layers[0]) + 0.05
    return {"tickvals": shown, "tickangle": 0, "range": [layers[0] - edge, layers[-1] + edge]}
