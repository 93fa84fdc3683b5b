"""First screen of a study: which task moved the model most, and where."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from bertft.report.findings import SCORES, WORK, at_best, classes, cost
from bertft.report.lines import Context, Line, lines, point, score
from bertft.report.page.answer import MOST, Answer, Number, Said, number_at
from bertft.report.page.figure_section import Cell
from bertft.report.similar import HARDLY, derived, half, is_lower, is_rsa, reference, scale
from bertft.runs.rows import Row
from bertft.runs.vocabulary import MeasureName

NAMED = 3  # encoders whose words a line lists, and stages of a kind that are named
UUAS = MeasureName("uuas")


def study_answer(rows: Sequence[Row], context: Context, record: Mapping[str, Any]) -> Answer | None:
    """Return the answer of a study or of ``bertft rsa``; None if it neither compares encoders nor is unfinished.

    Args:
        rows: the results.
        context: the order of the encoders, and the configuration.
        record: ``run.json``, with the stages that are ``left``.
    """
    found = similarities(rows, context)
    left = list(record.get("left") or [])
    if not found and not left:
        return None
    sentence = " ".join(filter(None, (_missing(record, left, bool(found)), moved_most(rows, found))))
    said = [line for line in (_where(found), _words(rows, found), _syntax(rows, context)) if line]
    learnt = main_scores(rows, context)
    if learnt:
        named = (f"{row.model} {MeasureName.parse(row.measure).short} {score(row)}" for row in learnt)
        said.append(Said("learnt", f"{'; '.join(named)}."))
    if left:
        said.append(Said("resume", "rerun the same command."))
    elif spent := cost(record):
        said.append(Said("cost", spent))
    return Answer("", sentence, said, _numbers(rows, found, learnt), figure_of(rows), findings=True)


def figure_of(rows: Sequence[Row]) -> str:
    """Return the name of the figure of the main RSA by layer, or "" (`bertft.report.figures.by_layer`)."""
    similar = lines(rows, "rsa")
    main = next(filter(is_rsa, similar), None)
    if main is None:
        return ""
    return "rsa_by_layer" if similar[0].measure == main.measure else f"{main.measure}_by_layer"


def similarities(rows: Sequence[Row], context: Context) -> list[Line]:
    """Return the main similarity of each tuned encoder to the base on its reference text, the lowest first."""
    similar = [line for line in lines(rows, "rsa") if is_rsa(line)]
    main = [line for line in similar if line.measure == similar[0].measure]  # the first measured
    found = [line for model in context.tuned if (line := reference(main, model, context))]
    return sorted(found, key=lambda line: min(line.values))


def moved_most(rows: Sequence[Row], found: Sequence[Line]) -> str:
    """Return which encoder changed most, or that none did; empty without similarities."""
    if not found:
        return ""
    first, *others = found
    names = _joined([line.model for line in found])
    if 1 - min(first.values) < HARDLY:
        return f"Nothing moved: the similarity of {names} to the base encoder is above {1 - HARDLY} at every layer."
    at = first.lowest()
    ends = scale(derived(rows, first, "null"), first.layers[at])
    falls = f"similarity to the base encoder falls to {point(first, at)} at layer {first.layers[at]} of "
    falls += f"{first.layers[-1]} on {first.data} ({ends})"
    if not others:
        return f"{first.model} moved the model: its {falls}."
    ties = list(itertools.takewhile(lambda line: not is_lower(rows, first, at, line, line.lowest()), others))
    if not ties:
        return f"{first.model} moved the model most: its {falls}."
    alike = _joined([line.model for line in (first, *ties)])
    return f"{alike} moved the model most; their intervals do not tell them apart. For {first.model}, {falls}."


def main_scores(rows: Sequence[Row], context: Context) -> list[Row]:
    """Return the first score of each tuned encoder on its own dev text."""
    found = []
    for model in context.tuned:
        own = {
            row.measure: row
            for row in reversed(rows)
            if (row.model, row.task, row.layer) == (model, "finetune", None) and row.data == model
        }
        found += [own[name] for name in SCORES if name in own][:1]
    return found


def _missing(record: Mapping[str, Any], left: Sequence[str], some: bool) -> str:
    """Return which kinds of work are missing, and with ``some`` similarities that these are preliminary."""
    if not left:
        return ""
    kinds: dict[str, list[str]] = {}
    for stage in left:
        kind, _, name = stage.partition("/")
        kinds.setdefault(WORK.get(kind, kind), []).append(name)
    parts = []
    for kind, names in kinds.items():
        named = ", ".join(names) if len(names) <= NAMED else f"{len(names)} stages"
        parts.append(f"{kind} ({named})")
    done = len(record.get("done") or [])
    return f"Unfinished: {done} of {done + len(left)} stages are done; missing: {', '.join(parts)}." + (
        " So far:" if some else ""
    )


def _where(found: Sequence[Line]) -> Said | None:
    """Return the layer at which half of each encoder's change is reached."""
    moved = [line for line in found if 1 - min(line.values) >= HARDLY]
    if not moved:
        return None
    places = ", ".join(f"{line.layers[half(line)]}{f' ({line.model})' if len(found) > 1 else ''}" for line in moved)
    return Said("where", f"half of the change is reached at layer {places} of {moved[0].layers[-1]}.")


def _words(rows: Sequence[Row], found: Sequence[Line]) -> Said | None:
    """Return the class of words that moved most in each encoder, on the reference text if it has classes."""
    local = lines(rows, "local")
    texts = dict.fromkeys(line.data for line in (*found, *local))
    for data in texts:
        ranked = [(line.model, classes(local, line.model, data)) for line in found[:NAMED]]
        parts = [
            f"{model} {own[0].name.label!r} {point(own[0], len(own[0].values) - 1)}" for model, own in ranked if own
        ]
        if parts:
            return Said("words", f"moved most on {data}: {', '.join(parts)} (local RSA: 1 = not moved).")
    return None


def _syntax(rows: Sequence[Row], context: Context) -> Said | None:
    parts = at_best(lines(rows, "structural"), UUAS, context)
    return Said("syntax", f"{UUAS.short} at the best layer: {', '.join(parts)}.") if parts else None


def _numbers(rows: Sequence[Row], found: Sequence[Line], learnt: Sequence[Row]) -> list[Number]:
    """Return each encoder's lowest similarity, then scores, then the null of the first."""
    table = []
    for line in found:
        at = line.lowest()
        table.append(number_at(f"{line.model}: {line.name.short}, layer {line.layers[at]} (lowest)", line, at))
    table = table[: MOST - min(len(learnt), 1)]
    for row in learnt:
        value, _, interval = score(row).partition(" ")
        table.append(Number(f"{row.model}: {MeasureName.parse(row.measure).short}", Cell(value, interval)))
    if found:
        null, layer = derived(rows, found[0], "null"), found[0].layers[found[0].lowest()]
        there = None if null is None else null.at(layer)
        if null is not None and there is not None:
            table.append(number_at(f"unrelated texts, layer {layer}", null, there))
    return table[:MOST]


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
