"""Edge probes as a table in Markdown: a task and an encoder a row, an input of the probe a column."""

from __future__ import annotations

from collections.abc import Sequence

from bertft.report.lines import BASE, number
from bertft.runs.rows import Row

SCORES = {"micro_f1": "", "class_1_f1": ", class 1"}
"""Measures that fill a row, and what that adds to the task's name."""


def edge_table(rows: Sequence[Row], models: Sequence[str]) -> str:
    """The table of the edge probes of ``models`` among ``rows``, and below it what stands in a cell.

    Columns: layer 0 alone (lexical), layer 0 beside the top one, the best single layer, the mix of all. A cell holds
    the score with its interval and, where they were measured, the control's score, the selectivity and the difference
    to the base with the same input. A task whose labels are 0 and 1 has a second row, of F1 of the label 1.
    """
    by = {(row.model, row.data, row.measure, row.layer): row for row in rows if row.task == "edge"}
    tasks = dict.fromkeys(data for _, data, _, _ in by)
    lines = [
        "| task | encoder | lexical (layer 0) | layer 0 beside the top | best layer | mix of all |",
        "|---|---|---|---|---|---|",
    ]
    for task in tasks:
        for measure, added in SCORES.items():
            for model in models:
                layers = [row for row in by.values() if (row.model, row.data, row.measure) == (model, task, measure)]
                if not layers:
                    continue
                best, top = max(layers, key=lambda row: row.value), max(row.layer or 0 for row in layers)
                cells = [
                    _cell(by, model, task, measure, prefix, layer)
                    for prefix, layer in (("", 0), ("cat_", top), ("", best.layer), ("mix_", top))
                ]
                cells[2] = f"{best.layer}: {cells[2]}"
                lines.append(f"| {task}{added} | {model} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n\n" + _caption(list(by.values())) + "\n"


def _cell(
    by: dict[tuple[str, str, str, int | None], Row], model: str, task: str, measure: str, prefix: str, layer: int | None
) -> str:
    def found(name: str) -> Row | None:
        return by.get((model, task, prefix + name, layer))

    if (score := found(measure)) is None:
        return ""
    parts = [_shown(score)]
    if measure == "micro_f1":
        if control := found("control_micro_f1"):
            parts.append(f"control {control.value:.3f}")
        if selectivity := found("selectivity"):
            parts.append(f"selectivity {_shown(selectivity)}")
        if (gap := found("micro_f1_difference")) and model != BASE:
            shown = _shown(gap)
            parts.append(f"to the base {'' if shown.startswith('-') else '+'}{shown}")
    return "<br>".join(parts)


def _shown(row: Row) -> str:
    return number(row.value, row.low, row.high)


def _caption(rows: Sequence[Row]) -> str:
    said = (
        "Micro-F1 of edge probes with 95 % intervals over texts. Control: the same probe on labels drawn once a word "
    )
    said += "type; selectivity: the score less it. To the base: the score less that of the base's probe of the same "
    said += "input, paired by text. The best layer is chosen by the score that is shown, which is a little too good."
    if any(row.measure == "class_1_f1" for row in rows):
        said += " Class 1: F1 of the label 1, the other figure in use for coreference."
    return said
