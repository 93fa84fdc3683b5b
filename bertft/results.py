"""The tidy table that every part writes and the report reads."""

from __future__ import annotations

import csv
import json
import math
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bertft.errors import BertftError


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
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


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
    if not table or tuple(table[0]) != COLUMNS:
        found = ",".join(table[0]) if table else "nothing"
        raise BertftError(f"{path}: line 1: expected the columns {','.join(COLUMNS)}, found {found}")
    rows = []
    for number, cells in enumerate(table[1:], start=2):
        if len(cells) != len(COLUMNS):
            raise BertftError(f"{path}: line {number}: expected {len(COLUMNS)} cells, found {len(cells)}")
        try:
            values: dict[str, Any] = {name: _parse(name, cell) for name, cell in zip(COLUMNS, cells, strict=True)}
            rows.append(Row(**values))
        except ValueError as error:
            raise BertftError(f"{path}: line {number}: {error}") from None
    return rows


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
