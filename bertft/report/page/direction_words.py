"""Page section: words and vocabulary at both ends of the first direction of a change.

The section reads the files of `bertft.similarity.direction_words`, which stand on a higher floor.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from bertft.errors import BertftError
from bertft.report.figure import Dot, DotPanel, Dots, slot
from bertft.report.lines import Context, lines, number
from bertft.report.page.download import Download, download
from bertft.runs.rows import Row

WORDS, TOKENS = "directions.csv", "direction_tokens.csv"
MEAN = "mean"  # the direction of the mean shift in both files
DRAWN, LISTED, SHORT = 8, 6, 4  # words at either end: in the figure, in the table, in the table of all layers
ENDS = ("high", "low")
T = TypeVar("T")
SIGNS = {"high": "+", "low": "−"}
NAME = "direction_words"


@dataclass(frozen=True)
class DirectionEnd:
    """A word at one end of a direction; ``count`` and ``mean`` are None in older files."""

    model: str
    layer: int
    direction: str
    share: str
    end: str
    value: float
    word: str
    context: str
    count: int | None
    mean: float | None

    @property
    def group(self) -> tuple[str, int, str]:
        """The encoder, the layer and the direction."""
        return self.model, self.layer, self.direction


class Token(NamedTuple):
    """A token of the vocabulary at one end of a direction, and the embedding by which it was found."""

    group: tuple[str, int, str]
    end: str
    token: str
    embedding: str


@dataclass(frozen=True)
class WordRow:
    """A word in its context; the numbers as text."""

    sign: str
    count: str
    mean: str
    value: str
    before: str
    word: str
    after: str


class OtherRow(NamedTuple):
    """A direction of a layer in the table of all: its share, and the words at both ends."""

    layer: int
    direction: str
    share: str
    high: str
    low: str


@dataclass(frozen=True)
class EncoderDirections:
    """The first direction of one encoder at the layer ``layer``, and a row for every direction of every layer.

    ``vocabulary`` has the sign of an end and its tokens; it is empty without a logit lens.
    """

    title: str
    words: list[WordRow]
    vocabulary: list[tuple[str, str]]
    embedding: str
    others: list[OtherRow]


@dataclass(frozen=True)
class DirectionSection:
    """Content of the template ``sections/direction_words.html.j2``, which follows the figure."""

    figure: Dots
    encoders: list[EncoderDirections]
    downloads: list[Download]


def read_ends(folder: Path) -> list[DirectionEnd]:
    """Return the words of ``directions.csv`` in a run folder; none without the file.

    Raises ``BertftError`` for a damaged file.
    """
    return [] if not (folder / WORDS).is_file() else _read(folder / WORDS, _end)


def direction_section(folder: Path, rows: Sequence[Row], context: Context) -> DirectionSection | None:
    """Return the section of a run folder; None without directions. Raises ``BertftError`` for a damaged file."""
    ends = read_ends(folder)
    tokens = _read(folder / TOKENS, _token) if (folder / TOKENS).is_file() else []
    chosen = chosen_layers(ends, rows)
    ends_of = {group: list(listed) for group, listed in itertools.groupby(ends, key=lambda end: end.group)}
    encoders, panels = [], []
    for model, layer in chosen.items():
        own = ends_of.get((model, layer, "1"), [])
        if not own:
            continue
        high, low = ([_dot(end) for end in _of(own, which)[:DRAWN]] for which in ENDS)
        drawn = (*high, *reversed(low))  # the farthest are at the top and at the bottom
        panels.append(DotPanel(f"{model}, layer {layer}", drawn, model, slot(model, context)))
        listed = [token for token in tokens if token.group == (model, layer, "1")]
        encoders.append(
            EncoderDirections(
                f"{model}, layer {layer}: {own[0].share} of the variance of the change",
                [_row(end) for which in ENDS for end in _of(own, which)[:LISTED]],
                [(SIGNS[end], ", ".join(repr(t.token) for t in listed if t.end == end)) for end in ENDS if listed],
                listed[0].embedding if listed else "",
                [_other(found) for group, found in ends_of.items() if group[0] == model],
            )
        )
    if not encoders:
        return None
    files = [download(name, (folder / name).read_bytes(), name) for name in (WORDS, TOKENS) if (folder / name).exists()]
    return DirectionSection(_figure(panels), encoders, files)


def chosen_layers(ends: Iterable[DirectionEnd], rows: Sequence[Row]) -> dict[str, int]:
    """Return the layer to show of each encoder: that of the lowest RSA if it has directions, else the last."""
    found: dict[str, list[int]] = {}
    for end in ends:
        if end.direction == "1":
            found.setdefault(end.model, []).append(end.layer)
    lowest = {
        line.model: line.layers[line.lowest()]
        for line in reversed(lines(rows, "rsa"))
        if line.name.measure.family == "RSA" and not line.name.derived
    }
    return {model: lowest[model] if lowest.get(model) in layers else max(layers) for model, layers in found.items()}


def both_ends(ends: Iterable[DirectionEnd], model: str, layer: int, most: int) -> tuple[list[str], list[str]]:
    """Return the first words at the high and at the low end of an encoder's first direction in a layer."""
    own = [end for end in ends if end.group == (model, layer, "1")]
    high, low = ([end.word for end in _of(own, which)[:most]] for which in ENDS)
    return high, low


