"""The findings in words, computed from the numbers: every sentence is a function of the results table."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from bertft.report.figures.ablation import ablated
from bertft.report.figures.probes import MEASURES
from bertft.report.lines import BASE, RANDOM, Context, Line, apart, lines, number, point, score
from bertft.runs.own_text import TASK as OWN_TEXT
from bertft.runs.own_text import less
from bertft.runs.rows import Row

SCORES = {
    "las_conll18": "LAS",
    "uas_conll18": "UAS",
    "accuracy": "accuracy",
    "f1": "F1",
    "exact_match": "exact match",
}


RANKED = 3  # layers that are named from the most changed on
FEW = 20  # words of a class that is spoken of


def headline(rows: Sequence[Row], context: Context) -> list[tuple[str, list[str]]]:
    """Headed groups of sentences: what changed, where, what was kept, and how well the tasks were learnt."""
    similar = [line for line in lines(rows, "rsa") if line.measure.startswith("rsa_")]
    probed = lines(rows, "structural")
    groups = [
        ("What changed", _changed(similar, context)),
        ("Which of two changed more", _pairs(lines(rows, "difference"))),
        ("Own text against other text", _domains(similar, lines(rows, OWN_TEXT), context)),
        ("Which words moved", _words(lines(rows, "local"))),
        ("What the probes still find", _probes(probed, context)),
        ("What edge probes find", _edges(lines(rows, "edge"), context)),
        ("How much of the encoder a task needs", ablated(rows)),
        ("How well the tasks were learnt", _scores(rows, context)),
    ]
    return [(title, sentences) for title, sentences in groups if sentences]


WORK = {
    "models": "fine-tuning",
    "rsa": "comparing",
    "words": "local RSA",
    "probes": "structural probes",
    "edge": "edge probes",
    "freeze": "freezing",
    "truncate": "truncation",
}
"""Stages of a run folder, by the first part of their names."""


def cost(record: Mapping[str, Any]) -> str:
    """What the run took, by ``run.json``: time in all and by kind of work, disk, memory; empty if it says nothing."""
    spent: dict[str, float] = {}
    for stage, seconds in (record.get("seconds") or {}).items():
        kind = str(stage).partition("/")[0]
        spent[WORK.get(kind, kind)] = spent.get(WORK.get(kind, kind), 0.0) + float(seconds)
    parts = []
    if spent:
        by_kind = ", ".join(f"{kind} {_time(seconds)}" for kind, seconds in spent.items())
        parts.append(f"{_time(sum(spent.values()))} of work" + (f" ({by_kind})" if len(spent) > 1 else ""))
    if record.get("disk"):
        parts.append(f"{_bytes(record['disk'])} on disk")
    if record.get("memory"):
        parts.append(f"at most {_bytes(record['memory'])} of memory")
    return f"{', '.join(parts)}." if parts else ""


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _bytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _reference(similar: list[Line], model: str, context: Context) -> Line | None:
    """The line to speak of: on text of no task if there is one, else on the task's own, else any."""
    of_model = [line for line in similar if line.model == model]
    order = ("out", "own", "other")
    return min(of_model, key=lambda line: order.index(context.relation(model, line.data)), default=None)


def _changed(similar: list[Line], context: Context) -> list[str]:
    found = [(model, line) for model in context.tuned if (line := _reference(similar, model, context))]
    sentences = []
    for model, line in found:
        deepest = line.lowest()
        lost = [1 - value for value in line.values]
        if lost[deepest] < 0.0005:
            sentences.append(
                f"{model}: no layer changed: similarity to the base encoder is 1.000 throughout on {line.data}."
            )
            continue
        half = next(i for i, loss in enumerate(lost) if loss >= lost[deepest] / 2)
        sentences.append(
            f"{model}: layer {line.layers[deepest]} changed most, its similarity to the base encoder is "
            f"{point(line, deepest)} on {line.data} (1 = unchanged){_next(line)}; half of that change is reached at "
            f"layer {line.layers[half]} of {line.layers[-1]}."
        )
    if len(found) > 1:
        sentences.append(_ranking(found))
    return sentences


