"""Figures on paper: PNG and SVG by matplotlib."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bertft.report.axes import counted, limits
from bertft.report.draw import dots
from bertft.report.figure import Curve, Dots, Figure, HeatMap, Panel, Picture
from bertft.report.palette import HOLLOW, LIGHT, LIGHT_PAGE, MARKERS, spread
from bertft.report.text import shortened
from bertft.runs.extras import need

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

SIZES = {  # inches: width and height of a panel, title and caption
    Figure: (4.2, 3.3, 0.75),
    HeatMap: (3.6, 3.4, 0.8),
    Dots: (4.6, 0.0, 0.9),  # the height follows from the rows
}
DPI = 160
LABEL_GAP = 0.062  # one line of text, as a share of the axis
LONGEST = 40  # letters of a label or a panel's title
DASHES = {"solid": "-", "dash": (0, (5, 2)), "dot": (0, (1, 1.6))}
SOFT = LIGHT_PAGE["soft"]
STYLE: dict[str, Any] = {
    "font.size": 9,
    "svg.hashsalt": "bertft",
    "font.family": "DejaVu Sans",
    "text.parse_math": False,  # a name may contain dollars
}
OPEN_AXES: dict[str, Any] = {"axes.titlesize": 10, "axes.spines.top": False, "axes.spines.right": False}


def draw(figure: Picture) -> tuple[bytes, bytes]:
    """Return the figure as PNG of 256 colours and as SVG. The same figure gives the same bytes."""
    drawn = canvas(figure)
    import matplotlib

    with matplotlib.rc_context(_style(figure)):
        files = []
        for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
            file = io.BytesIO()
            drawn.savefig(file, format=kind, dpi=DPI, metadata=metadata)
            files.append(file.getvalue())
    return in_palette(files[0]), files[1]


def canvas(figure: Picture) -> Canvas:
    """Return the figure as one of matplotlib, laid out."""
    need("report", "a figure")
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    panel_width, panel_height, margin = SIZES[type(figure)]
    panel_height = dots.height(figure) if isinstance(figure, Dots) else panel_height
    with matplotlib.rc_context(_style(figure)):
        columns = min(figure.columns, len(figure.panels))
        rows = math.ceil(len(figure.panels) / columns)
        size = (max(panel_width * columns, 5.6), panel_height * rows + margin)
        canvas = Canvas(figsize=size, dpi=DPI, layout="constrained")
        FigureCanvasAgg(canvas)
        width, _ = canvas.get_size_inches()
        title = _wrap(figure.title, int(width / 0.115))  # inches per bold letter of 12 points
        canvas.suptitle(title, fontsize=12, x=0.01, ha="left", fontweight="bold")
        grid = canvas.subplots(rows, columns, squeeze=False, sharey=isinstance(figure, Figure) and figure.share_y)
        shown, unused = list(grid.flat[: len(figure.panels)]), grid.flat[len(figure.panels) :]
        for axes in unused:
            axes.remove()
        if isinstance(figure, HeatMap):
            _matrices(canvas, shown, figure)
        elif isinstance(figure, Dots):
            for axes, panel in zip(shown, figure.panels, strict=True):
                dots.draw_panel(axes, panel, figure.xlabel)
        else:
            _curves(shown, figure)
        caption = _wrap(figure.caption, int(width / 0.068))  # inches per letter of 8 points
        canvas.supxlabel(caption, fontsize=8, color=SOFT, x=0.01, ha="left")
        canvas.draw_without_rendering()  # one layout for both files
        canvas.set_layout_engine("none")
    return canvas


def _style(figure: Picture) -> dict[str, Any]:
    return STYLE | ({} if isinstance(figure, HeatMap) else OPEN_AXES)


def in_palette(png: bytes) -> bytes:
    """Return a PNG with 256 colours, which has a third of the size."""
    from PIL import Image

    file = io.BytesIO()
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(file, "png", optimize=True)
    return file.getvalue()


def _matrices(canvas: Canvas, all_axes: Sequence[Axes], figure: HeatMap) -> None:
    """Draw each matrix as an image with the value in every cell, and one colour bar."""
    middle = (figure.low + figure.high) / 2
    for axes, panel in zip(all_axes, figure.panels, strict=True):
        image = axes.imshow(
            panel.values, origin="lower", cmap="cividis", vmin=figure.low, vmax=figure.high, aspect="auto"
        )
        axes.set_title(panel.title, fontsize=10, loc="left")
        axes.set_xticks(range(len(panel.columns)), panel.columns)
        axes.set_yticks(range(len(panel.rows)), panel.rows)
        axes.set_xlabel(figure.xlabel)
        axes.set_ylabel(figure.ylabel)
        for i, values in enumerate(panel.values):
            for j, value in enumerate(values):
                ink = "black" if value > middle else "white"
                axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=6.5, color=ink)
    canvas.colorbar(image, ax=list(all_axes), label=figure.label, shrink=0.8)


def _curves(all_axes: Sequence[Axes], figure: Figure) -> None:
    """Draw each panel's curves, then labels at their right ends once the limits are known."""
    for axes, panel in zip(all_axes, figure.panels, strict=True):
        _panel(axes, panel, figure)
    _limits(all_axes, figure)
    for axes, panel in zip(all_axes, figure.panels, strict=True):
        _label(axes, panel)


def _panel(axes: Axes, panel: Panel, figure: Figure) -> None:
    for curve in panel.curves:
        _curve(axes, curve)
    axes.set_title(shortened(panel.title, LONGEST), loc="left")
    axes.set_xlabel(figure.xlabel)
    first_column = axes.get_subplotspec()
    if not figure.share_y or first_column is None or first_column.is_first_col():
        axes.set_ylabel(panel.ylabel)
    ticks = sorted({layer for curve in panel.curves for layer in curve.line.layers})
    axes.set_xticks([tick for tick in ticks if len(ticks) <= 13 or tick % 2 == 0])
    axes.grid(axis="y", color=LIGHT_PAGE["line"], linewidth=0.6)
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
        clip_on=False,  # a marker at the end of the axis is drawn whole
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


def _limits(all_axes: Sequence[Axes], figure: Figure) -> None:
    """Set the limits of the y axes, and whole ticks on those of counts."""
    ranges = [limits(panel) for panel in figure.panels]
    if figure.share_y:
        ranges = [(min(low for low, _ in ranges), max(high for _, high in ranges))] * len(ranges)
    for axes, panel, (low, high) in zip(all_axes, figure.panels, ranges, strict=True):
        axes.set_ylim(low, high)
        if counted(panel):
            axes.locator_params(axis="y", integer=True)


def _label(axes: Axes, panel: Panel) -> None:
    """Write each curve's name at its right end; a name moved to avoid overlap is joined to the end by a thin line."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    ends = [(curve.line.values[-1] - low) / (high - low) for curve in panel.curves]
    for curve, end, place in zip(panel.curves, ends, spread(ends, LABEL_GAP), strict=True):
        colour = LIGHT[curve.slot]
        label = shortened(curve.label, LONGEST)
        axes.text(1.03, place, label, transform=axes.transAxes, va="center", fontsize=8.5, color=colour)
        if abs(place - end) > 0.01:
            at = (curve.line.layers[-1] - left) / (right - left)
            thread: dict[str, Any] = {"color": colour, "linewidth": 0.6, "alpha": 0.7, "clip_on": False}
            axes.plot([at + 0.015, 1.02], [end, place], transform=axes.transAxes, **thread)


def _wrap(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width))
