"""Natural language inference files: MultiNLI, SNLI, GLUE."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from bertft.data.examples import Pair
from bertft.data.files import check_text, parse_json, read_lines, shorten
from bertft.errors import BertftError

LABELS = ("entailment", "neutral", "contradiction")
"""The labels, in the order in which GLUE and the data sets on the hub number them."""

_UNLABELLED = ("-", "", "hidden", -1)
_FIELDS = (("sentence1", "premise"), ("sentence2", "hypothesis"), ("gold_label", "label"))
_IDS = ("pairID", "idx", "index", "id")


def read_nli(path: str | os.PathLike[str]) -> list[Pair]:
    """Return the labelled pairs of a MultiNLI JSONL or GLUE TSV file, plain or ``.gz``.

    Pairs without a gold label are dropped; `read_nli_counted` counts them and describes layouts and errors.
    """
    return read_nli_counted(path)[0]


def read_nli_counted(path: str | os.PathLike[str]) -> tuple[list[Pair], int]:
    """Return the labelled pairs of a file, and the number of pairs dropped for want of a gold label (``-``).

    A file whose first character is ``{`` has one JSON object per line, with ``sentence1``, ``sentence2``,
    ``gold_label`` and optionally ``pairID`` (MultiNLI, SNLI), or with ``premise``, ``hypothesis`` and ``label``, a name
    or a number (exports of the hub). Any other file is tab-separated with a header of these columns. It has no quoting:
    a quotation mark is an ordinary character.

    Raises:
        BertftError: for a line that is no JSON object, a missing column, a row of the wrong width, an unknown label,
            and a file without a labelled pair; names file and line.
    """
    pairs: list[Pair] = []
    skipped = 0
    for number, record in _records(path):
        pair = pair_of(record, f"{path}: line {number}", str(number))
        if pair is None:
            skipped += 1
        else:
            pairs.append(pair)
    if not pairs:
        found = f"{skipped} without a gold label" if skipped else "none"
        raise BertftError(f"{path}: expected labelled pairs, found {found}")
    return pairs, skipped


def pair_of(record: Mapping[str, object], where: str, identifier: str) -> Pair | None:
    """Return the pair in one ``record``, or None if it has no gold label. ``where`` opens the sentence of an error."""
    values = []
    for names in _FIELDS:
        name = next((name for name in names if name in record), None)
        if name is None:
            raise BertftError(f"{where}: expected a field {names[0]} or {names[1]}, found {shorten(', '.join(record))}")
        values.append((name, record[name]))
    (premise_name, premise), (hypothesis_name, hypothesis), (label_name, label) = values
    if label in _UNLABELLED and not isinstance(label, bool):
        return None
    if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(LABELS):
        label = LABELS[label]
    if label not in LABELS:
        raise BertftError(f"{where}: unknown {label_name} {shorten(label)}, expected one of {', '.join(LABELS)}")
    identifier = next((str(record[name]) for name in _IDS if isinstance(record.get(name), str | int)), identifier)
    return Pair(
        check_text(identifier, "id", where),
        check_text(premise, premise_name, where),
        check_text(hypothesis, hypothesis_name, where),
        LABELS[LABELS.index(label)],
    )


def _records(path: str | os.PathLike[str]) -> Iterator[tuple[int, Mapping[str, object]]]:
    lines = ((number, line) for number, line in read_lines(path) if line.strip())
    first = next(lines, None)
    if first is None:
        return
    if not first[1].lstrip().startswith("{"):
        yield from _rows(path, first, lines)
        return
    number, line = first
    while True:
        record = parse_json(line, path, number)
        if not isinstance(record, dict):
            raise BertftError(f"{path}: line {number}: expected a JSON object, found {shorten(line)}")
        yield number, record
        following = next(lines, None)
        if following is None:
            return
        number, line = following


def _rows(
    path: str | os.PathLike[str], first: tuple[int, str], lines: Iterator[tuple[int, str]]
) -> Iterator[tuple[int, Mapping[str, object]]]:
    columns = first[1].split("\t")
    for names in _FIELDS:
        if not set(names) & set(columns):
            expected = "a JSON object or a header of tab-separated columns"
            raise BertftError(
                f"{path}: line {first[0]}: expected {expected} with {names[0]}, found {shorten(first[1])}"
            )
    for number, line in lines:
        cells = line.split("\t")
        if len(cells) != len(columns):
            raise BertftError(f"{path}: line {number}: expected {len(columns)} columns, found {len(cells)}")
        yield number, dict(zip(columns, cells, strict=True))