def _next(line: Line) -> str:
    """The layers that changed most after the first, and whether one's interval overlaps that of the one before."""
    order = sorted(range(len(line.values)), key=line.values.__getitem__)[:RANKED]
    parts = []
    for before, at in itertools.pairwise(order):
        remark = ", intervals overlap" if apart(line, before, line, at) is False else ""
        parts.append(f"layer {line.layers[at]} ({point(line, at)}{remark})")
    return f", then {' and '.join(parts)}" if parts else ""


def _ranking(found: list[tuple[str, Line]]) -> str:
    """The tasks by similarity of the top layer, with a word on neighbours whose intervals overlap."""
    ordered = sorted(found, key=lambda item: item[1].values[-1])
    text = ", ".join(f"{model} {point(line, len(line.values) - 1)}" for model, line in ordered)
    unclear = [
        f"{a} and {b}"
        for (a, one), (b, two) in itertools.pairwise(ordered)
        if apart(one, len(one.values) - 1, two, len(two.values) - 1) is False
    ]
    remark = f"; the intervals of {', of '.join(unclear)} overlap" if unclear else ""
    return f"At the top layer, from most to least changed: {text}{remark}."


def _pairs(differences: list[Line]) -> list[str]:
    """The paired difference of two tuned encoders' RSA at the top layer, and at how many layers it is clear of 0."""
    sentences = []
    for line in differences:
        if not line.measure.startswith("rsa_"):
            continue
        first, _, second = line.model.partition(" - ")
        ends = list(zip(line.lows, line.highs, strict=True))
        nearer = sum(low is not None and low > 0 for low, _ in ends)
        farther = sum(high is not None and high < 0 for _, high in ends)
        sentences.append(
            f"{first} and {second}, similarity of {first} less that of {second} on {line.data}: "
            f"{point(line, len(line.values) - 1)} at layer {line.layers[-1]}. Of {len(line.layers)} layers {first} is "
            f"clearly nearer to the base encoder at {nearer}, {second} at {farther} (paired over the same texts)."
        )
    return sentences


def _domains(similar: list[Line], differences: list[Line], context: Context) -> list[str]:
    """The top layer on own text and on text of no task; the difference seed by seed where the rows have it."""
    found = {(line.model, line.data, line.measure): line for line in differences}
    sentences = []
    for model in context.tuned:
        by_relation: dict[str, list[Line]] = {}
        for line in similar:
            if line.model == model:
                by_relation.setdefault(context.relation(model, line.data), []).append(line)
        if "own" not in by_relation or "out" not in by_relation:
            continue
        own, out = by_relation["own"][0], by_relation["out"][0]
        shared = [layer for layer in own.layers if layer in out.layers]
        if not shared:
            continue
        top = shared[-1]
        i, j = own.layers.index(top), out.layers.index(top)
        lower = sum(own.values[own.layers.index(x)] < out.values[out.layers.index(x)] for x in shared)
        if f"{own.values[i]:.3f}" == f"{out.values[j]:.3f}":
            sentences.append(
                f"{model}: at layer {top} similarity is the same on its own text and on {out.data} ({point(own, i)})."
            )
            continue
        word = "lower" if own.values[i] < out.values[j] else "higher"
        gap = found.get((model, f"{own.data} - {out.data}", f"{own.measure}_difference"))
        place = None if gap is None else gap.at(top)
        if gap is not None and place is not None:
            by = point(gap, place)
        else:
            by = number(*less((own.values[i], own.lows[i], own.highs[i]), (out.values[j], out.lows[j], out.highs[j])))
        sentences.append(
            f"{model}: at layer {top} similarity is {word} on its own text ({point(own, i)}) than on {out.data} "
            f"({point(out, j)}), a difference of {by}; it is lower on its own text at {lower} of {len(shared)} layers."
        )
    return sentences


