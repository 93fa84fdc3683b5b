"""Every layer of the base encoder against every layer of a tuned one, as heat maps."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bertft.report.figure import HeatMap, Matrix
from bertft.report.figures.catalogue import axis_label
from bertft.report.lines import count, lines
from bertft.runs.rows import Row

_NAME = re.compile(r"(.+)_base(\d+)")


def layer_maps(rows: Sequence[Row]) -> list[HeatMap]:
    """A figure for each measure and text of the rows of ``heatmap``, a panel for each tuned encoder."""
    groups: dict[tuple[str, str], dict[str, dict[tuple[int, int], float]]] = {}
    shown = lines(rows, "heatmap")
    for line in shown:
        if found := _NAME.fullmatch(line.measure):
            cells = groups.setdefault((found[1], line.data), {}).setdefault(line.model, {})
            cells.update({(int(found[2]), k): v for k, v in zip(line.layers, line.values, strict=True)})
    texts = {data for _, data in groups}
    maps = []
    for (measure, data), of_models in groups.items():
        own = [line for line in shown if line.data == data and line.measure.startswith(f"{measure}_base")]
        every = [value for cells in of_models.values() for value in cells.values()]
        maps.append(
            HeatMap(
                f"{measure}_layers" if len(texts) == 1 else f"{measure}_layers_{data}",
                f"Every layer against every layer of the base encoder, by {_kind(measure)}",
                f"On {data}, {count(own)}; without intervals, which the same layers' comparison has.",
                tuple(_panel(model, cells) for model, cells in of_models.items()),
                "layer of the tuned encoder (0 = embeddings)",
                "layer of the base encoder",
                axis_label(measure),
                low=min(0.0, *every),
            )
        )
    return maps


def _kind(measure: str) -> str:
    return measure.partition("_")[0].upper() if measure.startswith(("rsa_", "cka_")) else measure


def _panel(model: str, cells: dict[tuple[int, int], float]) -> Matrix:
    base, tuned = sorted({key[0] for key in cells}), sorted({key[1] for key in cells})
    return Matrix(model, [[cells[i, j] for j in tuned] for i in base], [str(i) for i in base], [str(j) for j in tuned])
