"""All figures of a run."""

from __future__ import annotations

from collections.abc import Sequence

from bertft.report.figure import Figure
from bertft.report.figures.ablation import ablation_figure
from bertft.report.figures.by_layer import by_layer, domains
from bertft.report.figures.probes import edge_figure, rank_figure, structural_figure
from bertft.report.figures.training import film
from bertft.report.lines import Context, Line, lines
from bertft.runs.rows import Row


def figures(rows: Sequence[Row], context: Context) -> list[Figure]:
    """Return every figure that the rows have numbers for, in the order of the page.

    The first measure of similarity in the table is the main one: its figures come first.
    """
    by_measure: dict[str, list[Line]] = {}
    for line in lines(rows, "rsa"):
        by_measure.setdefault(line.measure, []).append(line)
    main, *others = by_measure.values() or [[]]
    found: list[Figure | None] = []
    nulls = lines(rows, "null")
    if main:
        found += [by_layer(main, context, main=True, nulls=nulls), domains(main, context)]
    if probed := lines(rows, "structural"):
        found += [structural_figure(probed, context), rank_figure(probed, context)]
    if edges := lines(rows, "edge"):
        found.append(edge_figure(edges, context))
    found += [ablation_figure(kind, swept, context) for kind in ("freeze", "truncate") if (swept := lines(rows, kind))]
    found += [by_layer(similar, context, main=False, nulls=nulls) for similar in others]
    if moments := lines(rows, "along"):
        found.append(film(moments))
    return [figure for figure in found if figure is not None]