def _words(local: list[Line]) -> list[str]:
    """Of each encoder the class of words that moved most and the one that moved least at the top layer, by the kind of
    class that was asked for first; classes of fewer than `FEW` words are left out."""
    sentences = []
    for model in dict.fromkeys(line.model for line in local):
        own = [line for line in local if line.model == model and (line.n[-1] or 0) >= FEW]
        kind = next((line.measure.partition("=")[0] for line in own), "")
        ranked = sorted((line for line in own if line.measure.startswith(f"{kind}=")), key=lambda line: line.values[-1])
        if len(ranked) < 2:
            continue
        most, least = (
            f"{line.measure.partition('=')[2]} {point(line, len(line.values) - 1)}" for line in (ranked[0], ranked[-1])
        )
        sentences.append(
            f"{model}: by {kind.removeprefix('local_rsa_')} at layer {ranked[0].layers[-1]} on {ranked[0].data}, local "
            f"RSA is lowest for {most}, highest for {least}."
        )
    return sentences


def _probes(probed: list[Line], context: Context) -> list[str]:
    """One sentence a measure: each encoder at its best layer, against the base at its own."""
    sentences = []
    for measure in MEASURES:
        if parts := _best(probed, measure, context):
            sentences.append(f"{MEASURES[measure][1].split(' (')[0]} at the best layer: {', '.join(parts)}.")
    return sentences


def _edges(probed: list[Line], context: Context) -> list[str]:
    """The same a task of edge probes, of single layers, with what the base has of control labels there."""
    sentences = []
    for data in dict.fromkeys(line.data for line in probed):
        own = [line for line in probed if line.data == data]
        scored = {line.model: line for line in own if line.measure == "micro_f1"}
        parts = _best(own, "micro_f1", context)
        for line in own:
            if line.measure == "control_micro_f1" and line.model == BASE and BASE in scored:
                place = line.at(scored[BASE].layers[scored[BASE].highest()])
                parts += [] if place is None else [f"base on control labels there {point(line, place)}"]
        if parts:
            sentences.append(f"{data}, micro-F1 at the best layer: {', '.join(parts)}.")
    return sentences


def _best(probed: list[Line], measure: str, context: Context) -> list[str]:
    """The base at its best layer, every other encoder at its own by its difference; nothing without a base.

    The difference has the interval of a paired comparison where it is of one layer, which is what was compared.
    """
    words = {True: "intervals apart", False: "intervals overlap", None: "no interval"}
    of_measure = {line.model: line for line in probed if line.measure == measure}
    paired = {line.model: line for line in probed if line.measure == f"{measure}_difference"}
    base = of_measure.get(BASE)
    if base is None:
        return []
    best = base.highest()
    parts = [f"base {point(base, best)} (layer {base.layers[best]})"]
    for model in (model for model in context.tuned if model in of_measure):
        line = of_measure[model]
        top = line.highest()
        gap = f"{round(line.values[top] - base.values[best], 3) + 0.0:+.3f}"
        remark = words[apart(line, top, base, best)]
        if line.layers[top] == base.layers[best] and model in paired:
            place = paired[model].at(line.layers[top])
            if place is not None and paired[model].lows[place] is not None:
                interval = point(paired[model], place).partition(" ")[2]
                gap, remark = f"{round(paired[model].values[place], 3) + 0.0:+.3f} {interval}", "paired"
        parts.append(f"{model} {gap} (layer {line.layers[top]}, {remark})")
    if RANDOM in of_measure:
        random = of_measure[RANDOM]
        parts.append(f"a random encoder {point(random, random.highest())}")
    return parts


def _scores(rows: Sequence[Row], context: Context) -> list[str]:
    """Each task's scores on its dev text, then on others that it was scored on."""
    sentences = []
    for model in context.tuned:
        by_text: dict[str, list[str]] = {}
        for row in rows:
            if row.model == model and row.task == "finetune" and row.layer is None and row.measure in SCORES:
                by_text.setdefault(row.data, []).append(f"{SCORES[row.measure]} {score(row)}")
        dev = model  # a study calls a task's dev text so
        parts = [
            f"{', '.join(scores)} on {'its dev text' if text == dev or len(by_text) == 1 else text}"
            for text, scores in sorted(by_text.items(), key=lambda item: item[0] != dev)
        ]
        if parts:
            sentences.append(f"{model}: {'; '.join(parts)}.")
    return sentences
