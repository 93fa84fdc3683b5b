"""One loader for every source of examples."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from bertft.data import synthetic
from bertft.data.datasets import load_folder, load_hub, rows_of
from bertft.data.english import ENGLISH, english
from bertft.data.examples import Example
from bertft.data.files import read_lines, shorten
from bertft.data.location import Source
from bertft.data.readers.conllu import read_conllu
from bertft.data.readers.nli import read_nli
from bertft.data.readers.spans import arcs_as_spans, read_spans
from bertft.data.readers.squad import read_squad
from bertft.data.readers.text import read_text
from bertft.data.sampling import sample
from bertft.errors import BertftError

KINDS: dict[str, Callable[[str | os.PathLike[str]], Sequence[Example]]] = {
    "dep": read_conllu,
    "nli": read_nli,
    "qa": read_squad,
    "text": read_text,
    "spans": read_spans,
}
"""The kinds of examples and the reader of each kind's files."""

_GENERATORS: dict[str, Callable[..., list[Any]]] = {
    "dep": synthetic.sentences,
    "nli": synthetic.pairs,
    "qa": synthetic.questions,
    "text": synthetic.texts,
    "spans": lambda n, seed, *, split: arcs_as_spans(synthetic.sentences(n, seed, split=split)),
}
_SYNTHETIC = "builtin:synthetic"
_SYNTHETIC_SIZES = {"train": 1000, "dev": 200, "test": 200}


def load(
    kind: str,
    source: str | os.PathLike[str],
    *,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> list[Any]:
    """Return the examples of a ``kind`` (``dep``, ``nli``, ``qa``, ``text``, ``spans``) that ``source`` names.

    Args:
        kind: kind of the examples; it also chooses the reader of a file.
        source: a name, tried in this order:

            - ``builtin:synthetic``, optionally with ``?split=train&size=N&seed=S`` (see ``bertft.data.synthetic``),
              for questions also ``events=N``, an easier passage of N sentences;
            - ``builtin:english``, text only: the prose of Python's documentation (`bertft.data.english`);
            - a folder written by ``save_to_disk`` of ``datasets``;
            - a file, read by the kind's reader; a file is one split, and ``split`` is ignored;
            - a data set id on the hub: ``id``, ``id:config``, or with a branch, tag or commit ``id@revision`` and
              ``id@revision:config``. Its columns are as in ``nyu-mll/multi_nli`` or ``nyu-mll/glue:mnli``,
              ``rajpurkar/squad``, the Universal Dependencies sets, or one column ``text``.
        split: the split of a source that has several; default ``train``.
        limit: sample this many examples with ``seed`` and keep their order; None keeps all.
        seed: seeds the sample, and the synthetic corpus if its name gives no seed.

    Raises:
        BertftError: for a source that is missing or cannot be read.
    """
    if kind not in KINDS:
        raise BertftError(f"unknown kind of data {shorten(kind)}, expected one of {', '.join(KINDS)}")
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise BertftError(f"limit: expected a positive number of examples or none, found {shorten(limit)}")
    parsed = Source.parse(source)
    if parsed.place == "builtin":
        own = kind == "text" and parsed.text == ENGLISH
        return sample(english() if own else _synthetic(kind, parsed, split, seed), limit, seed)
    if "\0" in parsed.text:
        raise BertftError(f"source: expected a path or a data set id, found {shorten(parsed.text)}")
    if parsed.place == "folder":
        return rows_of(kind, load_folder(parsed.path, split), str(parsed.path), limit, seed)
    if parsed.place == "file":
        return sample(KINDS[kind](parsed.path), limit, seed)
    return rows_of(kind, load_hub(parsed, split or "train"), parsed.text, limit, seed)


def check_source(source: str | os.PathLike[str]) -> None:
    """Raise ``BertftError`` for a file that does not exist, as `load` does; read nothing."""
    parsed = Source.parse(source)
    if parsed.place == "file" and not parsed.exists():
        next(read_lines(parsed.path), None)


def _synthetic(kind: str, source: Source, split: str | None, seed: int) -> Sequence[Example]:
    name = source.text
    if source.builtin != _SYNTHETIC:
        expected = f"{_SYNTHETIC} or {ENGLISH}" if kind == "text" else _SYNTHETIC
        raise BertftError(f"unknown built-in data {shorten(source.builtin)}, expected {expected}")
    options = source.options
    known = ["split", "size", "seed", *(["events"] if kind == "qa" else [])]
    if unknown := sorted(set(options) - set(known)):
        expected = f"{', '.join(known[:-1])} or {known[-1]}"
        raise BertftError(f"{name}: unknown option {shorten(unknown[0])}, expected {expected}")
    split = options.get("split", split or "train")
    if split not in _SYNTHETIC_SIZES:
        raise BertftError(f"{name}: unknown split {shorten(split)}, expected one of {', '.join(_SYNTHETIC_SIZES)}")
    size = options.get("size", str(_SYNTHETIC_SIZES[split]))
    seed_text = options.get("seed", str(seed))
    for option, value in (("size", size), ("seed", seed_text), ("events", options.get("events", "1"))):
        if not (value.isascii() and value.isdigit() and len(value) < 10):
            raise BertftError(f"{name}: {option}: expected a whole number of at most 9 digits, found {shorten(value)}")
    if int(size) < 1:
        raise BertftError(f"{name}: size: expected at least 1, found {size}")
    chosen = {"events": int(options["events"])} if "events" in options else {}
    return _GENERATORS[kind](int(size), int(seed_text), split=split, **chosen)
