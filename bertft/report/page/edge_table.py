"""Markdown table of edge probes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bertft.report.lines import number
from bertft.runs.rows import Row
from bertft.runs.vocabulary import BASE, MeasureName

SCORES = {MeasureName("micro_f1"): "", MeasureName("class_1_f1"): ", class 1"}
"""Measures that have a row each, with the addition to the task's name."""

CAPTION = (
    "Micro-F1 of edge probes with 95 % intervals over texts. Control: the same probe on labels drawn once per word "
    "type. Selectivity: the score minus the control's. To the base: the score minus that of the base's probe with the "
    "same input, paired by text. The best layer is chosen by the score shown, so that score is slightly optimistic."
)
CLASS_1 = " Class 1: F1 of the label 1, the other common score for coreference."
Key = tuple[str, str, str, int | None]  # model, data, measure, layer


def edge_table(rows: Sequence[Row], models: Sequence[str]) -> str:
    """Return the table of the edge probes of ``models`` among ``rows``, with a caption below it.

    Each task and encoder has a row. Columns: layer 0 alone (lexical), layer 0 beside the top one, the best single
    layer, the mix of all layers. A cell has the score with its interval and, if measured, the control's score, the
    selectivity and the difference to the base with the same input. A task with the labels 0 and 1 has a second row
    for the F1 of label 1.
    """
    by = {(row.model, row.data, row.measure, row.layer): row for row in rows if row.task == "edge"}
    lines = [
        "| task | encoder | lexical (layer 0) | layer 0 beside the top | best layer | mix of all |",
        "|---|---|---|---|---|---|",
    ]
    for task in dict.fromkeys(data for _, data, _, _ in by):
        for name, added in SCORES.items():
            for model in models:
                layers = [row for row in by.values() if (row.model, row.data, row.measure) == (model, task, str(name))]
                if not layers:
                    continue
                best, top = max(layers, key=lambda row: row.value), max(row.layer or 0 for row in layers)
                cells = [
                    _cell(by, model, task, measure, layer)
                    for measure, layer in (
                        (name, 0),
                        (replace(name, input="cat"), top),
                        (name, best.layer),
                        (replace(name, input="mix"), top),
                    )
                ]
                cells[2] = f"{best.layer}: {cells[2]}"
                lines.append(f"| {task}{added} | {model} | {' | '.join(cells)} |")
    caption = CAPTION + (CLASS_1 if any(measure == "class_1_f1" for _, _, measure, _ in by) else "")
    return "\n".join([*lines, "", caption]) + "\n"


def _cell(by: Mapping[Key, Row], model: str, task: str, name: MeasureName, layer: int | None) -> str:
    def found(measure: MeasureName) -> Row | None:
        return by.get((model, task, str(measure), layer))

    if (score := found(name)) is None:
        return ""
    parts = [_shown(score)]
    if name.base == "micro_f1":
        if control := found(replace(name, control=True)):
            parts.append(f"control {control.value:.3f}")
        if selectivity := found(replace(name, derived="selectivity")):
            parts.append(f"selectivity {_shown(selectivity)}")
        if (gap := found(replace(name, derived="difference"))) and model != BASE:
            shown = _shown(gap)
            parts.append(f"to the base {'' if shown.startswith('-') else '+'}{shown}")
    return "<br>".join(parts)


def _shown(row: Row) -> str:
    return number(row.value, row.low, row.high)
