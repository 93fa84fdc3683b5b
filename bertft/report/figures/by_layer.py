"""Similarity of each layer to the base encoder."""

from __future__ import annotations

from collections.abc import Sequence

from bertft.report.figure import Curve, Figure, Panel, in_order, interval, shown_lines, slot
from bertft.report.lines import Context, Line


def by_layer(similar: Sequence[Line], context: Context, *, main: bool) -> Figure:
    """Return one panel per text that belongs to no task, or per text if every one belongs to a task.

    All lines are of one measure. The ``main`` measure of a run, if it is RSA, is called ``rsa`` in the file's name.
    """
    name = similar[0].name
    rsa = name.measure.family == "RSA"
    texts = list(dict.fromkeys(line.data for line in similar))
    of_tasks = set(context.own_text.values())
    outside = [text for text in texts if text not in of_tasks] or texts
    panels = tuple(
        Panel(
            f"on {text}",
            name.axis,
            tuple(Curve(line.model, line, slot(line.model, context)) for line in in_order(similar, context, data=text)),
        )
        for text in outside
    )
    return Figure(
        f"{'rsa' if main and rsa else name}_by_layer",
        f"{'Representational similarity' if rsa else 'CKA'} of each layer to the base encoder",
        f"1 = the layer is unchanged by fine-tuning. {interval(shown_lines(panels), 'sentence')}",
        panels,
    )


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
