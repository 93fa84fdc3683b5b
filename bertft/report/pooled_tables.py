"""Tables of ``python -m experiments``.

They hold several seeds and analyses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path

from bertft.report.figure import Figure, shown_lines
from bertft.runs.rows import COLUMNS, Row, read_results
from bertft.runs.vocabulary import BASE, PAIRED, RANDOM


def read_tables(folder: Path, tasks: Collection[str]) -> tuple[list[Row], list[int]]:
    """Return the rows of all tables in ``folder`` and the seeds they cover.

    A table of several seeds contributes its pooled rows only. If two tables have the same number from different tokens
    of one text, a figure of the paper takes precedence. Rows of other encoders than the base, a random one and those
    of ``tasks`` (pairs of tasks, an adapter) are omitted: the page reports each encoder's similarity to its base.
    """
    header = ",".join(COLUMNS)
    found: dict[tuple[object, ...], Row] = {}
    seeds: set[int] = set()
    for path in sorted(folder.glob("*.csv"), key=lambda path: (not path.name.startswith(("fig", "table")), path.name)):
        if path.read_text(encoding="utf8", errors="replace").partition("\n")[0].strip() != header:
            continue
        rows = read_results(path)
        pooled = any(row.seed is None for row in rows)
        for row in rows:
            if row.seed is not None:
                seeds.add(row.seed)
            known = row.task in PAIRED or not tasks or row.model in {BASE, RANDOM, *tasks}
            if known and not (pooled and row.seed is not None):
                found.setdefault(dataclasses.replace(row, seed=None).key, row)
    return list(found.values()), sorted(seeds)


def noted(figure: Figure, rows: Sequence[Row]) -> Figure:
    """Return a figure with a note in its caption if its numbers are means over seeds."""
    pooled = {(row.model, row.data, row.measure) for row in rows if row.seed is None}
    if not pooled & {(line.model, line.data, line.measure) for line in shown_lines(figure.panels)}:
        return figure
    note = "Mean over several seeds. The intervals include their spread."
    return dataclasses.replace(figure, caption=f"{figure.caption} {note}")
