"""Similarity of each layer to the base encoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from bertft.report.figure import Curve, Figure, Panel, in_order, interval, shown_lines, slot
from bertft.report.lines import Context, Line
from bertft.runs.vocabulary import is_noise

NOISE_CAPTION = "noise of X: the base with a random change of the size of X's."
NULL_CAPTION = "Grey, null: mean and 95 % bound if texts trade places"
LARGEST = ", the largest of the encoders"


def by_layer(similar: Sequence[Line], context: Context, *, main: bool, nulls: Sequence[Line] = ()) -> Figure:
    """Return one panel per text that belongs to no task, or per text if every one belongs to a task.

    All lines are of one measure. Of ``nulls``, the lines of ``<measure>_null`` become one grey band a panel. The
    ``main`` measure of a run, if it is RSA, is called ``rsa`` in the file's name.
    """
    name = similar[0].name
    null = dataclasses.replace(name, derived="null")
    rsa = name.measure.family == "RSA"
    texts = list(dict.fromkeys(line.data for line in similar))
    of_tasks = set(context.own_text.values())
    outside = [text for text in texts if text not in of_tasks] or texts
    panels = tuple(
        Panel(
            f"on {text}",
            name.axis,
            (
                *(Curve(line.model, line, slot(line.model, context)) for line in in_order(similar, context, data=text)),
                *null_band([line for line in nulls if line.data == text and line.name == null]),
            ),
        )
        for text in outside
    )
    shown = [line for line in shown_lines(panels) if line.name == name]
    several = len({line.model for line in nulls if line.name == null}) > 1
    grey = f" {NULL_CAPTION}{LARGEST if several else ''}." if len(shown) < len(shown_lines(panels)) else ""
    noise = f" {NOISE_CAPTION}" if any(is_noise(line.model) for line in shown) else ""
    return Figure(
        f"{'rsa' if main and rsa else name}_by_layer",
        f"{'Representational similarity' if rsa else 'CKA'} of each layer to the base encoder",
        f"1 = the layer is unchanged by fine-tuning. {interval(shown, 'sentence')}{noise}{grey}",
        panels,
    )


def null_band(nulls: Sequence[Line]) -> list[Curve]:
    """Return one curve of the largest null mean and bound among the encoders, or none."""
    if not nulls:
        return []
    longest = max(nulls, key=lambda line: len(line.layers))
    means, highs = [], []
    for layer in longest.layers:
        at = [(line, place) for line in nulls if (place := line.at(layer)) is not None]
        means.append(max(line.values[place] for line, place in at))
        highs.append(max((high for line, place in at if (high := line.highs[place]) is not None), default=None))
    lows = tuple(None if high is None else mean for mean, high in zip(means, highs, strict=True))
    band = dataclasses.replace(longest, model="null", values=tuple(means), lows=lows, highs=tuple(highs))
    return [Curve("null", band, "muted", "dot", False)]


def domains(similar: Sequence[Line], context: Context) -> Figure | None:
    """Return one panel per task: its own text, the other tasks' texts, and texts of no task."""
    styles = {"own": ("solid", True), "out": ("dash", True), "other": ("dot", False)}
    panels = []
    for model in context.tuned:
        of_model = [line for line in similar if line.model == model]
        relations = {context.relation(model, line.data) for line in of_model}
        if "own" not in relations or len(relations) < 2:
            continue
        curves = []
        for line in sorted(of_model, key=lambda line: list(styles).index(context.relation(model, line.data))):
            relation = context.relation(model, line.data)
            dash, emphasis = styles[relation]
            label = f"{line.data} (own)" if relation == "own" else line.data
            curves.append(Curve(label, line, slot(model, context) if emphasis else "muted", dash, emphasis))
        panels.append(Panel(f"fine-tuned on {model}", similar[0].name.axis, tuple(curves)))
    if not panels:
        return None
    return Figure(
        "rsa_domains",
        "The same similarity on the task's own text and on other text",
        "Solid: the dev text of the task. Dashed: text of no task. Dotted: the dev texts of other tasks. "
        + interval(shown_lines(panels), "sentence"),
        tuple(panels),
    )
