"""A figure of any measures by layer: panels and curves named by the caller."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bertft.report.figures.catalogue import Curve, Figure, Panel, interval
from bertft.report.lines import Line
from bertft.report.palette import SERIES

SLOTS = (*(f"c{place}" for place in range(SERIES)), "muted", "ink")


def layered(
    name: str,
    title: str,
    caption: str,
    shown: Sequence[Line],
    *,
    panel: Callable[[Line], str],
    ylabel: Callable[[Line], str],
    label: Callable[[Line], str] = lambda line: line.model,
    xlabel: str = "layer (0 = embeddings)",
    share_y: bool = False,
    cluster: str = "sentences",
) -> Figure | None:
    """The lines as curves, in panels of one ``panel`` title; a ``label`` has one colour in all. None without lines."""
    labels = list(dict.fromkeys(label(line) for line in shown))
    panels = []
    for heading in dict.fromkeys(panel(line) for line in shown):
        own = [line for line in shown if panel(line) == heading]
        curves = tuple(Curve(label(line), line, SLOTS[labels.index(label(line)) % len(SLOTS)]) for line in own)
        panels.append(Panel(heading, ylabel(own[0]), curves))
    if not panels:
        return None
    return Figure(
        name, title, f"{caption} {interval(list(shown), cluster)}", tuple(panels), xlabel=xlabel, share_y=share_y
    )
