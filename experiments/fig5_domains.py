"""Figure 5: similarity to the base by domain of the text."""

from __future__ import annotations

from collections.abc import Sequence

from bertft.report.figure import Figure
from bertft.report.lines import Context
from bertft.runs.folder import Stage
from bertft.runs.pooling import own_text_differences
from bertft.runs.rows import Row
from bertft.study.analysis import named_figures
from bertft.study.repeat import Experiment, RepeatedStudy


class Domains(Experiment):
    """The study's own RSA, and its differences between texts."""

    name, order = "fig5_domains", 30

    def stages(self, study: RepeatedStudy) -> list[Stage]:
        """Return the study's stages for every seed."""
        return study.study_stages("rsa")

    def derived(self, rows: Sequence[Row], context: Context) -> list[Row]:
        """Return the similarity on a task's own text minus that on every other text."""
        return own_text_differences(rows, context.own_text)

    def figures(self, rows: Sequence[Row], context: Context) -> list[Figure]:
        """Return a panel for each task."""
        return named_figures(rows, context, "rsa_domains")


EXPERIMENT = Domains()
