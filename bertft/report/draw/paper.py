"""Figures on paper: PNG and SVG by matplotlib."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

from bertft.report.figure import HeatMap, draw_heat_map
from bertft.report.figures.catalogue import Curve, Figure, Panel
from bertft.report.palette import HOLLOW, LIGHT, MARKERS, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL_WIDTH, PANEL_HEIGHT = 4.2, 3.3  # inches
DPI = 160
LABEL_GAP = 0.062  # of the axis' height: one line of text
LONGEST = 40  # letters of a label or a panel's title
DASHES = {"solid": "-", "dash": (0, (5, 2)), "dot": (0, (1, 1.6))}


def draw(figure: Figure) -> tuple[bytes, bytes]:
    """The figure as PNG and as SVG. The same figure gives the same bytes."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    settings: dict[str, Any] = {
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "svg.hashsalt": "bertft",
        "font.family": "DejaVu Sans",
        "text.parse_math": False,  # a name may hold dollars
    }
    with matplotlib.rc_context(settings):
        columns = min(figure.columns, len(figure.panels))
        rows = math.ceil(len(figure.panels) / columns)
        size = (max(PANEL_WIDTH * columns, 5.6), PANEL_HEIGHT * rows + 0.75)
        canvas = Canvas(figsize=size, dpi=DPI, layout="constrained")
        FigureCanvasAgg(canvas)
        width, _ = canvas.get_size_inches()
        title = _wrap(figure.title, int(width / 0.115))  # inches a letter of 12 points takes, bold
        canvas.suptitle(title, fontsize=12, x=0.01, ha="left", fontweight="bold")
        grid = canvas.subplots(rows, columns, squeeze=False, sharey=figure.share_y)
        for axes in grid.flat[len(figure.panels) :]:
            axes.remove()
        for axes, panel in zip(grid.flat, figure.panels, strict=False):
            _panel(axes, panel, figure)
        _limits(grid.flat[: len(figure.panels)], figure)
        for axes, panel in zip(grid.flat, figure.panels, strict=False):
            _label(axes, panel)
        caption = _wrap(figure.caption, int(width / 0.068))  # 8 points
        canvas.supxlabel(caption, fontsize=8, color="#57606a", x=0.01, ha="left")
        canvas.draw_without_rendering()  # lays out once; both files then show the same
        canvas.set_layout_engine("none")
        files = []
        for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
            file = io.BytesIO()
            canvas.savefig(file, format=kind, dpi=DPI, metadata=metadata)
            files.append(file.getvalue())
    return files[0], files[1]


def on_paper(figure: Figure | HeatMap) -> tuple[bytes, bytes]:
    """A figure of either kind as PNG and as SVG."""
    return draw_heat_map(figure) if isinstance(figure, HeatMap) else draw(figure)


def in_palette(png: bytes) -> bytes:
    """A PNG of 256 colours, a third of its size: for figures that are kept in version control."""
    from PIL import Image

    file = io.BytesIO()
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(file, "png", optimize=True)
    return file.getvalue()


def _panel(axes: Axes, panel: Panel, figure: Figure) -> None:
    for curve in panel.curves:
        _curve(axes, curve)
    axes.set_title(_short(panel.title), loc="left")
    axes.set_xlabel(figure.xlabel)
    first_column = axes.get_subplotspec()
    if not figure.share_y or first_column is None or first_column.is_first_col():
        axes.set_ylabel(panel.ylabel)
    ticks = sorted({layer for curve in panel.curves for layer in curve.line.layers})
    axes.set_xticks([tick for tick in ticks if len(ticks) <= 13 or tick % 2 == 0])
    axes.grid(axis="y", color="#d9dde2", linewidth=0.6)
    axes.set_axisbelow(True)


def _curve(axes: Axes, curve: Curve) -> None:
    colour, line = LIGHT[curve.slot], curve.line
    axes.plot(
        line.layers,
        line.values,
        color=colour,
        linestyle=DASHES[curve.dash],
        linewidth=1.8 if curve.emphasis else 1.2,
        marker=MARKERS[curve.slot],
        markerfacecolor="white" if curve.slot in HOLLOW else colour,
        markersize=4.5 if curve.emphasis else 3.5,
    )
    banded = [i for i, (low, high) in enumerate(zip(line.lows, line.highs, strict=True)) if None not in (low, high)]
    if banded:
        axes.fill_between(
            [line.layers[i] for i in banded],
            [low for low in line.lows if low is not None],
            [high for high in line.highs if high is not None],
            color=colour,
            alpha=0.16 if curve.emphasis else 0.1,
            linewidth=0,
        )


def _limits(all_axes: Any, figure: Figure) -> None:
    """A little air, and no axis so tight that noise looks like change."""
    groups = [list(all_axes)] if figure.share_y else [[axes] for axes in all_axes]
    for group in groups:
        low = min(axes.get_ylim()[0] for axes in group)
        high = max(axes.get_ylim()[1] for axes in group)
        if high - low < 0.05:
            low, high = (low + high) / 2 - 0.025, (low + high) / 2 + 0.025
        for axes in group:
            axes.set_ylim(low, high)


def _label(axes: Axes, panel: Panel) -> None:
    """The name of each line at its right end, moved apart where they would overlap and then tied to it by a thread."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    ends = [(curve.line.values[-1] - low) / (high - low) for curve in panel.curves]
    for curve, end, place in zip(panel.curves, ends, spread(ends, LABEL_GAP), strict=True):
        colour = LIGHT[curve.slot]
        axes.text(1.03, place, _short(curve.label), transform=axes.transAxes, va="center", fontsize=8.5, color=colour)
        if abs(place - end) > 0.01:
            at = (curve.line.layers[-1] - left) / (right - left)
            thread: dict[str, Any] = {"color": colour, "linewidth": 0.6, "alpha": 0.7, "clip_on": False}
            axes.plot([at + 0.015, 1.02], [end, place], transform=axes.transAxes, **thread)


def _short(text: str) -> str:
    """A name that leaves room for the picture."""
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _wrap(text: str, width: int) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width))
