"""Which figures a run has, and what each shows: the one description that paper, screen, table and CSV are made from."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from bertft.report.lines import BASE, RANDOM, Context, Line, count, lines
from bertft.report.palette import SERIES
from bertft.runs.rows import Row

COMPARISONS = {"cka_debiased": "linear CKA, debiased (1 = same geometry)"}


@dataclass(frozen=True)
class Curve:
    """One drawn line. ``slot`` is its colour: a position in the palette, ``ink`` or ``muted``."""

    label: str
    line: Line
    slot: str
    dash: str = "solid"
    emphasis: bool = True


@dataclass(frozen=True)
class Panel:
    title: str
    ylabel: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Figure:
    """``name`` is its file's stem, ``x`` what a line runs over; ``caption`` says what the interval and n are."""

    name: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    xlabel: str = "layer (0 = embeddings)"
    share_y: bool = True
    columns: int = 3
    x: str = "layer"
    film: bool = False  # the curves of a panel are moments, which the page shows one after another

    def to_csv(self) -> str:
        """The numbers behind the figure, a row a point."""
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["panel", "curve", "model", "data", "measure", self.x, "value", "low", "high", "n"])
        for panel in self.panels:
            for curve in panel.curves:
                line = curve.line
                for layer, value, low, high, n in zip(
                    line.layers, line.values, line.lows, line.highs, line.n, strict=True
                ):
                    writer.writerow(
                        [panel.title, curve.label, line.model, line.data, line.measure, layer, value, low, high, n]
                    )
        return table.getvalue()


def slot(model: str, context: Context) -> str:
    """The colour of a model, the same in every figure."""
    if model == BASE:
        return "ink"
    if model == RANDOM:
        return "muted"
    return f"c{context.tuned.index(model) % SERIES}"


def figures(rows: Sequence[Row], context: Context) -> list[Figure]:
    """Every figure the rows have numbers for, the most telling first."""
    from bertft.report.figures.ablation import ablation_figure  # which build on this module
    from bertft.report.figures.probes import edge_figure, rank_figure, structural_figure
    from bertft.report.figures.training import film

    similar = lines(rows, "rsa")
    probed = lines(rows, "structural")
    found: list[Figure] = []
    measures = list(dict.fromkeys(line.measure for line in similar))
    by_measure = {measure: [line for line in similar if line.measure == measure] for measure in measures}
    for measure in measures[:1]:
        found.append(_by_layer(measure, by_measure[measure], context, first=True))
        domains = _domains(measure, by_measure[measure], context)
        found += [domains] if domains else []
    if probed:
        found.append(structural_figure(probed, context))
        ranked = rank_figure(probed, context)
        found += [ranked] if ranked else []
    if edges := lines(rows, "edge"):
        found.append(edge_figure(edges, context))
    found += [ablation_figure(kind, swept, context) for kind in ("freeze", "truncate") if (swept := lines(rows, kind))]
    found += [_by_layer(measure, by_measure[measure], context, first=False) for measure in measures[1:]]
    if moments := lines(rows, "along"):
        found.append(film(moments))
    return found


def axis_label(measure: str) -> str:
    """``rsa_cosine_pearson`` as words for an axis."""
    if measure in COMPARISONS:
        return COMPARISONS[measure]
    parts = measure.split("_")
    if parts[0] == "rsa" and len(parts) >= 3:
        compare = {"pearson": "Pearson r", "spearman": "Spearman ρ"}.get(parts[-1], parts[-1])
        return f"RSA similarity ({compare} of {' '.join(parts[1:-1])} RDMs)"
    return measure


def _by_layer(measure: str, similar: list[Line], context: Context, *, first: bool) -> Figure:
    texts = list(dict.fromkeys(line.data for line in similar))
    tasks_texts = set(context.own_text.values())
    outside = [text for text in texts if text not in tasks_texts] or texts
    panels = tuple(
        Panel(
            f"on {text}",
            axis_label(measure),
            tuple(Curve(line.model, line, slot(line.model, context)) for line in in_order(similar, context, data=text)),
        )
        for text in outside
    )
    shown = [curve.line for panel in panels for curve in panel.curves]
    kind = "Representational similarity" if measure.startswith("rsa_") else "CKA"
    return Figure(
        f"{'rsa' if first and measure.startswith('rsa_') else measure}_by_layer",
        f"{kind} of each layer to the base encoder",
        f"1 = the layer is as it was before fine-tuning. {interval(shown, 'sentences')}",
        panels,
    )


def _domains(measure: str, similar: list[Line], context: Context) -> Figure | None:
    """One panel a task: its own text, the other tasks' text, text outside every task."""
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
        panels.append(Panel(f"fine-tuned on {model}", axis_label(measure), tuple(curves)))
    if not panels:
        return None
    shown = [curve.line for panel in panels for curve in panel.curves]
    return Figure(
        "rsa_domains",
        "The same similarity on the task's own text and on other text",
        "Solid: the task's own dev text. Dashed: text of no task. Dotted: the other tasks' dev text. "
        + interval(shown, "sentences"),
        tuple(panels),
    )


def in_order(wanted: list[Line], context: Context, data: str | None = None) -> list[Line]:
    """The lines on one text (default all), in the order of the models."""
    chosen = [line for line in wanted if data is None or line.data == data]
    return sorted(chosen, key=lambda line: context.models.index(line.model))


def interval(shown: list[Line], cluster: str) -> str:
    """The sentence of a caption that says what the bands are and how many items there were."""
    banded = any(low is not None for line in shown for low in line.lows)
    n = count(shown)
    interval = f"Bands: 95 % interval, clustered by {cluster.removesuffix('s')}" if banded else "No intervals"
    return f"{interval}; {n}." if n else f"{interval}."
