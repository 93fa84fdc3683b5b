"""Page section: the answer of a diff, on one screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bertft.report.page.figure_section import Cell


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
        title: of the page.
        sentence: the answer.
        said: the other lines of the verdict.
        numbers: at most six rows.
        figure: name of the figure beside the numbers, or "".
    """

    title: str
    sentence: str
    said: Sequence[Said]
    numbers: Sequence[Number]
    figure: str = ""
