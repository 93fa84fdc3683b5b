"""Similarity of all pairs of layers, base and tuned.

Where did a layer's geometry go?
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial

from bertft.report.figure import HeatMap
from bertft.report.figures.layer_maps import layer_maps
from bertft.report.lines import Context
from bertft.runs.folder import Stage
from bertft.runs.rows import Row
from bertft.runs.vocabulary import MeasureName
from bertft.similarity import compare_encoders
from bertft.study.repeat import Experiment, RepeatedStudy

MEASURE = MeasureName.rsa("cosine", "pearson")


class LayerMaps(Experiment):
    """RSA of all pairs of layers, of every tuned encoder and of the base itself.

    Options ``text``: the study's ``text`` and the number of ``tokens``.
    """

    name, order = "rsa_heatmap", 60

    def stages(self, study: RepeatedStudy) -> list[Stage]:
        """Return a stage for every seed, after the models."""
        settings = {"text": study.options("text", "text", "tokens")}
        return [*study.study_stages("models"), *study.stages_by_seed("heatmap", settings, partial(self.work, study))]

    def work(self, study: RepeatedStudy, seed: int) -> list[Row]:
        """Return rows ``rsa_cosine_pearson_base<l>``: the row's layer of the encoder against layer l of the base."""
        options, inputs = study.options("text"), study.inputs(seed)
        rows = compare_encoders(
            inputs.encoder("base"),
            inputs.encoders(base=True),
            inputs.stimuli(options["text"]),
            tokens=options["tokens"],
            seed=seed,
            draw=study.draw,
            data=options["text"],
            all_layers=True,
            progress=study.progress,
        )
        names = {row: MeasureName.parse(row.measure) for row in rows}
        return [row for row, name in names.items() if name.base_layer is not None and name.base == MEASURE.base]

    def figures(self, rows: Sequence[Row], context: Context) -> list[HeatMap]:
        """Return a panel for each encoder, the base first."""
        return [
            dataclasses.replace(
                figure,
                name="rsa_heatmap",
                caption=f"{figure.caption} The first panel is the base encoder against itself.",
                columns=2,
            )
            for figure in layer_maps(rows)
        ]


EXPERIMENT = LayerMaps()
