"""The figures of freezing and truncation: score by k, as Figures 3 and 4 of Merchant et al. (2020)."""

from __future__ import annotations

from bertft.report.figures import Curve, Figure, Panel, interval, slot
from bertft.report.series import Context, Line

SCORES = {
    "las_conll18": "LAS (CoNLL 2018)",
    "f1": "F1",
    "accuracy": "accuracy",
}
"""What is drawn of each task, the first that it has."""

AXES = {
    "freeze": "k: embeddings and blocks 1..k frozen (−1 = nothing)",
    "truncate": "k: blocks kept (0 = embeddings alone)",
}
TITLES = {"freeze": "How much must be free to change", "truncate": "How many blocks a task needs"}


def ablation_figure(kind: str, swept: list[Line], context: Context) -> Figure:
    """One panel a task, its score by k."""
    panels = []
    for model in dict.fromkeys(line.model for line in swept):
        own = {line.measure: line for line in swept if line.model == model}
        measure = next((name for name in SCORES if name in own), next(iter(own)))
        curve = Curve(model, own[measure], slot(model, context))
        data = own[measure].data
        title = model if data == model else f"{model}, on {data}"
        panels.append(Panel(title, SCORES.get(measure, measure), (curve,)))
    shown = [curve.line for panel in panels for curve in panel.curves]
    return Figure(
        f"{kind}_by_k",
        TITLES[kind],
        f"Score on dev of a model fine-tuned anew for every k. {interval(shown, 'examples')}",
        tuple(panels),
        xlabel=AXES[kind],
        share_y=False,
    )
