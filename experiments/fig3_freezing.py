"""Figure 3: score of each task by the number of frozen blocks, from nothing frozen to the whole encoder."""

from __future__ import annotations

from collections.abc import Sequence

from bertft.report.figures.catalogue import Figure
from bertft.runs.folder import Stage
from bertft.runs.rows import Row
from bertft.study.repeat import Lab


def stages(lab: Lab) -> list[Stage]:
    """The sweep of every task and seed (`bertft.study.repeat.Lab.sweep`)."""
    return lab.sweep("freeze")


def figures(rows: Sequence[Row], lab: Lab) -> list[Figure]:
    return lab.drawn(rows, "freeze_by_k")
