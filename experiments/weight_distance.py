"""Distance of weights to the base, relative to their size."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from bertft.report.figure import Figure, HeatMap
from bertft.report.lines import Context
from bertft.runs.folder import Stage
from bertft.runs.rows import Row
from bertft.study.analyses.weights import MEASURE, Weights
from bertft.study.repeat import Experiment, RepeatedStudy


class WeightDistance(Experiment):
    """The study's analysis `Weights` for every seed, whether or not the study asks for it."""

    name, order = "weight_distance", 40

    def stages(self, study: RepeatedStudy) -> list[Stage]:
        """Return a stage for every seed, after the models."""
        own = study.stages_by_seed("weights", {"measure": MEASURE}, partial(self.work, study))
        return [*study.study_stages("models"), *own]

    def work(self, study: RepeatedStudy, seed: int) -> list[Row]:
        """Return the rows of one seed."""
        return Weights().work(study.inputs(seed))

    def figures(self, rows: Sequence[Row], context: Context) -> Sequence[Figure | HeatMap]:
        """Return the distances by block."""
        return Weights().figures(rows, context)


EXPERIMENT = WeightDistance()
