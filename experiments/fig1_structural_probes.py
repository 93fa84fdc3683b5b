"""Figure 1: structural probes of every layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from bertft.report.figures.catalogue import Figure
from bertft.report.figures.layered import layered
from bertft.report.figures.probes import MEASURES
from bertft.report.lines import Context, lines
from bertft.runs.folder import Stage
from bertft.runs.rows import Row
from bertft.study.analysis import named_figures
from bertft.study.repeat import Experiment, RepeatedStudy


class StructuralProbes(Experiment):
    """The study's own structural probes."""

    name, order = "fig1_structural_probes", 100

    def stages(self, study: RepeatedStudy) -> list[Stage]:
        """Return the study's stages for every seed."""
        return study.study_stages("probes", "differences")

    def figures(self, rows: Sequence[Row], context: Context) -> list[Figure]:
        """Return the scores by layer, and the differences to the base."""
        measures = {f"{measure}_difference": title for measure, (title, _) in MEASURES.items()}
        difference = layered(
            "difference",
            "What structural probes read from a tuned encoder, less what they read from the base",
            "Paired by sentence.",
            [line for line in lines(rows, "structural") if line.measure in measures],
            panel=lambda line: measures[line.measure],
            ylabel=lambda line: line.measure.removesuffix("_difference") + ", tuned − base",
        )
        found = [dataclasses.replace(difference, columns=2)] if difference else []
        return named_figures(rows, context, "probes_by_layer") + found


EXPERIMENT = StructuralProbes()