def _figure(panels: Sequence[DotPanel]) -> Dots:
    known = all(row.mean is not None for panel in panels for row in panel.rows)
    hollow = " Hollow: mean of all sampled occurrences of the word, whose number follows it." if known else ""
    caption = (
        "Projection of a token's change on the first principal component of tuned minus base, at the most changed "
        f"layer; 0 is the mean change. Filled: the word's farthest occurrence.{hollow}"
    )
    title = "Which words move along the first direction"
    return Dots(NAME, title, caption, tuple(panels), "projection on the first direction")


def _of(ends: Sequence[DirectionEnd], which: str) -> list[DirectionEnd]:
    return [end for end in ends if end.end == which]


def _dot(end: DirectionEnd) -> Dot:
    return Dot(end.word, end.end, end.value, end.mean, end.count)


def _row(end: DirectionEnd) -> WordRow:
    before, _, after = end.context.partition(f"[{end.word}]")
    count = "" if end.count is None else f"{end.count:,}"
    mean = "" if end.mean is None else number(end.mean)
    return WordRow(SIGNS[end.end], count, mean, number(end.value), before, end.word, after)


def _other(ends: Sequence[DirectionEnd]) -> OtherRow:
    high, low = (", ".join(repr(end.word) for end in _of(ends, which)[:SHORT]) for which in ENDS)
    first = ends[0]
    return OtherRow(first.layer, "mean shift" if first.direction == MEAN else first.direction, first.share, high, low)


def _end(row: Mapping[str, str]) -> DirectionEnd:
    low, high = (float(row[name]) if row[name] else None for name in ("low", "high"))
    return DirectionEnd(
        row["model"],
        int(row["layer"]),
        row["direction"],
        number(float(row["share"]), low, high, 2),
        row["end"],
        float(row["value"]),
        row["word"],
        row["context"],
        int(row["count"]) if row.get("count") else None,
        float(row["mean"]) if row.get("mean") else None,
    )


def _token(row: Mapping[str, str]) -> Token:
    return Token((row["model"], int(row["layer"]), row["direction"]), row["end"], row["token"], row["embedding"])


def _read(path: Path, make: Callable[[Mapping[str, str]], T]) -> list[T]:
    try:
        with path.open(encoding="utf8", newline="") as file:
            return [make(row) for row in csv.DictReader(file)]
    except (ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise BertftError(f"{path}: expected the directions of a change, found something else ({error!r})") from None
