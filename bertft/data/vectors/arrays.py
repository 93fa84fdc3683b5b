"""NumPy and safetensors files of vectors."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import safe_open
from torch import Tensor

from bertft.data.vectors.names import GROUPS, IDS, WHOLE, as_floats, floats
from bertft.errors import BertftError


class _Place(NamedTuple):
    """An array within a file."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    transposed: bool  # Fortran order


class NumpyFile:
    """A ``.npy`` file, as the array ``vectors``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            places = {WHOLE[0]: _header(file, path)}
        self._set(places)

    def _set(self, places: dict[str, _Place]) -> None:
        self.places = places
        for name, place in places.items():
            floats(self.path, name, str(place.dtype), place.dtype.kind == "f")
        self.shapes = {name: p.shape for name, p in places.items() if name not in (*IDS, *GROUPS)}
        if any(len(shape) not in (2, 3) for shape in self.shapes.values()):
            found = ", ".join(map(str, self.shapes.values()))
            raise BertftError(f"{self.path}: expected vectors of shape (layers, stimuli, D), found {found}")

    def rows(self, name: str, start: int, stop: int, axis: int) -> Tensor:
        """Return some stimuli by a memory map that lasts as long as the copy."""
        array = self._mapped(self.places[name])
        return as_floats(array[start:stop] if axis == 0 else array[:, start:stop])

    def column(self, name: str) -> Sequence[Any] | None:
        """Return a copy of an array, or None."""
        return self._mapped(self.places[name]).tolist() if name in self.places else None

    def _mapped(self, place: _Place) -> np.ndarray:
        order: Any = "F" if place.transposed else "C"
        return np.memmap(self.path, place.dtype, "r", place.offset, place.shape, order)


class NumpyArchive(NumpyFile):
    """A ``.npz`` file whose members are stored without compression."""

    def __init__(self, path: Path) -> None:
        self.path = path
        places = {}
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            for member in archive.infolist():
                if member.compress_type != zipfile.ZIP_STORED:
                    name = member.filename
                    raise BertftError(f"{path}: expected arrays as numpy.savez writes them, found {name} compressed")
                file.seek(member.header_offset)
                head = file.read(30)
                file.seek(member.header_offset + 30 + sum(struct.unpack("<HH", head[26:30])))
                places[member.filename.removesuffix(".npy")] = _header(file, path)
        self._set(places)


def _header(file: Any, path: Path) -> _Place:
    """Read the header of an array in NumPy's format at the position of ``file``."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, transposed, dtype = read(file)
    if dtype.hasobject:
        raise BertftError(f"{path}: expected arrays of numbers or text, found Python objects, which are not read")
    return _Place(file.tell(), shape, dtype, transposed)


class SafetensorsFile:
    """A ``.safetensors`` file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shapes: dict[str, tuple[int, ...]] = {}
        with safe_open(path, "pt") as file:
            self.names = set(file.keys())
            for name in self.names:
                part = file.get_slice(name)
                kind = str(part.get_dtype())
                floats(path, name, kind, kind in ("F64", "F32", "F16", "BF16"))
                if name not in (*IDS, *GROUPS):
                    self.shapes[name] = tuple(part.get_shape())

    def rows(self, name: str, start: int, stop: int, axis: int) -> Tensor:
        """Return some stimuli; the file is closed again."""
        with safe_open(self.path, "pt") as file:
            part = file.get_slice(name)
            rows: Tensor = part[start:stop] if axis == 0 else part[:, start:stop]
            return rows.clone()

    def column(self, name: str) -> Sequence[Any] | None:
        """Return a copy of a tensor, or None."""
        if name not in self.names:
            return None
        with safe_open(self.path, "pt") as file:
            values: Sequence[Any] = file.get_tensor(name).tolist()
            return values
