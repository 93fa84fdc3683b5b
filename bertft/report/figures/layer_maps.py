"""Heat maps of all layers, base against tuned."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from bertft.report.figure import HeatMap, Matrix
from bertft.report.lines import Line, count, lines
from bertft.runs.rows import Row
from bertft.runs.vocabulary import MeasureName


def layer_maps(rows: Sequence[Row]) -> list[HeatMap]:
    """Return one figure per measure and text of the analysis ``heatmap``, one panel per tuned encoder."""
    groups: dict[tuple[MeasureName, str], list[Line]] = {}
    for line in lines(rows, "heatmap"):
        if line.name.base_layer is not None:
            groups.setdefault((dataclasses.replace(line.name, base_layer=None), line.data), []).append(line)
    texts = {data for _, data in groups}
    maps = []
    for (name, data), own in groups.items():
        family = name.measure.family
        kind = family if family in ("RSA", "CKA") else str(name)
        maps.append(
            HeatMap(
                f"{name}_layers" if len(texts) == 1 else f"{name}_layers_{data}",
                f"Every layer against every layer of the base encoder, by {kind}",
                f"On {data}, {count(own)}. No intervals here; the figures by layer have them.",
                tuple(layer_map(model, own) for model in dict.fromkeys(line.model for line in own)),
                "layer of the tuned encoder (0 = embeddings)",
                "layer of the base encoder",
                name.axis,
                low=min(0.0, *(value for line in own for value in line.values)),
            )
        )
    return maps


def layer_map(model: str, own: Sequence[Line]) -> Matrix:
    """Return the panel of one encoder: a row per layer of the base encoder, a column per layer of the encoder."""
    cells = {
        (line.name.base_layer or 0, layer): value
        for line in own
        if line.model == model
        for layer, value in zip(line.layers, line.values, strict=True)
    }
    base, tuned = sorted({key[0] for key in cells}), sorted({key[1] for key in cells})
    return Matrix(model, [[cells[i, j] for j in tuned] for i in base], [str(i) for i in base], [str(j) for j in tuned])
