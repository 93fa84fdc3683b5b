"""Sources of any length, one example at a time: what `bertft.data.sources.load` reads whole, and folders of text.

A stream can be gone through as often as asked, always in the same order, and holds no more than an example.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from bertft.data.examples import Text
from bertft.data.files import at_home, read_lines
from bertft.data.location import HubName
from bertft.data.sources import (
    _ROWS,
    Example,
    _first_line,
    _hub_within_reach,
    _is_cached,
    _load_folder,
    hub_of,
    load,
    pinned,
)
from bertft.errors import BertftError
from bertft.runs.progress import waiting

T = TypeVar("T")
SHUFFLED = 65_536  # examples among which `drawn` draws; a shorter source is shuffled whole


class Stream:
    """Examples of ``name`` in their order, anew on every iteration.

    ``digest`` changes with the source as far as that can be told without reading it: names, sizes and beginnings of
    files. ``count`` is the number of examples where it is known beforehand, else None.
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
    """The examples of ``kind`` that ``source`` names, as `bertft.data.sources.load` names them, one at a time.

    Plain text is read line by line; a folder without a saved data set is all its ``.txt`` and ``.txt.gz`` files, in
    order of their paths; a saved data set stays on disk, and one of the hub is read in streaming mode. Other kinds of
    file are read whole. Raises ``BertftError`` at once for a source that is not there.
    """
    name = os.fspath(source)
    path = at_home(name)
    if name.startswith("builtin:"):
        examples = load(kind, name, split=split)
        return Stream(name, lambda: iter(examples), _digest(name, split or ""), len(examples))
    if path.is_dir():
        if any((path / file).is_file() for file in ("dataset_dict.json", "state.json")):
            table = _load_folder(path, split)
            return Stream(name, lambda: _rows(kind, table, name), _digest(table._fingerprint), len(table))
        files = sorted(file for file in path.rglob("*") if file.name.endswith((".txt", ".txt.gz")) and file.is_file())
        if kind != "text" or not files:
            raise BertftError(f"{name}: expected a saved data set or a folder of .txt or .txt.gz files, found neither")
        return Stream(name, lambda: _lines(files), _digest(*map(_of_file, files)))
    hub = hub_of(source)
    if hub is None:
        if kind == "text":
            next(read_lines(path), None)
            return Stream(name, lambda: _lines([path]), _of_file(path))
        held = load(kind, path)
        return Stream(name, lambda: iter(held), _of_file(path), len(held))
    hub = pinned(hub, "dataset")
    table = _open_hub(hub, split or "train")
    return Stream(name, lambda: _rows(kind, table, name), _digest(hub, split or ""))


def drawn(examples: Iterable[T], seed: int, held: int = SHUFFLED) -> Iterator[T]:
    """``examples`` in an order drawn with ``seed``.

    Up to ``held`` of them are in any order with equal chance. From a longer source, of which no more than ``held`` are
    kept, each that goes out is drawn from those kept and replaced by the next.
    """
    generator = random.Random(seed)
    kept: list[T] = []
    for example in examples:
        if len(kept) < held:
            kept.append(example)
            continue
        place = generator.randrange(held)
        leaving, kept[place] = kept[place], example
        yield leaving
    generator.shuffle(kept)
    yield from kept


def _lines(files: list[Path]) -> Iterator[Text]:
    for file in files:
        prefix = f"{file.name}:" if len(files) > 1 else ""
        for number, line in read_lines(file):
            if text := line.strip():
                yield Text(f"{prefix}{number}", text)


def _rows(kind: str, table: Iterable[dict[str, object]], source: str) -> Iterator[Example]:
    """Rows of a data set; a class label is its name."""
    features = getattr(table, "features", None) or {}
    names = {column: feature.int2str for column, feature in features.items() if hasattr(feature, "int2str")}
    rows = iter(table)
    for i in range(2**63):
        try:
            row = dict(next(rows))
        except StopIteration:
            return
        except Exception as error:  # network and format errors of the hub's streams share no base class
            raise BertftError(f"{source}: row {i} cannot be read ({_first_line(error)})") from None
        for column, name_of in names.items():
            value = row[column]
            row[column] = name_of(value) if isinstance(value, int) and value >= 0 else value
        if (example := _ROWS[kind](row, f"{source}: row {i}", str(i))) is not None:
            yield example


def _open_hub(name: HubName, split: str) -> Iterable[dict[str, object]]:
    import datasets

    try:
        if not _hub_within_reach() and not _is_cached(name.id):
            raise ConnectionError("the hub cannot be reached")
        with waiting(f"open {name}"):
            return datasets.load_dataset(name.id, name.config, split=split, revision=name.revision, streaming=True)
    except Exception as error:  # network, hub, cache and format errors share no base class
        reason = _first_line(error)
        raise BertftError(
            f"{name}: no such file, and not to be had as a hub data set, split {split} ({reason})"
        ) from None


def _of_file(path: Path) -> str:
    with path.open("rb") as file:
        return _digest(str(path), path.stat().st_size, hashlib.sha256(file.read(65_536)).hexdigest())


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()
