"""Similarity to the base encoder during fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence

from bertft.report.figure import Curve, Figure, Panel, interval
from bertft.report.lines import Line


def film(swept: Sequence[Line]) -> Figure:
    """Return one panel per task, one curve per moment. The models of the lines are ``0 %``, ``5 %``, ..."""
    panels = []
    for task in dict.fromkeys(line.data for line in swept):
        own = sorted((line for line in swept if line.data == task), key=_share)
        curves = tuple(
            Curve(line.model, line, "c0" if line is own[-1] else "muted", emphasis=line is own[-1]) for line in own
        )
        panels.append(Panel(task, own[0].name.axis, curves))
    return Figure(
        "along_training",
        "When each layer departs from the base encoder",
        f"Similarity after each share of the training steps. Blue: after the last step. {interval(swept, 'sentence')}",
        tuple(panels),
        film=True,
    )


def _share(line: Line) -> float:
    try:
        return float(line.model.rstrip(" %"))
    except ValueError:
        return 0.0
