"""Lines of the verdict on rows that other analyses give: massive activations, directions and causes.

These parts have no stages of their own. Each says something as soon as a diff has its rows, and nothing without them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bertft.report.lines import Line, number, point
from bertft.report.page.answer import Said
from bertft.runs.folder import Stage
from bertft.runs.rows import Row
from bertft.study.analysis import Analysis
from bertft.study.diff.models import Compared
from bertft.study.diff.verdict import HARDLY, Found


class Part(Analysis[Compared]):
    """One question about a pair of models."""

    def said(self, found: Found) -> list[Said]:
        """Return the lines of the verdict; none where the rows are absent."""
        return []


class Reading(Part):
    """A part that reads rows of other analyses; ``sentence`` makes its line for the main similarity of an encoder."""

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
    return f"{counts.values[at]:,.0f}{of} stimuli are massive activations at layer {counts.layers[at]} and left out."


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
    return f"at layer {layer} the first direction carries {_share(first)} of the change{of_rank}{of_shift}."


def causes(found: Found, line: Line) -> str:
    """Return the block that moves the top layer most when it alone is exchanged."""
    alone, without = (found.beside(line, f"{way}_{line.measure}") for way in ("swap_in", "swap_out"))
    if alone is None:
        return ""
    at = alone.lowest()
    block = alone.layers[at]
    there = None if without is None else without.at(block)
    back = "" if without is None or there is None else f"; without it that layer is at {point(without, there)}"
    return f"block {block} alone moves the top layer to {point(alone, at)}{back}."


def _row(rows: Sequence[Row], model: str, layer: int, measure: str) -> Row | None:
    return next((row for row in rows if (row.model, row.layer, row.measure) == (model, layer, measure)), None)


def _share(row: Row) -> str:
    return number(row.value, row.low, row.high, 2)


READINGS: list[Part] = [
    Reading("massive", 15, massive),
    Reading("direction", 40, directions),
    Reading("cause", 50, causes),
]
