"""The figures of freezing and truncation: score by k, as Figures 3 and 4 of Merchant et al. (2020)."""

from __future__ import annotations

from collections.abc import Sequence

from bertft.report.figures.catalogue import Curve, Figure, Panel, interval, slot
from bertft.report.lines import PERCENT, Context, Line, apart, lines, number
from bertft.runs.rows import Row

SCORES = {
    "las_conll18": "LAS (CoNLL 2018)",
    "f1": "F1",
    "accuracy": "accuracy",
}
"""What is drawn of each task, the first that it has."""

AXES = {
    "freeze": "k: frozen up to block k (−1 = nothing)",
    "truncate": "k: blocks kept (0 = embeddings alone)",
}
TITLES = {"freeze": "How much must be free to change", "truncate": "How many blocks a task needs"}


def ablation_figure(kind: str, swept: list[Line], context: Context) -> Figure:
    """One panel a task, its score by k."""
    panels = []
    for line in _scored(swept):
        title = line.model if line.data == line.model else f"{line.model}, on {line.data}"
        curve = Curve(line.model, line, slot(line.model, context))
        panels.append(Panel(title, SCORES.get(line.measure, line.measure), (curve,)))
    shown = [curve.line for panel in panels for curve in panel.curves]
    return Figure(
        f"{kind}_by_k",
        TITLES[kind],
        f"Score on dev of a model fine-tuned anew for every k. {interval(shown, 'examples')}",
        tuple(panels),
        xlabel=AXES[kind],
        share_y=False,
        x="k",
    )


def _scored(swept: list[Line]) -> list[Line]:
    """Of each task the line of its first score."""
    found = []
    for model in dict.fromkeys(line.model for line in swept):
        own = {line.measure: line for line in swept if line.model == model}
        found.append(own[next((name for name in SCORES if name in own), next(iter(own)))])
    return found


def ablated(rows: Sequence[Row]) -> list[str]:
    """A sentence a task and sweep: the score of the whole encoder, how far from it the sweep goes before the intervals
    part, and the far end."""
    sentences = []
    for kind, name, whole, far in (
        ("freeze", "freezing", "with the least frozen", "with the most frozen"),
        ("truncate", "truncation", "with the most blocks", "with the fewest blocks"),
    ):
        for line in _scored(lines(rows, kind)):
            order = list(range(len(line.layers)))[:: 1 if kind == "freeze" else -1]
            if len(order) < 2:
                continue
            kept = order[0]
            for at in order[1:]:
                if apart(line, order[0], line, at) is not False:
                    break
                kept = at
            shown = [f"{_said(line, order[0])} {whole} (k = {line.layers[order[0]]})"]
            if kept != order[0]:
                shown.append(f"the intervals overlap as far as k = {line.layers[kept]}, {_said(line, kept)}")
            if kept != order[-1]:
                shown.append(f"{_said(line, order[-1])} {far} (k = {line.layers[order[-1]]})")
            sentences.append(f"{line.model}, {name}, {SCORES.get(line.measure, line.measure)}: {'; '.join(shown)}.")
    return sentences


def _said(line: Line, at: int) -> str:
    digits = 1 if line.measure in PERCENT else 3
    return number(line.values[at], line.lows[at], line.highs[at], digits)
