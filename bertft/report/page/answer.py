"""Page section: the answer of a diff, of a study or of several runs, on one screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bertft.report.lines import Line, point
from bertft.report.page.figure_section import Cell

GAP = 2  # spaces between a key word and its sentence
MOST = 6  # rows of the table


@dataclass(frozen=True)
class Said:
    """One line of a verdict: a key word, and a sentence.

    Lines of high ``rank`` are dropped first. The page marks the ``word`` that stands in the sentence as ``[word]``.
    """

    term: str
    text: str
    rank: int = 0
    word: str = ""


@dataclass(frozen=True)
class Number:
    """One row of the table: what is measured, and its value with the interval if it has one."""

    name: str
    cell: Cell


@dataclass(frozen=True)
class Answer:
    """Content of the template ``sections/answer.html.j2``.

    Attributes:
        title: of the page; "" for the name of the run.
        sentence: the answer.
        said: the other lines of the verdict.
        numbers: at most six rows.
        figure: name of the figure beside the numbers, or "".
        findings: whether the findings follow below, folded.
    """

    title: str
    sentence: str
    said: Sequence[Said]
    numbers: Sequence[Number]
    figure: str = ""
    findings: bool = False


def number_at(name: str, line: Line, place: int, digits: int = 3) -> Number:
    """Return the row of a line's value at a position."""
    value, _, interval = point(line, place, digits).partition(" ")
    return Number(name, Cell(value, interval))


def in_columns(said: Sequence[Said]) -> list[str]:
    """Return the lines for a terminal; a key word stands on the first line of several."""
    width = max(len(line.term) for line in said) + GAP
    terms = ["", *(line.term for line in said)]
    heads = ["" if line.term == before else line.term for line, before in zip(said, terms, strict=False)]
    return [f"{head:{width}}{line.text}" for head, line in zip(heads, said, strict=True)]
