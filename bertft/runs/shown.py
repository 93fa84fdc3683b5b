"""Tables of text for a terminal and for a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bertft.runs.rows import Row

MOST = 40  # rows of a table that are shown
ENDS = 10  # of a longer table: rows shown at either end

Cells = tuple[str, list[str], list[list[str]]]
"""A line above the table, the heads of its columns, and the cells by row."""


def number(value: float) -> str:
    """Return a number with three decimals, or with three digits if it is large or small."""
    return f"{value:.3f}" if value == 0 or 0.001 <= abs(value) < 1000 else f"{value:.3g}"


def interval(low: float | None, high: float | None) -> str:
    """Return an interval in square brackets, or nothing; an open end is left out, and one near 0 has three decimals."""
    ends = ["" if end is None else f"{end:.3f}" if abs(end) < 1000 else number(end) for end in (low, high)]
    return f"[{ends[0]}, {ends[1]}]" if any(ends) else ""


def cells_of_rows(rows: Sequence[Row]) -> Cells:
    """Return the cells of rows; columns in which all rows agree are in the line above."""
    columns = {
        "model": [row.model for row in rows],
        "task": [row.task for row in rows],
        "data": [row.data for row in rows],
        "layer": ["" if row.layer is None else str(row.layer) for row in rows],
        "measure": [row.measure for row in rows],
        "n": ["" if row.n is None else f"{row.n:,}" for row in rows],
        "seed": ["" if row.seed is None else str(row.seed) for row in rows],
    }
    same = {name for name, cells in columns.items() if len(set(cells)) == 1 and name not in ("layer", "measure")}
    count = f"{len(rows)} row{'s' if len(rows) != 1 else ''}"
    head = ", ".join([count, *(f"{name} {columns[name][0]}" for name in columns if name in same and columns[name][0])])
    columns |= {
        "value": [number(row.value) for row in rows],
        "95 % interval": [interval(row.low, row.high) for row in rows],
    }
    order = ["model", "task", "data", "layer", "measure", "value", "95 % interval", "n", "seed"]
    kept = [name for name in order if name not in same and any(columns[name])]
    return head, kept, [list(cells) for cells in zip(*(columns[name] for name in kept), strict=True)]


def cut(rows: Sequence[list[str]]) -> tuple[list[list[str]], int]:
    """Return the rows to show, and how many of the middle are left out after the first `ENDS`."""
    return (list(rows), 0) if len(rows) <= MOST else ([*rows[:ENDS], *rows[-ENDS:]], len(rows) - 2 * ENDS)


def as_text(cells: Cells) -> str:
    """Return a table as aligned text."""
    head, names, rows = cells
    shown, left = cut(rows)
    widths = [max(map(len, column)) for column in zip(names, *shown, strict=True)]
    numeric = [name in ("layer", "value", "n", "seed") for name in names]

    def line(entries: Sequence[str]) -> str:
        parts = zip(entries, widths, numeric, strict=True)
        return "  ".join(f"{e:>{w}}" if right else f"{e:<{w}}" for e, w, right in parts).rstrip()

    lines = [line(entries) for entries in shown]
    if left:
        lines.insert(ENDS, f"... {left:,} more ...")
    return "\n".join([head, line(names), *lines] if names else [head])


def as_html(cells: Cells) -> str:
    """Return a table as HTML, every cell escaped."""
    head, names, rows = cells
    shown, left = cut(rows)
    lines = ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in entries) + "</tr>" for entries in shown]
    if left:
        lines.insert(ENDS, f'<tr><td colspan="{len(names)}">… {left:,} more …</td></tr>')
    heads = "".join(f"<th>{escape(name)}</th>" for name in names)
    return f"<p>{escape(head)}</p>\n<table>\n<tr>{heads}</tr>\n" + "\n".join(lines) + "\n</table>\n"
