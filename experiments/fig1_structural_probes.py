"""Figure 1: what structural probes read from each layer of the base, the tuned and a random encoder."""

from __future__ import annotations

from collections.abc import Sequence

from bertft.lab import Lab
from bertft.report.figures import Figure
from bertft.results import Row
from bertft.run_folder import Stage


def stages(lab: Lab) -> list[Stage]:
    return lab.study_stages("probes")


def figures(rows: Sequence[Row], lab: Lab) -> list[Figure]:
    return lab.drawn(rows, "probes_by_layer")
