"""The figures of the probes: every score by layer, with its control in the same panel."""

from __future__ import annotations

import re

from bertft.report.figures.catalogue import Curve, Figure, Panel, in_order, interval, slot
from bertft.report.lines import RANDOM, Context, Line

MEASURES = {
    "dspr": ("Tree distances", "DSpr (Spearman, mean of lengths 5–50)"),
    "uuas": ("Tree edges", "UUAS (share of gold edges)"),
    "nspr": ("Tree depths", "NSpr (Spearman, mean of lengths 5–50)"),
    "root_accuracy": ("Root", "root accuracy (share of sentences)"),
}
"""Structural-probe measures: panel title and axis label."""

CONTROL = "control_"
DERIVED = re.compile(r"_(selectivity|difference|difference_p)(_rank\d+|_orthogonal|_rbf)?$")
"""Measures that are differences of drawn ones: in the table, not in the figures."""


def structural_figure(probed: list[Line], context: Context) -> Figure:
    """One panel a measure; of several ranks the highest, for the others differ in height more than in shape."""
    # Orthogonal and RBF probes are in the table: their curves would hide those of the plain ones.
    plain = [line for line in probed if not line.measure.endswith(("_orthogonal", "_rbf"))]
    drawn = [line for line in plain if not DERIVED.search(line.measure)]
    ranks = sorted({int(found[1]) for line in drawn if (found := re.search(r"_rank(\d+)$", line.measure))})
    if ranks:
        drawn = [line for line in drawn if line.measure.endswith(f"_rank{ranks[-1]}")]
    suffix = f"_rank{ranks[-1]}" if ranks else ""
    present = dict.fromkeys(line.measure.removeprefix(CONTROL).removesuffix(suffix) for line in drawn)
    panels = []
    for measure in dict.fromkeys([*(m for m in MEASURES if m in present), *present]):
        title, label = MEASURES.get(measure, (measure, measure))
        panels.append(Panel(title, label, _curves(drawn, measure + suffix, context)))
    shown = [curve.line for panel in panels for curve in panel.curves]
    notes = ""
    if RANDOM in context.models:
        notes += " random: the same architecture with weights drawn anew, the control."
    if any(line.measure.startswith(CONTROL) for line in shown):
        notes += " Dotted: the same probe on control trees, which follow from the words alone."
    if ranks:
        notes += f" Probes of rank {ranks[-1]}; the table also has rank {', '.join(map(str, ranks[:-1]))}."
    return Figure(
        "probes_by_layer",
        "What structural probes read from each layer",
        f"Measured on {', '.join(dict.fromkeys(line.data for line in shown))}.{notes} {interval(shown, 'sentences')}",
        tuple(panels),
        share_y=False,
        columns=2,
    )


def rank_figure(probed: list[Line], context: Context) -> Figure | None:
    """A panel a measure: each model's score by rank, at the layer that is best at the highest rank, and its control."""
    by: dict[tuple[str, str], dict[int, Line]] = {}
    for line in probed:
        found = re.fullmatch(r"(.+)_rank(\d+)", line.measure)
        if found and not DERIVED.search(line.measure):
            by.setdefault((line.model, found[1]), {})[int(found[2])] = line
    panels = []
    for measure, (title, label) in MEASURES.items():
        curves = []
        for model in context.models:
            own = by.get((model, measure), {})
            if len(own) < 2:
                continue
            best = own[max(own)].layers[own[max(own)].highest()]
            style = "dash" if model == RANDOM else "solid"
            curves.append(Curve(f"{model}, layer {best}", _by_rank(own, best), slot(model, context), style))
            if control := by.get((model, CONTROL + measure)):
                line = _by_rank(control, best)
                curves.append(Curve(f"{model}, control", line, slot(model, context), "dot", False))
        if curves:
            panels.append(Panel(title, label, tuple(curves)))
    if not panels:
        return None
    shown = [curve.line for panel in panels for curve in panel.curves]
    return Figure(
        "probes_by_rank",
        "How many directions the probes need",
        "At the layer that is best at the highest rank. Dotted: the same layer's probe on control trees. "
        + interval(shown, "sentences"),
        tuple(panels),
        xlabel="rank of the probe",
        share_y=False,
        columns=2,
        x="rank",
    )


def _by_rank(lines: dict[int, Line], layer: int) -> Line:
    """One layer's score of lines by rank, as a line over ranks."""
    ranks = sorted(lines)
    places = [(lines[rank], position) for rank in ranks if (position := lines[rank].at(layer)) is not None]
    first = lines[ranks[0]]
    return Line(
        first.model,
        first.data,
        re.sub(r"_rank\d+$", "", first.measure),
        tuple(ranks),
        tuple(line.values[k] for line, k in places),
        tuple(line.lows[k] for line, k in places),
        tuple(line.highs[k] for line, k in places),
        tuple(line.n[k] for line, k in places),
    )


def edge_figure(probed: list[Line], context: Context) -> Figure:
    """Two panels a task: each layer alone, and the mix of all layers up to it, both with their control."""
    panels = []
    for data in dict.fromkeys(line.data for line in probed):
        own = [line for line in probed if line.data == data]
        for measure, what in (("micro_f1", "one layer"), ("mix_micro_f1", "mix of all layers up to it")):
            curves = _curves(own, measure, context)
            if curves:
                panels.append(Panel(f"{data}: {what}", "micro-F1", curves))
    shown = [curve.line for panel in panels for curve in panel.curves]
    control = any("control_" in line.measure for line in shown)
    note = "Dotted: the same probe on control labels, one draw a word type. " if control else ""
    return Figure(
        "edge_by_layer",
        "What edge probes read from the layers",
        f"{note}{interval(shown, 'texts')}",
        tuple(panels),
        columns=2,
    )


def _curves(lines: list[Line], measure: str, context: Context) -> tuple[Curve, ...]:
    """A measure of every model, and of the models that have one the control."""
    prefix = "mix_" if measure.startswith("mix_") else ""
    control = f"{prefix}{CONTROL}{measure.removeprefix(prefix)}"
    curves = []
    for line in in_order([line for line in lines if line.measure == measure], context):
        name = "random" if line.model == RANDOM else line.model
        curves.append(Curve(name, line, slot(line.model, context), "dash" if line.model == RANDOM else "solid"))
    for line in in_order([line for line in lines if line.measure == control], context):
        curves.append(Curve(f"{line.model}, control", line, slot(line.model, context), "dot", False))
    return tuple(curves)
