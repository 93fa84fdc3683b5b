"""How far the weights of each block moved, relative to their size."""

from __future__ import annotations

from collections.abc import Sequence

from bertft.models.weight_distance import weight_distance
from bertft.report.figures.catalogue import Figure
from bertft.report.figures.layered import layered
from bertft.report.lines import lines
from bertft.runs.folder import Stage
from bertft.runs.rows import Row
from bertft.study.repeat import Lab

MEASURE = "relative_weight_distance"


def stages(lab: Lab) -> list[Stage]:
    found = lab.study_stages("models")
    for seed in lab.seeds:
        work = lambda seed=seed: measure(lab, seed)
        found.append(lab.stage(f"weights/seed{seed}", seed, {"measure": MEASURE}, work))
    return found


def measure(lab: Lab, seed: int) -> list[Row]:
    """|W' - W| / |W| of the embeddings (layer 0) and every block."""
    base = lab.encoder(seed, "base").model
    return [
        Row(name, "weights", "weights", layer, MEASURE, value, seed=seed)
        for name in lab.setting.study.tasks
        for layer, value in enumerate(weight_distance(base, lab.encoder(seed, name).model))
    ]


def figures(rows: Sequence[Row], lab: Lab) -> list[Figure]:
    figure = layered(
        "weight_distance",
        "How far the weights of each block moved",
        "Frobenius norm of the change over that of the weights, all parameters of a block together.",
        lines(rows, "weights"),
        panel=lambda line: "weights",
        ylabel=lambda line: "|W' − W| / |W|",
        xlabel="block (0 = embeddings)",
        cluster="seeds",
    )
    return [figure] if figure else []
