"""Parquet and Arrow tables and saved data sets of vectors, with one row for each stimulus."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from bertft.data.vectors.names import GROUPS, IDS, as_floats, floats
from bertft.errors import BertftError
from bertft.runs.extras import need

if TYPE_CHECKING:
    import pyarrow as pa


class _Columns(ABC):
    """Columns of lists; subclasses read rows."""

    def __init__(self, path: Path) -> None:
        need("data", f"{path}: a table of vectors")
        import pyarrow as pa

        self.path = path
        self.schema, self.count = self._open()
        if self.count == 0:
            raise BertftError(f"{path}: expected a row for each stimulus, found none")
        self.shapes: dict[str, tuple[int, ...]] = {}
        for field in self.schema:
            if field.name not in (*IDS, *GROUPS) and _depth(field.type):
                leaf = _leaf(field.type)
                floats(path, field.name, str(leaf), pa.types.is_floating(leaf))
                first = self._read(field.name, 0, 1).to_pylist()[0]
                inner = [len(first)] + ([len(first[0])] if _depth(field.type) == 2 else [])
                self.shapes[field.name] = (self.count, *inner)

    @abstractmethod
    def _open(self) -> tuple[pa.Schema, int]:
        """Return the schema and the number of rows."""

    @abstractmethod
    def _read(self, name: str, start: int, stop: int) -> pa.Array:
        """Return some rows of a column."""

    def rows(self, name: str, start: int, stop: int, axis: int) -> Tensor:
        """Return some stimuli (n, D), or (n, L, D) of a column of lists of lists."""
        column, shape = self._read(name, start, stop), self.shapes[name][1:]
        values, inside = column, 1  # the entries of `values` for each row
        for size in shape:
            lengths = values.value_lengths().to_numpy(zero_copy_only=False)  # NaN where a list is missing
            if (lengths != size).any():
                row = start + int(np.flatnonzero(lengths != size)[0]) // inside
                raise BertftError(f"{self.path}: expected lists of {size} in {name!r}, found another in row {row}")
            values, inside = values.flatten(), inside * size
        if values.null_count:
            raise BertftError(f"{self.path}: expected numbers in {name!r}, found none in rows {start} to {stop - 1}")
        return as_floats(values.to_numpy(zero_copy_only=False)).view(len(column), *shape)

    def column(self, name: str) -> Sequence[Any] | None:
        """Return a column as a list, or None."""
        if name not in self.schema.names:
            return None
        values: list[Any] = self._read(name, 0, self.count).to_pylist()
        return values


def _depth(kind: pa.DataType) -> int:
    """Return how many lists a column's entries are nested in."""
    import pyarrow as pa

    nested = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return 1 + _depth(kind.value_type) if nested else 0


def _leaf(kind: pa.DataType) -> pa.DataType:
    return _leaf(kind.value_type) if _depth(kind) else kind


def _one(column: pa.ChunkedArray) -> pa.Array:
    import pyarrow as pa

    joined = column.combine_chunks()
    return pa.concat_arrays(joined.chunks) if isinstance(joined, pa.ChunkedArray) else joined


class ParquetTable(_Columns):
    """A Parquet file, of which only the row groups that hold the stimuli are read."""

    def _open(self) -> tuple[pa.Schema, int]:
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.path) as file:
            sizes = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
            self.starts = np.cumsum([0, *sizes])
            return file.schema_arrow, file.metadata.num_rows

    def _read(self, name: str, start: int, stop: int) -> pa.Array:
        import pyarrow.parquet as pq

        first = int(np.searchsorted(self.starts, start, side="right")) - 1
        last = int(np.searchsorted(self.starts, stop, side="left"))
        with pq.ParquetFile(self.path) as file:
            column = file.read_row_groups(list(range(first, last)), [name])[name]
            return _one(column.slice(start - int(self.starts[first]), stop - start))


class ArrowTable(_Columns):
    """An Arrow file or stream, by memory map."""

    def _table(self) -> pa.Table:
        import pyarrow as pa

        source = pa.memory_map(str(self.path))
        try:
            return pa.ipc.open_file(source).read_all()
        except pa.ArrowInvalid:
            source.seek(0)
            return pa.ipc.open_stream(source).read_all()

    def _open(self) -> tuple[pa.Schema, int]:
        table = self._table()
        return table.schema, table.num_rows

    def _read(self, name: str, start: int, stop: int) -> pa.Array:
        return _one(self._table()[name].slice(start, stop - start))


class SavedDataset(_Columns):
    """A folder written by ``Dataset.save_to_disk``."""

    def _open(self) -> tuple[pa.Schema, int]:
        from datasets import Dataset, load_from_disk

        self.dataset = load_from_disk(str(self.path))
        if not isinstance(self.dataset, Dataset):
            raise BertftError(f"{self.path}: expected one split of a data set, found {', '.join(self.dataset)}")
        return self.dataset.with_format("arrow")[:1].schema, len(self.dataset)

    def _read(self, name: str, start: int, stop: int) -> pa.Array:
        table = self.dataset.with_format("arrow")[start:stop]
        return _one(table[name])
