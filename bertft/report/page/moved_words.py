"""Page section: words that moved most and least.

The section reads the files that ``bertft rsa --by`` writes: means by class, and words and sentences in context.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bertft.errors import BertftError
from bertft.report.page.download import Download, download
from bertft.report.page.figure_section import Cell

FILES = {  # as `bertft.similarity.words.moved` writes them; older ones lack sentences.csv and the metric (cosine)
    "local.csv": ["model", "data", "metric", "layer", "by", "label", "value", "low", "high", "n"],
    "words.csv": ["model", "data", "metric", "layer", "moved", "value", "word", "sentence", "context"],
    "sentences.csv": ["model", "data", "metric", "layer", "moved", "value", "n", "sentence", "text"],
}
SENTENCES = "sentences.csv"
FORMS = "forms"  # holds a folder of the same files for each plain text of a study
TITLES = (
    "Words that moved most and least (darker shade: moved further)",
    "Sentences that moved most and least",
)
NUMBERS = {"layer": int, "n": int, "value": float, "low": float, "high": float}
KINDS = {
    "upos": "part of speech",
    "xpos": "treebank-specific tag",
    "relation": "relation to the head",
    "depth": "depth in the tree (root 0)",
    "position": "position in the sentence (first 0)",
    "frequency": "frequency (log2 of the word form's count in this text)",
    "form": "word form (those that this text has at least ten times)",
}
DARKEST = 0.6  # opacity of the shade under a word whose local RSA is 0 or less
SHOWN = 5  # words at either end of a layer; the file has more
Rows = list[dict[str, str]]


@dataclass(frozen=True)
class ClassRow:
    """A class of words: its number of words and its mean in each layer, None where it has none."""

    label: str
    count: str
    cells: list[Cell | None]


@dataclass(frozen=True)
class Grouping:
    """The classes of one grouping of words (part of speech, relation, ...)."""

    title: str
    layers: list[int]
    rows: list[ClassRow]


@dataclass(frozen=True)
class Item:
    """A word in context, or a sentence (``word`` is None and ``before`` is its text); ``shade`` is an opacity."""

    layer: int
    moved: str
    value: str
    before: str
    word: str | None = None
    after: str = ""
    shade: str = ""


@dataclass(frozen=True)
class Extremes:
    """The words or sentences of an encoder that moved most and least."""

    title: str
    items: list[Item]


@dataclass(frozen=True)
class EncoderWords:
    """One encoder's part of the section."""

    title: str
    groupings: list[Grouping]
    extremes: list[Extremes]


@dataclass(frozen=True)
class WordSection:
    """Content of the template ``sections/moved_words.html.j2``."""

    encoders: list[EncoderWords]
    downloads: list[Download]


def moved_words(folder: Path) -> WordSection | None:
    """Return the section of a run folder; None if the run did not ask for words.

    Raises ``BertftError`` with the file and row of damaged content.
    """
    encoders: list[EncoderWords] = []
    downloads: list[Download] = []
    for place in (folder, *sorted((folder / FORMS).glob("*/"))):
        files = [name for name in FILES if (place / name).is_file()]
        if set(FILES) - set(files) - {SENTENCES}:
            continue
        encoders += _encoders([_read(place / name) for name in files])
        start = "" if place == folder else f"{place.name}_"
        downloads += [download(f"{start}{name}", (place / name).read_bytes(), f"{start}{name}") for name in files]
    return WordSection(encoders, downloads) if encoders else None


def _encoders(tables: Sequence[Rows]) -> list[EncoderWords]:
    """Return the parts of the tables of one text."""
    means, *lists = tables
    measured = list(dict.fromkeys(map(_measured, means)))
    encoders = []
    for model, metric in measured:
        mine = [row for row in means if _measured(row) == (model, metric)]
        named = f" ({metric})" if len({kind for _, kind in measured}) > 1 else ""
        data = ", ".join(dict.fromkeys(row["data"] for row in mine))
        groupings = [
            _grouping(kind, [row for row in mine if row["by"] == kind]) for kind in dict.fromkeys(r["by"] for r in mine)
        ]
        extremes = [
            Extremes(title, _extremes([row for row in rows if _measured(row) == (model, metric)]))
            for title, rows in zip(TITLES, lists, strict=False)
        ]
        encoders.append(EncoderWords(f"{model}{named}, on {data}", groupings, extremes))
    return encoders


def _measured(row: dict[str, str]) -> tuple[str, str]:
    return row["model"], row.get("metric", "cosine")


def _read(path: Path) -> Rows:
    with path.open(encoding="utf8", newline="") as file:
        reader = csv.DictReader(file)
        table = list(reader)
    expected = [name for name in FILES[path.name] if name != "metric" or "metric" in (reader.fieldnames or ())]
    if reader.fieldnames != expected:
        found = ",".join(reader.fieldnames or ["nothing"])
        raise BertftError(f"{path}: line 1: expected the columns {','.join(expected)}, found {found}")
    for number, row in enumerate(table, start=2):
        if None in row or None in row.values():
            raise BertftError(f"{path}: row {number}: expected {len(expected)} cells")
        for name in NUMBERS.keys() & row.keys():
            try:
                if row[name] or name not in ("low", "high"):
                    NUMBERS[name](row[name])
            except ValueError:
                raise BertftError(f"{path}: row {number}: {name}: expected a number, found {row[name]!r}") from None
    return table


def _layers(rows: Rows) -> list[int]:
    return sorted({int(row["layer"]) for row in rows})


def _grouping(kind: str, rows: Rows) -> Grouping:
    """Return a row per class, a column per layer: numbers in their order, names by their mean over layers."""
    labels: dict[str, dict[int, dict[str, str]]] = {}
    for row in rows:
        labels.setdefault(row["label"], {})[int(row["layer"])] = row
    if all(label.isdecimal() for label in labels):
        order = sorted(labels, key=int)
    else:
        order = sorted(labels, key=lambda label: sum(float(row["value"]) for row in labels[label].values()))
    layers = _layers(rows)
    classes = []
    for label in order:
        found = [labels[label].get(layer) for layer in layers]
        count = f"{int(next(iter(labels[label].values()))['n']):,}"
        classes.append(ClassRow(label, count, [None if row is None else _cell(row) for row in found]))
    return Grouping(KINDS.get(kind, kind), layers, classes)


def _cell(row: dict[str, str]) -> Cell:
    interval = f"[{float(row['low']):.3f}, {float(row['high']):.3f}]" if row["low"] else ""
    return Cell(f"{float(row['value']):.3f}", interval)


def _extremes(rows: Rows) -> list[Item]:
    """Return the first items of either end, the last layers first because they change most."""
    items = []
    for layer in reversed(_layers(rows)):
        for which in ("most", "least"):
            items += [_item(row) for row in rows if int(row["layer"]) == layer and row["moved"] == which][:SHOWN]
    return items


def _item(row: dict[str, str]) -> Item:
    """Return a sentence's text, or a word in its context, where the file marks it by square brackets."""
    value = float(row["value"])
    head = (int(row["layer"]), row["moved"], f"{value:.3f}")
    if "text" in row:
        return Item(*head, row["text"])
    before, _, after = row["context"].partition(f"[{row['word']}]")
    shade = DARKEST * min(max(1 - value, 0), 1) if math.isfinite(value) else 0.0
    return Item(*head, before, row["word"], after, f"{shade:.2f}")
