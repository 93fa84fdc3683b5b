"""Figure 1: structural probes of every layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from bertft.report.figure import Figure
from bertft.report.lines import Context, lines
from bertft.runs.folder import Stage
from bertft.runs.rows import Row
from bertft.study.analysis import layered_figures, named_figures
from bertft.study.repeat import Experiment, RepeatedStudy


class StructuralProbes(Experiment):
    """The study's own structural probes."""

    name, order = "fig1_structural_probes", 100

    def stages(self, study: RepeatedStudy) -> list[Stage]:
        """Return the study's stages for every seed."""
        return study.study_stages("probes", "differences")

    def figures(self, rows: Sequence[Row], context: Context) -> list[Figure]:
        """Return the scores by layer, and the differences to the base."""
        shown = [
            line for line in lines(rows, "structural") if line.name.derived == "difference" and not line.name.probe
        ]
        found = layered_figures(
            "difference",
            "What structural probes read from a tuned encoder, less what they read from the base",
            "Paired by sentence.",
            shown,
            panel=lambda line: line.name.title,
            ylabel=lambda line: f"{line.name.base}, tuned − base",
        )
        differences = [dataclasses.replace(figure, columns=2) for figure in found]
        return named_figures(rows, context, "probes_by_layer") + differences


EXPERIMENT = StructuralProbes()
