"""Figure 2: similarity to the base, on text of no task."""

from __future__ import annotations

from collections.abc import Sequence

from bertft.report.figure import Figure
from bertft.report.lines import Context
from bertft.runs.folder import Stage
from bertft.runs.rows import Row
from bertft.study.analysis import named_figures
from bertft.study.repeat import Experiment, RepeatedStudy


class SimilarityByLayer(Experiment):
    """The study's own RSA."""

    name, order = "fig2_rsa", 20

    def stages(self, study: RepeatedStudy) -> list[Stage]:
        """Return the study's stages for every seed."""
        return study.study_stages("rsa")

    def figures(self, rows: Sequence[Row], context: Context) -> list[Figure]:
        """Return RSA by layer."""
        return named_figures(rows, context, "rsa_by_layer")


EXPERIMENT = SimilarityByLayer()
