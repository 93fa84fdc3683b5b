"""Vectors in files, read in chunks.

`open_vectors` opens a file or folder by its form:

- ``.npy``: an array (L, n, D), or (n, D) of one layer;
- ``.npz`` (uncompressed) and ``.safetensors``: one array ``vectors`` or ``hidden_states`` (L, n, D), or one (n, D) for
  each layer, whose names end in the layer's number;
- ``.parquet``, ``.arrow``, ``.feather`` and a folder saved by ``datasets``: one row for each stimulus, with a column
  ``vectors`` of L lists of D numbers, or one column of D numbers for each layer, whose names end in its number.

Every stimulus has an id, in an array or column ``ids`` (or ``id``), and may have a group, ``groups`` (or ``group``);
beside ``x.npy`` and ``x.safetensors`` these may also be in ``x.ids.txt`` and ``x.groups.txt``, one line each.

Nothing stays mapped between two chunks, so that the memory does not grow with the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from bertft.data.files import first_line, shorten
from bertft.data.vectors import arrays, columns
from bertft.data.vectors.names import GROUPS, IDS, WHOLE
from bertft.errors import BertftError, lacks_memory

_SAMPLED = 1 << 20  # bytes at either end of a file that its digest covers


class Table(Protocol):
    """Arrays of one file by name."""

    shapes: dict[str, tuple[int, ...]]
    """Shape of each array of numbers; columns have n in front."""

    def rows(self, name: str, start: int, stop: int, axis: int) -> Tensor:
        """Return the stimuli ``start:stop`` of an array, which are along ``axis``."""

    def column(self, name: str) -> Sequence[Any] | None:
        """Return the whole array ``name``, or None if there is none."""


@dataclass(frozen=True)
class VectorFile:
    """An open file of vectors.

    Attributes:
        path: the file or folder.
        numbers: the numbers of its layers, ascending.
        count: n, the number of stimuli.
        width: D.
        ids: of the stimuli, or None.
        groups: of the stimuli, or None.
    """

    path: str
    numbers: tuple[int, ...]
    count: int
    width: int
    ids: Sequence[Any] | None
    groups: Sequence[Any] | None
    table: Table
    names: tuple[str, ...]
    stacked: int | None  # the axis of the layers in a single array, None for one array a layer

    def chunk(self, start: int, stop: int, places: Sequence[int]) -> Tensor:
        """Return the vectors (len(places), stop - start, D) of some stimuli in the layers at these places."""
        with reading(self.path):
            if self.stacked is None:
                return torch.stack([self.table.rows(self.names[place], start, stop, 0) for place in places])
            rows = self.table.rows(self.names[0], start, stop, 1 - self.stacked)
            return (rows if self.stacked == 0 else rows.transpose(0, 1))[list(places)]

    def digest(self) -> str:
        """Return a digest of the names and sizes of the files and of a part of their content."""
        place = Path(self.path)
        sha = hashlib.sha256()
        for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if file.is_file():
                size = file.stat().st_size
                sha.update(f"{file.name} {size}\n".encode())
                with file.open("rb") as stream:
                    sha.update(stream.read(_SAMPLED))
                    stream.seek(max(0, size - _SAMPLED))
                    sha.update(stream.read(_SAMPLED))
        return sha.hexdigest()


def open_vectors(path: str | os.PathLike[str]) -> VectorFile:
    """Open a file of vectors; see the module for its forms.

    Raises:
        BertftError: if it is missing, damaged or of another form, holds no floating-point vectors, or arrays that do
            not fit together.
    """
    place = Path(path)
    if not place.exists():
        raise BertftError(f"{place}: no such file of vectors")
    kinds: dict[str, Any] = {
        ".npy": arrays.NumpyFile,
        ".npz": arrays.NumpyArchive,
        ".safetensors": arrays.SafetensorsFile,
        ".parquet": columns.ParquetTable,
        ".arrow": columns.ArrowTable,
        ".feather": columns.ArrowTable,
    }
    kind = columns.SavedDataset if place.is_dir() else kinds.get(place.suffix)
    if kind is None:
        raise BertftError(f"{place}: expected vectors in {', '.join(kinds)} or a folder saved by datasets")
    with reading(str(place)):
        return _opened(str(place), kind(place))


def _opened(path: str, table: Table) -> VectorFile:
    names, numbers, stacked = _layers(path, table.shapes)
    shape = table.shapes[names[0]]
    if any(table.shapes[name] != shape for name in names):
        other = next(name for name in names if table.shapes[name] != shape)
        raise BertftError(f"{path}: expected layers of one shape, found {shape} and {table.shapes[other]} in {other!r}")
    count = shape[0] if stacked is None else shape[1 - stacked]
    found = {name: table.column(name) for name in (*IDS, *GROUPS)}
    ids, groups = (next((found[n] for n in kind if found[n] is not None), None) for kind in (IDS, GROUPS))
    ids, groups = (_beside(path, kind[0]) if own is None else own for own, kind in ((ids, IDS), (groups, GROUPS)))
    for name, column in (("ids", ids), ("groups", groups)):
        if column is not None and len(column) != count:
            raise BertftError(f"{path}: expected {count} {name}, one for each stimulus, found {len(column)}")
    return VectorFile(path, numbers, count, shape[-1], ids, groups, table, names, stacked)


def _layers(path: str, shapes: dict[str, tuple[int, ...]]) -> tuple[tuple[str, ...], tuple[int, ...], int | None]:
    """Return the names of the arrays, the layers' numbers, and the axis of the layers in a single array."""
    vectors = {name: shape for name, shape in shapes.items() if name not in (*IDS, *GROUPS)}
    for name in WHOLE:
        if name in vectors:
            if len(vectors[name]) == 2:
                return (name,), (0,), None
            axis = 1 if path.endswith((".parquet", ".arrow", ".feather")) or Path(path).is_dir() else 0
            if len(vectors[name]) == 3:
                return (name,), tuple(range(vectors[name][axis])), axis
            raise BertftError(f"{path}: expected {name} of shape (layers, stimuli, D), found {vectors[name]}")
    found: dict[int, str] = {}
    for name, shape in vectors.items():
        number = re.search(r"(\d{1,5})\D*$", name)
        if number is None or len(shape) != 2:
            raise BertftError(
                f"{path}: expected vectors, or (stimuli, D) for each layer under a name with its number, "
                f"found {shorten(name)} of shape {shape}"
            )
        if int(number[1]) in found:
            raise BertftError(f"{path}: two arrays have the number {number[1]}: {found[int(number[1])]!r} and {name!r}")
        found[int(number[1])] = name
    if not found:
        raise BertftError(f"{path}: expected vectors, found no array of numbers")
    numbers = tuple(sorted(found))
    return tuple(found[number] for number in numbers), numbers, None


def _beside(path: str, name: str) -> list[str] | None:
    """Return the lines of ``<stem>.<name>.txt`` beside the file, or None."""
    place = Path(path)
    lines = place.with_name(f"{place.stem}.{name}.txt")
    return lines.read_text(encoding="utf8").splitlines() if lines.is_file() else None


@contextlib.contextmanager
def reading(path: str) -> Iterator[None]:
    """Raise what a library reports about a damaged file as ``BertftError``."""
    try:
        yield
    except BertftError:
        raise
    except Exception as error:  # each library has its own
        if lacks_memory(error):
            raise
        raise BertftError(f"{path}: cannot be read as vectors ({first_line(error)})") from error
