"""Scores of freezing and truncation by k.

As in Figures 3 and 4 of Merchant et al. (2020).
"""

from __future__ import annotations

from collections.abc import Sequence

from bertft.report.figure import Curve, Figure, Panel, interval, shown_lines, slot
from bertft.report.lines import Context, Line, apart, lines, point
from bertft.runs.rows import Row

SCORES = ("las_conll18", "f1", "accuracy")
"""Measures to draw; each task gets the first that it has."""

AXES = {
    "freeze": "k: frozen up to block k (−1 = nothing)",
    "truncate": "k: blocks kept (0 = embeddings only)",
}
TITLES = {"freeze": "How much of the encoder must be free to change", "truncate": "How many blocks a task needs"}


def ablation_figure(kind: str, swept: Sequence[Line], context: Context) -> Figure:
    """Return one panel per task: its score by k."""
    panels = []
    for line in _scored(swept):
        title = line.model if line.data == line.model else f"{line.model}, on {line.data}"
        panels.append(Panel(title, line.name.axis, (Curve(line.model, line, slot(line.model, context)),)))
    return Figure(
        f"{kind}_by_k",
        TITLES[kind],
        f"Dev score. One model is fine-tuned for every k. {interval(shown_lines(panels), 'example')}",
        tuple(panels),
        xlabel=AXES[kind],
        share_y=False,
        x="k",
    )


def ablated(rows: Sequence[Row]) -> list[str]:
    """Return one sentence per task and sweep.

    It gives the score of the whole encoder, the last k whose interval overlaps the whole encoder's, and the far end.
    """
    sentences = []
    for kind, name, whole, far in (
        ("freeze", "freezing", "with the least frozen", "with the most frozen"),
        ("truncate", "truncation", "with the most blocks", "with the fewest blocks"),
    ):
        for line in _scored(lines(rows, kind)):
            order = list(range(len(line.layers)))[:: 1 if kind == "freeze" else -1]
            if len(order) < 2:
                continue
            last = order[0]
            for at in order[1:]:
                if apart(line, order[0], line, at) is not False:
                    break
                last = at
            digits = 1 if line.name.percent else 3
            shown = [f"{point(line, order[0], digits)} {whole} (k = {line.layers[order[0]]})"]
            if last != order[0]:
                shown.append(f"intervals overlap as far as k = {line.layers[last]}, {point(line, last, digits)}")
            if last != order[-1]:
                shown.append(f"{point(line, order[-1], digits)} {far} (k = {line.layers[order[-1]]})")
            sentences.append(f"{line.model}, {name}, {line.name.axis}: {'; '.join(shown)}.")
    return sentences


def _scored(swept: Sequence[Line]) -> list[Line]:
    """Return each task's line of its first score."""
    found = []
    for model in dict.fromkeys(line.model for line in swept):
        own = {line.measure: line for line in swept if line.model == model}
        found.append(own[next((name for name in SCORES if name in own), next(iter(own)))])
    return found
