"""Any measures by layer.

The caller chooses panels and labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bertft.report.figure import Curve, Figure, Panel, interval
from bertft.report.lines import Line
from bertft.report.palette import SERIES

SLOTS = (*(f"c{place}" for place in range(SERIES)), "muted", "ink")


@dataclass(frozen=True)
class Layout:
    """Panels and labels of lines.

    ``panel``, ``ylabel`` and ``label`` give a line's panel title, y axis and curve label. ``cluster`` is what the
    intervals resample (``sentence``, ``seed``, ...).
    """

    panel: Callable[[Line], str]
    ylabel: Callable[[Line], str]
    label: Callable[[Line], str] = lambda line: line.model
    xlabel: str = "layer (0 = embeddings)"
    share_y: bool = False
    cluster: str = "sentence"


def layered(name: str, title: str, caption: str, shown: Sequence[Line], layout: Layout) -> Figure | None:
    """Return the lines as curves in panels, each label in one colour throughout; None without lines."""
    labels = list(dict.fromkeys(layout.label(line) for line in shown))
    panels = []
    for heading in dict.fromkeys(layout.panel(line) for line in shown):
        own = [line for line in shown if layout.panel(line) == heading]
        curves = tuple(
            Curve(layout.label(line), line, SLOTS[labels.index(layout.label(line)) % len(SLOTS)]) for line in own
        )
        panels.append(Panel(heading, layout.ylabel(own[0]), curves))
    if not panels:
        return None
    caption = f"{caption} {interval(shown, layout.cluster)}"
    columns = 2 if len(panels) == 4 else 3  # no panel alone in its row
    return Figure(name, title, caption, tuple(panels), layout.xlabel, layout.share_y, columns)
