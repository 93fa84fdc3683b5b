"""Findings in sentences, computed from the results table."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from bertft.report.figures.ablation import ablated
from bertft.report.figures.probes import STRUCTURAL
from bertft.report.left_out import left_out
from bertft.report.lines import Context, Line, apart, lines, number, point, score
from bertft.report.similar import HARDLY, half, is_rsa, reference
from bertft.runs.pooling import less
from bertft.runs.rows import Row
from bertft.runs.units import duration, size
from bertft.runs.vocabulary import BASE, OWN_TEXT, RANDOM, MeasureName, operands, pair

SCORES = ("las_conll18", "uas_conll18", "accuracy", "f1", "exact_match")
"""Scores of tasks that a sentence reports."""

RANKED = 3  # number of most-changed layers to list
FEW = 20  # smallest number of words of a class to report
OTHERS = ("(rarer words)",)  # labels that gather what is no class, as `bertft.similarity.words.labels` writes them
MICRO_F1 = MeasureName("micro_f1")


def headline(rows: Sequence[Row], context: Context) -> list[tuple[str, list[str]]]:
    """Return titled groups of sentences: what changed, where, what probes read, and how well the tasks were learnt."""
    similar = [line for line in lines(rows, "rsa") if is_rsa(line)]
    groups = [
        ("What changed", _changed(similar, context)),
        ("Which of two encoders changed more", _pairs(lines(rows, "difference"), context)),
        ("Own text against other text", _domains(similar, lines(rows, OWN_TEXT), context)),
        ("What decides the sums", left_out(rows)),
        ("Which words moved", _words(lines(rows, "local"))),
        ("What structural probes find", _probes(lines(rows, "structural"), context)),
        ("What edge probes find", _edges(lines(rows, "edge"), context)),
        ("How much of the encoder a task needs", ablated(rows)),
        ("How well the tasks were learnt", _scores(rows, context)),
    ]
    return [(title, sentences) for title, sentences in groups if sentences]


WORK = {
    "models": "fine-tuning",
    "rsa": "comparison",
    "words": "local RSA",
    "forms": "local RSA",
    "probes": "structural probes",
    "edge": "edge probes",
    "freeze": "freezing",
    "truncate": "truncation",
}
"""Kinds of work by the first part of a stage's name."""


def cost(record: Mapping[str, Any]) -> str:
    """Return the time, disk and memory that ``run.json`` records; empty if it records none."""
    spent: dict[str, float] = {}
    for stage, seconds in (record.get("seconds") or {}).items():
        kind = str(stage).partition("/")[0]
        spent[WORK.get(kind, kind)] = spent.get(WORK.get(kind, kind), 0.0) + float(seconds)
    parts = []
    if spent:
        by_kind = ", ".join(f"{kind} {duration(seconds)}" for kind, seconds in spent.items())
        parts.append(f"{duration(sum(spent.values()))} of work" + (f" ({by_kind})" if len(spent) > 1 else ""))
    if record.get("disk"):
        parts.append(f"{size(record['disk'])} on disk")
    if record.get("memory"):
        parts.append(f"at most {size(record['memory'])} of memory")
    return f"{', '.join(parts)}." if parts else ""


def _changed(similar: Sequence[Line], context: Context) -> list[str]:
    found = [(model, line) for model in context.tuned if (line := reference(similar, model, context))]
    sentences = []
    for model, line in found:
        deepest = line.lowest()
        lost = [1 - value for value in line.values]
        if lost[deepest] < HARDLY:
            sentences.append(
                f"{model}: no layer changed. Similarity to the base encoder is 1.000 at every layer on {line.data}."
            )
            continue
        sentences.append(
            f"{model}: layer {line.layers[deepest]} changed most. Its similarity to the base encoder on {line.data} is "
            f"{point(line, deepest)} (1 = unchanged).{_next(line)} Half of that change is reached at layer "
            f"{line.layers[half(line)]} of {line.layers[-1]}."
        )
    if len(found) > 1:
        sentences.append(_ranking(found))
    return sentences


def _next(line: Line) -> str:
    """Return the layers that changed most after the first, noting where neighbours' intervals overlap."""
    order = sorted(range(len(line.values)), key=line.values.__getitem__)[:RANKED]
    parts = []
    for before, at in itertools.pairwise(order):
        remark = ", intervals overlap" if apart(line, before, line, at) is False else ""
        parts.append(f"layer {line.layers[at]} ({point(line, at)}{remark})")
    return f" Next: {', '.join(parts)}." if parts else ""


def _ranking(found: Sequence[tuple[str, Line]]) -> str:
    """Return the tasks by similarity of the top layer, noting neighbours whose intervals overlap."""
    ordered = sorted(found, key=lambda item: item[1].values[-1])
    text = ", ".join(f"{model} {point(line, len(line.values) - 1)}" for model, line in ordered)
    unclear = [
        f"{a} and {b}"
        for (a, one), (b, two) in itertools.pairwise(ordered)
        if apart(one, len(one.values) - 1, two, len(two.values) - 1) is False
    ]
    remark = f" The intervals of {', of '.join(unclear)} overlap." if unclear else ""
    return f"At the top layer, from most to least changed: {text}.{remark}"


