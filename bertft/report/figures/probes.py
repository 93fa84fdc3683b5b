"""Scores of probes by layer, beside their controls."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from bertft.report.figure import Curve, Figure, Panel, in_order, interval, shown_lines, slot
from bertft.report.lines import Context, Line
from bertft.runs.vocabulary import CATALOGUE, RANDOM, MeasureName

STRUCTURAL = tuple(name for name, measure in CATALOGUE.items() if measure.family == "structural")
"""Measures of structural probes, in the order of their panels."""

MICRO_F1 = MeasureName("micro_f1")
PANELS = {MICRO_F1: "one layer", dataclasses.replace(MICRO_F1, input="mix"): "mix of all layers up to it"}


def structural_figure(probed: Sequence[Line], context: Context) -> Figure:
    """Return one panel per measure, of the highest rank: ranks differ in height more than in shape.

    Orthogonal and RBF probes are only in the table: their curves would hide those of the linear ones.
    """
    drawn = [line for line in probed if line.name.derived is None and _rank(line) is not None]
    ranks = sorted({_rank(line) or 0 for line in drawn} - {0})
    if ranks:
        drawn = [line for line in drawn if _rank(line) == ranks[-1]]
    present = dict.fromkeys(dataclasses.replace(line.name, control=False) for line in drawn)
    panels = [Panel(name.title, name.axis, _curves(drawn, name, context)) for name in sorted(present, key=_position)]
    shown = shown_lines(panels)
    notes = ""
    if RANDOM in context.models:
        notes += " random: the same architecture with newly drawn weights, as a control."
    if any(line.name.control for line in shown):
        notes += " Dotted: the same probe on control trees, which depend only on the words."
    if ranks:
        notes += f" Probes of rank {ranks[-1]}."
    if ranks[:-1]:
        notes += f" The table also has rank {', '.join(map(str, ranks[:-1]))}."
    return Figure(
        "probes_by_layer",
        "What structural probes read from each layer",
        f"Measured on {', '.join(dict.fromkeys(line.data for line in shown))}.{notes} {interval(shown, 'sentence')}",
        tuple(panels),
        share_y=False,
        columns=2,
    )


def rank_figure(probed: Sequence[Line], context: Context) -> Figure | None:
    """Return one panel per measure: each encoder's score by rank, with its control; None without two ranks.

    The layer of an encoder is its best one at the highest rank.
    """
    by: dict[tuple[str, str, bool], dict[int, Line]] = {}
    for line in probed:
        if line.name.derived is None and (rank := _rank(line)):
            by.setdefault((line.model, line.name.base, line.name.control), {})[rank] = line
    panels = []
    for measure in STRUCTURAL:
        curves = []
        for model in context.models:
            own = by.get((model, measure, False), {})
            if len(own) < 2:
                continue
            best = own[max(own)].layers[own[max(own)].highest()]
            style = "dash" if model == RANDOM else "solid"
            curves.append(Curve(f"{model}, layer {best}", _by_rank(own, best), slot(model, context), style))
            if control := by.get((model, measure, True)):
                line = _by_rank(control, best)
                curves.append(Curve(f"{model}, control", line, slot(model, context), "dot", False))
        if curves:
            name = MeasureName(measure)
            panels.append(Panel(name.title, name.axis, tuple(curves)))
    if not panels:
        return None
    return Figure(
        "probes_by_rank",
        "How many directions the probes need",
        "At the layer that is best at the highest rank. Dotted: the probe of the same layer on control trees. "
        + interval(shown_lines(panels), "sentence"),
        tuple(panels),
        xlabel="rank of the probe",
        share_y=False,
        columns=2,
        x="rank",
    )


def edge_figure(probed: Sequence[Line], context: Context) -> Figure:
    """Return two panels per task: each layer alone, and the mix of all layers up to it, both with their control."""
    panels = []
    for data in dict.fromkeys(line.data for line in probed):
        own = [line for line in probed if line.data == data]
        for name, what in PANELS.items():
            if curves := _curves(own, name, context):
                panels.append(Panel(f"{data}: {what}", name.axis, curves))
    shown = shown_lines(panels)
    note = ""
    if any(line.name.control for line in shown):
        note = "Dotted: the same probe on control labels, drawn once per word type. "
    return Figure(
        "edge_by_layer",
        "What edge probes read from the layers",
        f"{note}{interval(shown, 'text')}",
        tuple(panels),
        columns=2,
    )


def _rank(line: Line) -> int | None:
    """Return the rank of a linear probe, 0 if all probes are of one rank; None for other kinds of probes."""
    probe = line.name.probe
    return 0 if probe is None else probe.rank


def _position(name: MeasureName) -> int:
    return STRUCTURAL.index(name.base) if name.base in STRUCTURAL else len(STRUCTURAL)


def _by_rank(lines: Mapping[int, Line], layer: int) -> Line:
    """Return one layer's score as a line over ranks."""
    places = [(rank, line, at) for rank, line in sorted(lines.items()) if (at := line.at(layer)) is not None]
    _, first, _ = places[0]
    return Line(
        first.model,
        first.data,
        str(dataclasses.replace(first.name, probe=None)),
        tuple(rank for rank, _, _ in places),
        tuple(line.values[at] for _, line, at in places),
        tuple(line.lows[at] for _, line, at in places),
        tuple(line.highs[at] for _, line, at in places),
        tuple(line.n[at] for _, line, at in places),
    )


def _curves(lines: Sequence[Line], name: MeasureName, context: Context) -> tuple[Curve, ...]:
    """Return a measure of every encoder, then the controls."""
    curves = []
    for line in in_order((line for line in lines if line.name == name), context):
        curves.append(Curve(line.model, line, slot(line.model, context), "dash" if line.model == RANDOM else "solid"))
    control = dataclasses.replace(name, control=True)
    for line in in_order((line for line in lines if line.name == control), context):
        curves.append(Curve(f"{line.model}, control", line, slot(line.model, context), "dot", False))
    return tuple(curves)
