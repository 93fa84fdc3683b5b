"""Tidy tables of results: rows, CSV, JSON, Arrow and pandas."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bertft.errors import BertftError
from bertft.runs.extras import need
from bertft.runs.files import write_text_atomically
from bertft.runs.shown import as_html, as_text, cells_of_rows

__all__ = [
    "COLUMNS",
    "Row",
    "Rows",
    "merge_rows",
    "read_results",
    "results_as_json",
    "to_arrow",
    "to_pandas",
    "write_results",
]


@dataclass(frozen=True, slots=True)
class Row:
    """One number of a results table.

    Attributes:
        model: The encoder (``base``, ``dep``, ``mnli``, ``squad``, ...).
        task: The analysis (``finetune``, ``rsa``, ``structural``, ...).
        data: The text it was measured on.
        layer: The layer, or None if the number is of the whole encoder.
        measure: The name of the measure; `bertft.runs.vocabulary` lists all.
        value: The number.
        low: The lower end of its 95 % interval, or None.
        high: The upper end, or None.
        n: The number of items it is measured on, or None.
        seed: The seed of the run; None for a mean over seeds.
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
        """Return the columns that identify a row in a table."""
        return (self.model, self.task, self.data, self.layer, self.measure, self.seed)


class Rows(list[Row]):
    """A list of rows that shows itself as a table, in a terminal and in a notebook.

    Columns in which all rows agree stand above the table. Of more than 40 rows the first and the last 10 are shown.
    """

    def __repr__(self) -> str:
        return as_text(cells_of_rows(self))

    def _repr_html_(self) -> str:
        return as_html(cells_of_rows(self))

    def of(self, **columns: object) -> Rows:
        """Return the rows with these values, such as ``rows.of(measure="uuas", layer=3)``.

        Raises ``BertftError`` for a column that rows do not have.
        """
        if unknown := sorted(set(columns) - set(COLUMNS)):
            raise BertftError(f"rows: expected columns of {', '.join(COLUMNS)}, found {unknown[0]}")
        return Rows(row for row in self if all(getattr(row, name) == value for name, value in columns.items()))

    def to_pandas(self) -> Any:
        """Return the rows as a ``pandas.DataFrame`` (`bertft.to_pandas`)."""
        return to_pandas(self)


COLUMNS = tuple(f.name for f in fields(Row))
_INTEGERS = {"layer", "n", "seed"}
_NUMBERS = {"value", "low", "high"}


def merge_rows(*tables: Iterable[Row]) -> Rows:
    """Return all rows in order of first appearance. Of rows with the same key, the last one wins."""
    merged: dict[tuple[object, ...], Row] = {}
    for table in tables:
        for row in table:
            merged[row.key] = row
    return Rows(merged.values())


def write_results(path: str | os.PathLike[str], rows: Sequence[Row]) -> None:
    """Write ``rows`` as CSV with a header.

    Numbers are written exactly, with at most 17 significant digits; None is an empty cell. Raises ``BertftError`` for
    a value that is not finite.
    """
    lines = [",".join(COLUMNS)]
    for row in rows:
        if not math.isfinite(row.value):
            raise BertftError(
                f"results: {row.measure} of {row.model} at layer {row.layer} is {row.value}, expected a finite number"
            )
        lines.append(",".join(_cell(getattr(row, name)) for name in COLUMNS))
    write_text_atomically(path, "\n".join(lines) + "\n")


def read_results(path: str | os.PathLike[str]) -> Rows:
    """Read a table that `write_results` wrote; raise ``BertftError`` with file and line for anything else."""
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
    rows = Rows()
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
    """Return ``rows`` as a ``pyarrow.Table`` of text, int64 and float64 columns, with null for None."""
    need("data", "to_arrow")
    import pyarrow

    def kind(name: str) -> Any:
        if name in _INTEGERS:
            return pyarrow.int64()
        return pyarrow.float64() if name in _NUMBERS else pyarrow.string()

    schema = pyarrow.schema([(name, kind(name)) for name in COLUMNS])
    return pyarrow.Table.from_pylist([{name: getattr(row, name) for name in COLUMNS} for row in rows], schema=schema)


def to_pandas(rows: Iterable[Row]) -> Any:
    """Return ``rows`` as a ``pandas.DataFrame`` with the columns of `Row`.

    ``layer``, ``n`` and ``seed`` have dtype Int64 with NA for None; ``low`` and ``high`` have NaN for None.
    """
    need("data", "to_pandas")
    import pandas
    import pyarrow

    return to_arrow(rows).to_pandas(types_mapper={pyarrow.int64(): pandas.Int64Dtype()}.get)


def results_as_json(rows: Iterable[Row]) -> str:
    """Return ``rows`` as a JSON list of objects, one per line, with null for None."""
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
