"""The fine-tuned models that the other analyses share, and their scores on dev."""

from __future__ import annotations

from collections.abc import Sequence

from bertft.lab import Lab
from bertft.report.figures import Figure
from bertft.results import Row
from bertft.run_folder import Stage


def stages(lab: Lab) -> list[Stage]:
    return lab.study_stages("models")


def figures(rows: Sequence[Row], lab: Lab) -> list[Figure]:
    return []
