"""Edge-probing files: labelled spans of tokenised sentences.

Tenney et al., "What do you learn from context?", ICLR 2019.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bertft.data.examples import Input, Sentence
from bertft.data.files import check_text, parse_json, read_lines, shorten
from bertft.errors import BertftError

Span = tuple[int, int]
"""First word, counted from 0, and one past the last word."""


@dataclass(frozen=True, slots=True)
class SpanTarget:
    """One or two spans and their labels.

    ``second`` is None in one-span tasks. Most tasks have one label per target, some any number.
    """

    first: Span
    second: Span | None
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SpanText:
    """A tokenised text with its targets."""

    id: str
    words: tuple[str, ...]
    targets: tuple[SpanTarget, ...]

    def input(self, unit: str) -> Input:
        """Return the words."""
        return Input.words(self.words, unit)


def read_spans(path: str | os.PathLike[str]) -> list[SpanText]:
    """Return the texts of a file in jiant's edge-probing layout, plain or ``.gz``, one JSON object per line.

    ``{"text": "...", "targets": [{"span1": [i, j], "span2": [k, l], "label": "..."}]}``: single spaces separate the
    words, ``span2`` is in every target or in none, and ``label`` is a string or a list of strings. The id of a text is
    its line.

    Raises:
        BertftError: for any other layout, and for a file without a target; names file, line and target.
    """
    texts: list[SpanText] = []
    paired: bool | None = None
    for number, line in read_lines(path):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        record = parse_json(line, path, number)
        if not isinstance(record, dict):
            raise BertftError(f"{where}: expected a JSON object, found {shorten(line)}")
        text = span_text_of(record, str(number), where)
        for t, target in enumerate(text.targets):
            if paired is None:
                paired = target.second is not None
            if paired != (target.second is not None):
                expected = "span2, as in the targets before" if paired else "no span2, as in the targets before"
                raise BertftError(f"{where}: targets[{t}]: expected {expected}")
        texts.append(text)
    if paired is None:
        raise BertftError(f"{path}: expected texts with targets, found none")
    return texts


def span_text_of(record: Mapping[str, object], identifier: str, where: str) -> SpanText:
    """Return the text in one ``record`` of jiant's layout. ``where`` opens the sentence of an error."""
    words = tuple(check_text(record.get("text"), "text", where).split(" "))
    items = record.get("targets")
    if not isinstance(items, list):
        raise BertftError(f"{where}: expected a list 'targets', found {shorten(items)}")
    targets = tuple(_target(item, len(words), f"{where}: targets[{t}]") for t, item in enumerate(items))
    return SpanText(identifier, words, targets)


def arcs_as_spans(sentences: Sequence[Sentence]) -> list[SpanText]:
    """Return dependency arcs as a two-span task: dependent, head (the root is its own) and the relation as label."""
    texts = []
    for s in sentences:
        targets = []
        for word, (head, relation) in enumerate(zip(s.heads, s.relations, strict=True)):
            other = head - 1 if head else word
            targets.append(SpanTarget((word, word + 1), (other, other + 1), (relation,)))
        texts.append(SpanText(s.id, s.words, tuple(targets)))
    return texts


def _target(item: object, n: int, where: str) -> SpanTarget:
    if not isinstance(item, dict):
        raise BertftError(f"{where}: expected a JSON object, found {shorten(item)}")
    label = item.get("label")
    labels = label if isinstance(label, list) else [label]
    second = _span(item["span2"], "span2", n, where) if "span2" in item else None
    return SpanTarget(
        _span(item.get("span1"), "span1", n, where),
        second,
        tuple(check_text(one, "label", where) for one in labels),
    )


def _span(value: object, name: str, n: int, where: str) -> Span:
    if isinstance(value, list) and len(value) == 2 and all(type(v) is int for v in value):
        start, end = value
        if 0 <= start < end <= n:
            return start, end
    raise BertftError(f"{where}: expected {name} as [start, end] with 0 <= start < end <= {n}, found {shorten(value)}")
