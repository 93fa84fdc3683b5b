"""The verdict of a diff: lines of all parts, at most twelve."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bertft.data.location import encoder_name
from bertft.report.lines import Context, Line, lines, number
from bertft.report.page.answer import MOST as NUMBERS
from bertft.report.page.answer import Answer, Number, Said, number_at
from bertft.report.page.direction_words import DirectionEnd
from bertft.report.page.figure_section import Cell
from bertft.report.similar import half, is_rsa
from bertft.runs.rows import Row
from bertft.runs.vocabulary import MeasureName, noise_of
from bertft.similarity.words.labels import FORM, RARE
from bertft.study.diff.models import MovedWord

MOST = 12  # lines
ROUNDING = 1e-6  # sums of float32 products move a similarity of 1 by less
SHOWN = 3  # layers, words and blocks that a line names


@dataclass(frozen=True)
class Found:
    """What the parts of a diff found.

    Attributes:
        rows: the results.
        context: the order of the encoders, and the configuration.
        unchanged: why an encoder is the same as the base, by name.
        words: the words that moved most.
        ends: the words at the ends of directions.
    """

    rows: Sequence[Row]
    context: Context
    unchanged: dict[str, str]
    words: Sequence[MovedWord] = ()
    ends: Sequence[DirectionEnd] = ()

    @property
    def base(self) -> str:
        """The name of the base, or "the base" if a tuned encoder has the same name."""
        name = encoder_name(str(self.context.config.get("base", "")))
        return "the base" if name in ("", *self.tuned) else name

    @property
    def tuned(self) -> list[str]:
        """The names of the tuned encoders in the order of the command."""
        return list(self.context.config.get("tuned") or {})

    def similarity(self, model: str) -> Line | None:
        """Return the main similarity of an encoder to the base by layer: RSA, the first measured."""
        found = (line for line in lines(self.rows, "rsa") if line.model == model)
        return next(filter(is_rsa, found), None)

    def derived(self, line: Line, kind: Any) -> Line | None:
        """Return what is derived from a measure of the same encoder, such as its ``null``; None where it is absent."""
        name = str(dataclasses.replace(line.name, derived=kind))
        return next((other for other in self._lines() if other.measure == name and other.model == line.model), None)

    def beside(self, line: Line, measure: str) -> Line | None:
        """Return another measure of the same encoder."""
        return next((other for other in self._lines() if other.measure == measure and other.model == line.model), None)

    def forms(self, model: str, layer: int) -> list[Row]:
        """Return the rows of word forms at a layer, those that moved most first."""
        named = ((row, MeasureName.parse(row.measure)) for row in self.rows if (row.model, row.layer) == (model, layer))
        found = [row for row, name in named if name.grouping == FORM and name.label != RARE]
        return sorted(found, key=lambda row: row.value)

    def _lines(self) -> list[Line]:
        return [line for task in dict.fromkeys(row.task for row in self.rows) for line in lines(self.rows, task)]


def lowest(found: Found, model: str) -> float:
    """Return the similarity of an encoder's most changed layer to the base."""
    line = found.similarity(model)
    return 1.0 if line is None else min(line.values)


def is_changed(found: Found, model: str) -> bool:
    """Return whether any layer of an encoder differs from the base by more than rounding."""
    return lowest(found, model) < 1 - ROUNDING


def at_most(said: Sequence[Said], most: int = MOST) -> list[Said]:
    """Return at most ``most`` lines: those of the highest rank are left out first, the last before the first."""
    kept = list(enumerate(said))
    while len(kept) > most:
        worst = max(line.rank for _, line in kept)
        last = max(place for place, line in kept if line.rank == worst)
        kept = [(place, line) for place, line in kept if place != last]
    left = sum(line.rank == 0 for line in said) - sum(line.rank == 0 for _, line in kept)
    shown = [line for _, line in kept]
    return [*shown[:-1], Said("more", f"{left + 1} more lines are in the results")] if left else shown


def answer(found: Found, said: Sequence[Said], figure: str) -> Answer:
    """Return the top of the page: the first line as a sentence, a table of numbers, the other lines."""
    first, *others = said
    title = f"What changed from {found.base} to {', '.join(found.tuned)}"
    return Answer(title, first.text, others, numbers(found)[:NUMBERS], figure)


def numbers(found: Found) -> list[Number]:
    """Return the numbers that decide: for one encoder at its most changed layer, for several one of each."""
    table = []
    for model in found.tuned:
        line = found.similarity(model)
        if line is None:
            continue
        place = line.lowest()
        layer = line.layers[place]
        of_model = "" if len(found.tuned) == 1 else f"{model}: "
        table.append(number_at(f"{of_model}{line.name.short}, layer {layer} (lowest)", line, place))
        if of_model:
            continue
        noise = found.similarity(noise_of(model))
        middle = half(line)
        if middle != place:
            table.append(
                number_at(f"{line.name.short}, layer {line.layers[middle]} (half of the change)", line, middle)
            )
        others = [
            (f"noise of the same size, layer {layer}", noise),
            (f"unrelated texts, layer {layer}", found.derived(line, "null")),
            (f"calibrated (unrelated = 0), layer {layer}", found.derived(line, "calibrated")),
            (f"debiased CKA, layer {layer}", found.beside(line, "cka_debiased")),
            (f"weights of block {layer}, |W' − W| / |W|", found.beside(line, "relative_weight_distance")),
        ]
        for name, other in others:
            at = None if other is None else other.at(layer)
            if other is not None and at is not None:
                table.append(number_at(name, other, at))
        for row in found.forms(model, layer)[:1]:
            value, _, interval = number(row.value, row.low, row.high).partition(" ")
            label = MeasureName.parse(row.measure).label
            table.append(Number(f"local RSA of {label!r}, layer {layer}", Cell(value, interval)))
    return table
