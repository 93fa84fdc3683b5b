"""The film of a training: similarity to the base encoder, layer by layer, at moments of the fine-tuning."""

from __future__ import annotations

from bertft.report.figures.catalogue import Curve, Figure, Panel, axis_label, interval
from bertft.report.lines import Line


def film(swept: list[Line]) -> Figure:
    """A panel a task, a curve a share of the training steps: the lines' models are ``0 %``, ``5 %``, ..."""
    panels = []
    for task in dict.fromkeys(line.data for line in swept):
        own = sorted((line for line in swept if line.data == task), key=_share)
        curves = tuple(
            Curve(line.model, line, "c0" if line is own[-1] else "muted", emphasis=line is own[-1]) for line in own
        )
        panels.append(Panel(task, axis_label(own[0].measure), curves))
    return Figure(
        "along_training",
        "When each layer leaves the base encoder",
        f"Similarity after shares of the training steps; blue: at the end. {interval(swept, 'sentences')}",
        tuple(panels),
        film=True,
    )


def _share(line: Line) -> float:
    try:
        return float(line.model.rstrip(" %"))
    except ValueError:
        return 0.0