def _pairs(differences: Sequence[Line], context: Context) -> list[str]:
    """Return the paired difference of two tuned encoders' RSA at the top layer, and at how many layers it is not 0."""
    sentences = []
    for line in differences:
        if not is_rsa(line):
            continue
        first, second = operands(line.model, context.models)
        nearer = sum(low is not None and low > 0 for low in line.lows)
        farther = sum(high is not None and high < 0 for high in line.highs)
        sentence = (
            f"{first} and {second} on {line.data}: at layer {line.layers[-1]} the similarity of {first} to the base "
            f"encoder minus that of {second} is {point(line, len(line.values) - 1)}."
        )
        if any(low is not None for low in line.lows):
            sentence += (
                f" The interval, paired by text, excludes 0 at {nearer + farther} of {len(line.layers)} layers: "
                f"{first} is more similar to the base encoder at {nearer}, {second} at {farther}."
            )
        sentences.append(sentence)
    return sentences


def _domains(similar: Sequence[Line], differences: Sequence[Line], context: Context) -> list[str]:
    """Return the top layer's similarity on own text and on text of no task, with the pooled difference if any."""
    found = {(line.model, line.data, line.name): line for line in differences}
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
        name = dataclasses.replace(own.name, derived="difference")
        gap = found.get((model, pair(own.data, out.data), name))
        place = None if gap is None else gap.at(top)
        if gap is not None and place is not None:
            by = point(gap, place)
        else:
            by = number(*less((own.values[i], own.lows[i], own.highs[i]), (out.values[j], out.lows[j], out.highs[j])))
        sentences.append(
            f"{model}: at layer {top} similarity is {word} on its own text ({point(own, i)}) than on {out.data} "
            f"({point(out, j)}). The difference is {by}. Similarity is lower on its own text at {lower} of "
            f"{len(shared)} layers."
        )
    return sentences


def classes(local: Sequence[Line], model: str, data: str) -> list[Line]:
    """Return a line of local RSA for each class of words of a text, the one that moved most at the top layer first.

    The classes are those of the first requested grouping. Classes of fewer than `FEW` words are omitted.
    """
    own = [line for line in local if (line.model, line.data) == (model, data) and line.name.grouping]
    own = [line for line in own if (line.n[-1] or 0) >= FEW and line.name.label not in OTHERS]
    first = [line for line in own if line.name.grouping == own[0].name.grouping]
    return sorted(first, key=lambda line: line.values[-1])


def _words(local: Sequence[Line]) -> list[str]:
    """Return each encoder's word classes that moved most and least at the top layer of each text."""
    sentences = []
    for model, data in dict.fromkeys((line.model, line.data) for line in local):
        ranked = classes(local, model, data)
        if len(ranked) < 2:
            continue
        most, least = (f"{line.name.label} {point(line, len(line.values) - 1)}" for line in (ranked[0], ranked[-1]))
        first = ranked[0]
        sentences.append(
            f"{model}, by {first.name.grouping}, layer {first.layers[-1]} on {first.data}: local RSA is lowest for "
            f"{most} and highest for {least}."
        )
    return sentences


def _probes(probed: Sequence[Line], context: Context) -> list[str]:
    """Return one sentence per measure: each encoder at its best layer, against the base at its own."""
    sentences = []
    for measure in STRUCTURAL:
        name = MeasureName(measure)
        if parts := at_best(probed, name, context):
            sentences.append(f"{name.short} at the best layer: {', '.join(parts)}.")
    return sentences


def _edges(probed: Sequence[Line], context: Context) -> list[str]:
    """Return one sentence per task of edge probes of single layers, with the base's score on control labels."""
    sentences = []
    control = dataclasses.replace(MICRO_F1, control=True)
    for data in dict.fromkeys(line.data for line in probed):
        own = [line for line in probed if line.data == data]
        scored = {line.model: line for line in own if line.name == MICRO_F1}
        parts = at_best(own, MICRO_F1, context)
        for line in own:
            if line.name == control and line.model == BASE and BASE in scored:
                place = line.at(scored[BASE].layers[scored[BASE].highest()])
                parts += [] if place is None else [f"base on control labels at that layer {point(line, place)}"]
        if parts:
            sentences.append(f"{data}, micro-F1 at the best layer: {', '.join(parts)}.")
    return sentences


def at_best(probed: Sequence[Line], name: MeasureName, context: Context) -> list[str]:
    """Return the base at its best layer and every other encoder at its own by its difference; nothing without a base.

    If both best layers are the same, the difference is the paired one, with its interval.
    """
    words = {True: "intervals disjoint", False: "intervals overlap", None: "no interval"}
    of_measure = {line.model: line for line in probed if line.name == name}
    gaps = dataclasses.replace(name, derived="difference")
    paired = {line.model: line for line in probed if line.name == gaps}
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
    """Return each task's scores on its dev text, then on other texts."""
    sentences = []
    for model in context.tuned:
        by_text: dict[str, list[str]] = {}
        for row in rows:
            if row.model == model and row.task == "finetune" and row.layer is None and row.measure in SCORES:
                by_text.setdefault(row.data, []).append(f"{MeasureName.parse(row.measure).short} {score(row)}")
        dev = model  # a study names the dev text after the task
        parts = [
            f"{', '.join(scores)} on {'its dev text' if text == dev or len(by_text) == 1 else text}"
            for text, scores in sorted(by_text.items(), key=lambda item: item[0] != dev)
        ]
        if parts:
            sentences.append(f"{model}: {'; '.join(parts)}.")
    return sentences
