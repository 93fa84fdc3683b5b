"""Lines of the verdict that each read one kind of rows: massive activations, directions and causes.

Each says something as soon as a diff has its rows, and nothing without them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from bertft.report.lines import Line, number, point
from bertft.report.page.answer import Said
from bertft.report.page.direction_words import both_ends
from bertft.report.similar import HARDLY
from bertft.runs.folder import Stage
from bertft.runs.rows import Row
from bertft.runs.vocabulary import MeasureName
from bertft.study.analysis import Analysis
from bertft.study.diff.models import Compared
from bertft.study.diff.verdict import SHOWN, Found


class Part(Analysis[Compared]):
    """One question about a pair of models."""

    def said(self, found: Found) -> list[Said]:
        """Return the lines of the verdict; none where the rows are absent."""
        return []

    def record(self, inputs: Compared) -> None:
        """Run the base over the batches that the stages will read; it keeps them (`bertft.study.diff.in_turn`)."""
        return


class Reading(Part):
    """A part with one line for every encoder that changed.

    ``sentence`` makes it for the encoder's main similarity.
    """

    def __init__(self, name: str, order: int, sentence: Callable[[Found, Line], str]) -> None:
        self.name, self.order, self.sentence = name, order, sentence

    def stages(self, inputs: Compared) -> list[Stage]:
        """Return no stage."""
        return []

    def said(self, found: Found) -> list[Said]:
        """Return a line for every encoder that changed."""
        said = []
        for model in found.tuned:
            line = found.similarity(model)
            if line is not None and 1 - min(line.values) >= HARDLY and (text := self.sentence(found, line)):
                said.append(Said(self.name, f"{model}: {text}" if len(found.tuned) > 1 else text, rank=1))
        return said


def massive(found: Found, line: Line) -> str:
    """Return how many stimuli are massive activations, which the similarities leave out."""
    counts = found.beside(line, "massive_stimuli")
    if counts is None or max(counts.values) == 0:
        return ""
    at = counts.highest()
    of = f" of {counts.n[at]:,}" if counts.n[at] is not None else ""
    layer, both = line.layers[line.lowest()], found.derived(line, "with_massive")
    there = None if both is None else both.at(layer)
    within = "" if both is None or there is None else f"; with them layer {layer} is at {point(both, there)}"
    massive = f"{counts.values[at]:,.0f}{of} stimuli are massive activations at layer {counts.layers[at]}"
    return f"{massive} and left out{within}."


def directions(found: Found, line: Line) -> str:
    """Return what the first direction of the change carries at the most changed layer."""
    layer = line.layers[line.lowest()]
    first, rank, shift = (
        _row(found.rows, line.model, layer, measure)
        for measure in ("direction_share_1", "direction_rank", "mean_shift_share")
    )
    if first is None:
        return ""
    of_rank = "" if rank is None else f" (effective rank {rank.value:.1f})"
    of_shift = "" if shift is None else f"; {_share(shift)} is a shift that all tokens have in common"
    high, low = both_ends(found.ends, line.model, layer, SHOWN)
    words = f", from {_quoted(low)} to {_quoted(high)}" if high and low else ""
    return f"at layer {layer} the first direction carries {_share(first)} of the change{of_rank}{words}{of_shift}."


def causes(found: Found, line: Line) -> str:
    """Return the block that moves the top layer most when it alone is exchanged, and what it leaves of the change.

    No block is called the cause if the next one may move the base as far, or if half of the change is missing.
    """
    swapped = [MeasureName.swapped(way, line.measure) for way in ("swap_in", "swap_out")]
    alone, without = (found.beside(line, str(name)) for name in swapped)
    if alone is None:
        return ""
    at = alone.lowest()
    block = alone.layers[at]
    named = f"block {block}" if block else "the embeddings"
    there = None if without is None else without.at(block)
    back = "" if without is None or there is None else f"; without it that layer is at {point(without, there)}"
    whole = next((row for row in found.rows if _is_whole(row, line)), None)
    top = line.values[-1] if whole is None else whole.value
    lead = found.beside(line, str(dataclasses.replace(swapped[0], derived="difference")))
    close = lead is not None and (lead.lows[0] is None or lead.lows[0] <= 0)
    if close or 1 - alone.values[at] < (1 - top) / 2:
        together = number(top) if whole is None else number(whole.value, whole.low, whole.high)
        return (
            f"spread over several blocks: all move the top layer to {together}, the strongest alone, {named}, to "
            f"{point(alone, at)}{back}."
        )
    moves = "moves" if block else "move"
    return f"{named} alone {moves} the top layer to {point(alone, at)}{back}."


def _is_whole(row: Row, line: Line) -> bool:
    """Return whether a row is the similarity of the whole encoders among the causes of an encoder."""
    return (row.task, row.model, row.measure, row.layer) == ("causes", line.model, line.measure, None)


def _row(rows: Sequence[Row], model: str, layer: int, measure: str) -> Row | None:
    return next((row for row in rows if (row.model, row.layer, row.measure) == (model, layer, measure)), None)


def _quoted(words: Sequence[str]) -> str:
    return ", ".join(map(repr, words))


def _share(row: Row) -> str:
    return number(row.value, row.low, row.high, 2)


MASSIVE = Reading("massive", 15, massive)  # `Similarity` gives its rows
