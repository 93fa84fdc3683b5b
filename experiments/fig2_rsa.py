"""Figure 2: similarity of each layer of the tuned encoders to the base encoder, on text of no task."""

from __future__ import annotations

from collections.abc import Sequence

from bertft.report.figures.catalogue import Figure
from bertft.runs.folder import Stage
from bertft.runs.rows import Row
from bertft.study.repeat import Lab


def stages(lab: Lab) -> list[Stage]:
    return lab.study_stages("rsa")


def figures(rows: Sequence[Row], lab: Lab) -> list[Figure]:
    return lab.drawn(rows, "rsa_by_layer")
