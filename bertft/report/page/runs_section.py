"""Page section: scores and settings of several runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bertft.report.page.figure_section import Table


@dataclass(frozen=True)
class RunsSection:
    """Content of the template ``sections/runs.html.j2``: a column for each of ``runs``."""

    runs: Sequence[str]
    scores: Table
    settings: Table
