"""Directions, causes and spectra of the change.

In how many directions do the vectors move, which block moves the top layer, of what rank is the change of the weights?
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence

from bertft.report.figure import Figure, HeatMap
from bertft.report.lines import Context
from bertft.runs.folder import Stage
from bertft.runs.rows import Row
from bertft.study.analyses.causes import Causes
from bertft.study.analyses.directions import Directions
from bertft.study.analyses.weights import Weights
from bertft.study.inputs import Inputs
from bertft.study.repeat import Experiment, RepeatedStudy

PARTS = (Weights(), Directions(), Causes())


class KindOfChange(Experiment):
    """The study's analyses `Directions`, `Causes` and `Weights`, whether or not the study asks for them.

    Options ``kind_of_change``: ``seeds``, and a study's ``directions`` and ``causes``.
    """

    name, order = "kind_of_change", 45

    def stages(self, study: RepeatedStudy) -> list[Stage]:
        """Return the stages of all three for every seed, after the models."""
        seeds = study.options("kind_of_change", "seeds", "directions", "causes")["seeds"]
        found = study.study_stages("models", seeds=seeds)
        for seed in seeds:
            inputs = asking(study, seed)
            for stage in (stage for part in PARTS for stage in part.stages(inputs)):
                product = stage.product and f"seed{seed}/{stage.product}"
                found.append(dataclasses.replace(stage, name=f"seed{seed}/{stage.name}", product=product))
        return found

    def figures(self, rows: Sequence[Row], context: Context) -> list[Figure | HeatMap]:
        """Return the figures of all three."""
        return [figure for part in PARTS for figure in part.figures(rows, context)]


def asking(study: RepeatedStudy, seed: int) -> Inputs:
    """Return the inputs of one seed, with its encoders and corpora, of a study that asks for the three analyses."""
    options, inputs = study.options("kind_of_change"), copy.copy(study.inputs(seed))
    wanted = {"directions": options["directions"], "causes": options["causes"], "spectra": True}
    inputs.config = dataclasses.replace(inputs.config, weights=False, **wanted)
    return inputs


EXPERIMENT = KindOfChange()
