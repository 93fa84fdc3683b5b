"""Matrices as heat maps: every layer of one encoder against every layer of another."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Matrix:
    """One panel: ``values[i][j]`` stands in row i (drawn from below) and column j; ``rows``, ``columns`` name them."""

    title: str
    values: Sequence[Sequence[float]]
    rows: Sequence[str]
    columns: Sequence[str]


@dataclass(frozen=True)
class HeatMap:
    """``name`` is its file's stem; all panels share one scale of colours, ``low`` to ``high``, named by ``label``."""

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
        """The numbers behind the figure, a row a cell."""
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["panel", "row", "column", "value"])
        for panel in self.panels:
            for row, values in zip(panel.rows, panel.values, strict=True):
                for column, value in zip(panel.columns, values, strict=True):
                    writer.writerow([panel.title, row, column, value])
        return table.getvalue()


def draw_heat_map(figure: HeatMap) -> tuple[bytes, bytes]:
    """The figure as PNG and as SVG, each cell with its value. The same figure gives the same bytes."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    settings: dict[str, Any] = {
        "font.size": 9,
        "svg.hashsalt": "bertft",
        "font.family": "DejaVu Sans",
        "text.parse_math": False,  # a name may hold dollars
    }
    with matplotlib.rc_context(settings):
        across = min(figure.columns, len(figure.panels))
        down = -(-len(figure.panels) // across)
        canvas = Canvas(figsize=(max(3.6 * across, 5.6), 3.4 * down + 0.8), dpi=160, layout="constrained")
        FigureCanvasAgg(canvas)
        canvas.suptitle(figure.title, fontsize=12, x=0.01, ha="left", fontweight="bold")
        grid = canvas.subplots(down, across, squeeze=False)
        for axes in grid.flat[len(figure.panels) :]:
            axes.remove()
        for axes, panel in zip(grid.flat, figure.panels, strict=False):
            image = axes.imshow(
                panel.values, origin="lower", cmap="cividis", vmin=figure.low, vmax=figure.high, aspect="auto"
            )
            axes.set_title(panel.title, fontsize=10, loc="left")
            axes.set_xticks(range(len(panel.columns)), panel.columns)
            axes.set_yticks(range(len(panel.rows)), panel.rows)
            axes.set_xlabel(figure.xlabel)
            axes.set_ylabel(figure.ylabel)
            middle = (figure.low + figure.high) / 2
            for i, values in enumerate(panel.values):
                for j, value in enumerate(values):
                    ink = "black" if value > middle else "white"
                    axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=6.5, color=ink)
        shown = list(grid.flat[: len(figure.panels)])
        canvas.colorbar(image, ax=shown, label=figure.label, shrink=0.8)
        width, _ = canvas.get_size_inches()
        caption = "\n".join(textwrap.wrap(figure.caption, int(width / 0.068)))
        canvas.supxlabel(caption, fontsize=8, color="#57606a", x=0.01, ha="left")
        files = []
        for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
            file = io.BytesIO()
            canvas.savefig(file, format=kind, dpi=160, metadata=metadata)
            files.append(file.getvalue())
    return files[0], files[1]
