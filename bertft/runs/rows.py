"""The tidy table that every part writes and the report reads."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

from bertft.errors import BertftError

__all__ = ["COLUMNS", "Row", "merge_rows", "read_results", "results_as_json", "to_arrow", "to_pandas", "write_results"]


@dataclass(frozen=True, slots=True)
class Row:
    """One number.

    ``model`` the encoder (``base``, ``dep``, ``mnli``, ``squad``, ...), ``task`` the analysis that made the number
    (``finetune``, ``rsa``, ``structural``, ...), ``data`` the text it was measured on, ``layer`` the layer or None,
    ``measure`` its name, ``low`` and ``high`` the ends of its 95 % interval or None, ``n`` how many items it rests on.
    """

    model: str
    task: str
    data: str
    layer: int | None
    measure: str
    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    seed: int | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """What makes a row unique in a table."""
        return (self.model, self.task, self.data, self.layer, self.measure, self.seed)


COLUMNS = tuple(f.name for f in fields(Row))
_INTEGERS = {"layer", "n", "seed"}
_NUMBERS = {"value", "low", "high"}


def write_text_atomically(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` to ``path`` through a temporary name in the same folder, so that no reader sees half of it."""
    write_bytes_atomically(path, text.encode("utf8"))


def write_bytes_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """As ``write_text_atomically``, for bytes."""
    with appearing_file(path) as file:
        file.write(data)


UNFINISHED = ".part"  # how the name of what is not whole yet ends; it begins with a dot


@contextlib.contextmanager
def appearing_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write into that takes the name ``path`` at the end, and is gone if that is not reached."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=UNFINISHED)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def appearing_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A name for a folder to make that becomes ``path`` at the end; one writer at a time.

    What an earlier writer left when it was killed is removed first.
    """
    path = Path(path)
    fresh = path.parent / f".{path.name}{UNFINISHED}"
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        yield fresh
        os.replace(fresh, path)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def sweep_unfinished(folder: str | os.PathLike[str]) -> None:
    """Remove what writers that were killed left anywhere in ``folder``.

    Below a folder in which a process holds a lock (`bertft.runs.locks.claimed`, or ``.lock`` itself), nothing is touched;
    ``folder``'s own ``.lock`` is the caller's.
    """
    from bertft.runs.locks import SUFFIX, is_held

    own = Path(folder) / SUFFIX
    busy = {lock.parent for lock in Path(folder).rglob(f"*{SUFFIX}") if lock != own and is_held(lock)}
    for path in [*Path(folder).rglob(f".*{UNFINISHED}")]:
        if not busy.isdisjoint(path.parents):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def merge_rows(*tables: Iterable[Row]) -> list[Row]:
    """All rows in order of first appearance; of rows with one key the last wins."""
    merged: dict[tuple[object, ...], Row] = {}
    for table in tables:
        for row in table:
            merged[row.key] = row
    return list(merged.values())


def write_results(path: str | os.PathLike[str], rows: Sequence[Row]) -> None:
    """Write ``rows`` as CSV with a header, numbers with 17 significant digits at most, None as an empty cell."""
    lines = [",".join(COLUMNS)]
    for row in rows:
        if not math.isfinite(row.value):
            raise BertftError(
                f"results: {row.measure} of {row.model} at layer {row.layer} is {row.value}, expected a finite number"
            )
        lines.append(",".join(_cell(getattr(row, name)) for name in COLUMNS))
    write_text_atomically(path, "\n".join(lines) + "\n")


def read_results(path: str | os.PathLike[str]) -> list[Row]:
    """Read what ``write_results`` wrote; a ``BertftError`` names the file and line of anything else."""
    path = Path(path)
    try:
        with path.open(encoding="utf8", newline="") as file:
            table = list(csv.reader(file))
    except FileNotFoundError:
        raise BertftError(f"{path}: no such results file") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise BertftError(f"{path}: not a table of results in UTF-8 ({error})") from None
    if not table or tuple(table[0]) != COLUMNS:
        found = repr(",".join(table[0])[:100]) if table else "nothing"
        raise BertftError(f"{path}: line 1: expected the columns {','.join(COLUMNS)}, found {found}")
    rows = []
    for number, cells in enumerate(table[1:], start=2):
        if len(cells) != len(COLUMNS):
            raise BertftError(f"{path}: line {number}: expected {len(COLUMNS)} cells, found {len(cells)}")
        try:
            values: dict[str, Any] = {name: _parse(name, cell) for name, cell in zip(COLUMNS, cells, strict=True)}
            if not math.isfinite(values["value"]):
                raise ValueError(f"expected a finite value, found {values['value']}")
            rows.append(Row(**values))
        except ValueError as error:
            raise BertftError(f"{path}: line {number}: {error}") from None
    return rows


def to_arrow(rows: Iterable[Row]) -> Any:
    """``rows`` as a ``pyarrow.Table`` with the columns of `Row`: text, int64, float64; what a row lacks is null."""
    import pyarrow

    def kind(name: str) -> Any:
        if name in _INTEGERS:
            return pyarrow.int64()
        return pyarrow.float64() if name in _NUMBERS else pyarrow.string()

    schema = pyarrow.schema([(name, kind(name)) for name in COLUMNS])
    return pyarrow.Table.from_pylist([{name: getattr(row, name) for name in COLUMNS} for row in rows], schema=schema)


def to_pandas(rows: Iterable[Row]) -> Any:
    """``rows`` as a ``pandas.DataFrame`` with the columns of `Row`.

    ``layer``, ``n`` and ``seed`` are of type Int64, NA where a row lacks them; ``low`` and ``high`` are NaN then.
    """
    import pandas
    import pyarrow

    return to_arrow(rows).to_pandas(types_mapper={pyarrow.int64(): pandas.Int64Dtype()}.get)


def results_as_json(rows: Iterable[Row]) -> str:
    """``rows`` as a JSON list of objects, a line a row; what a row lacks is null."""
    lines = (json.dumps({name: getattr(row, name) for name in COLUMNS}, ensure_ascii=False) for row in rows)
    return "[\n" + ",\n".join(f" {line}" for line in lines) + "\n]"


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return repr(float(value))
    text = str(value)
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\n\r') else text


def _parse(name: str, cell: str) -> object:
    if name in _INTEGERS:
        return int(cell) if cell else None
    if name in _NUMBERS:
        return float(cell) if cell or name == "value" else None
    return cell
