"""What the page of ``python -m experiments`` takes from its tables: they hold every seed and analyses of many kinds."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path

from bertft.report.figures.catalogue import Figure
from bertft.report.lines import BASE, NO_MODEL, RANDOM
from bertft.runs.rows import COLUMNS, Row, read_results


def read_tables(folder: Path, tasks: Collection[str]) -> tuple[list[Row], list[int]]:
    """The rows of all tables in ``folder``, and the seeds they are of.

    Of several seeds only what they say together. A number that two tables have, from other tokens of one text, is that
    of the first: of a figure of the paper rather than of what lies beyond it. Rows of anything but the base, a random
    encoder and the encoders of ``tasks`` (two tasks set beside each other, an adapter) stay where they are: the page
    speaks of each encoder's similarity to its base.
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
            known = row.task in NO_MODEL or not tasks or row.model in {BASE, RANDOM, *tasks}
            if known and not (pooled and row.seed is not None):
                found.setdefault(dataclasses.replace(row, seed=None).key, row)
    return list(found.values()), sorted(seeds)


def noted(figure: Figure, rows: Sequence[Row]) -> Figure:
    """A figure with a word in its caption where its numbers are of several seeds."""
    pooled = {(row.model, row.data, row.measure) for row in rows if row.seed is None}
    shown = {(c.line.model, c.line.data, c.line.measure) for panel in figure.panels for c in panel.curves}
    if not shown & pooled:
        return figure
    note = "Mean of several seeds, which the intervals cover too."
    return dataclasses.replace(figure, caption=f"{figure.caption} {note}")
