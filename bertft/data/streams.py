"""Sources of any length, read one example at a time.

A stream reads what `bertft.data.sources.load` loads as a whole, and also folders of text. It can be iterated over any
number of times, always in the same order, and holds one example at a time.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from bertft.data.datasets import is_saved, load_folder, load_hub, stream_rows
from bertft.data.english import ENGLISH
from bertft.data.examples import Example, Text
from bertft.data.files import read_lines
from bertft.data.location import Source
from bertft.data.sources import load
from bertft.errors import BertftError


class Stream:
    """The examples of a source, in order, read again on every iteration.

    ``digest`` changes with the source as far as names, sizes and the first bytes of files can tell, without reading
    it. ``count`` is the number of examples if it is known in advance, else None.
    """

    def __init__(self, name: str, read: Callable[[], Iterator[Example]], digest: str, count: int | None = None) -> None:
        self.name, self.digest, self.count = name, digest, count
        self._read = read

    def __iter__(self) -> Iterator[Example]:
        empty = True
        for example in self._read():
            empty = False
            yield example
        if empty:
            raise BertftError(f"{self.name}: expected lines of text, found none")


def stream(kind: str, source: str | os.PathLike[str], *, split: str | None = None) -> Stream:
    """Return a stream of the examples of ``kind`` that ``source`` names, as in `bertft.data.sources.load`.

    Plain text is read line by line. A folder that is no saved data set is all its ``.txt`` and ``.txt.gz`` files,
    ordered by path. A saved data set stays on disk, and a data set of the hub is read in streaming mode. Files of other
    kinds are read as a whole.

    Raises:
        BertftError: at once for a source that does not exist; during iteration for a damaged or empty one.
    """
    parsed = Source.parse(source)
    name, path = parsed.text, parsed.path
    if parsed.place == "builtin":
        examples = load(kind, name, split=split)
        content = [example.text for example in examples] if name == ENGLISH else []  # depends on Python's version
        return Stream(name, lambda: iter(examples), _digest(name, split or "", *content), len(examples))
    if parsed.place == "folder":
        if is_saved(path):
            table = load_folder(path, split)
            return Stream(name, partial(stream_rows, kind, table, name), _digest(table._fingerprint), len(table))
        files = sorted(file for file in path.rglob("*") if file.name.endswith((".txt", ".txt.gz")) and file.is_file())
        if kind != "text" or not files:
            raise BertftError(f"{name}: expected a saved data set or a folder of .txt or .txt.gz files, found neither")
        return Stream(name, lambda: _lines(files), _digest(*map(_digest_of_file, files)))
    if parsed.place == "file":
        if kind == "text":
            next(read_lines(path), None)
            return Stream(name, lambda: _lines([path]), _digest_of_file(path))
        examples = load(kind, path)
        return Stream(name, lambda: iter(examples), _digest_of_file(path), len(examples))
    pinned = parsed.pinned()
    table = load_hub(pinned, split or "train", streaming=True)
    return Stream(name, partial(stream_rows, kind, table, name), _digest(pinned.text, split or ""))


def _lines(files: list[Path]) -> Iterator[Text]:
    for file in files:
        prefix = f"{file.name}:" if len(files) > 1 else ""
        for number, line in read_lines(file):
            if text := line.strip():
                yield Text(f"{prefix}{number}", text)


def _digest_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return _digest(str(path), path.stat().st_size, hashlib.sha256(file.read(65_536)).hexdigest())


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()
