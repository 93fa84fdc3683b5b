"""Directions of the change of every tuned encoder, with their words and vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bertft.models.logit_lens import logit_lens
from bertft.report.figure import Figure, HeatMap
from bertft.report.lines import Context, lines
from bertft.runs.folder import Stage
from bertft.runs.rows import Row
from bertft.similarity.direction_words import FILES, write_directions
from bertft.similarity.directions import TASK, directions_of_change, rows_of_directions
from bertft.study.analysis import Analysis, layered_figures
from bertft.study.config import settings_of
from bertft.study.inputs import Inputs, fitting
from bertft.study.timing import StageCost, corpus_cost

SHOWN = ("direction_share_1", "direction_rank", "mean_shift_share")  # in the figure
SETTINGS = ("tokens", "unit", "draw")  # of ``rsa`` that the rows depend on


class Directions(Analysis[Inputs]):
    """Rows ``mean_shift_share``, ``direction_rank`` and ``direction_share_<j>``; and the files of `write_directions`.

    Settings: ``directions``, with the tokens of ``rsa``; the text is `StudyConfig.main_text`.
    """

    name, order, tasks = "directions", 80, (TASK,)

    def stages(self, inputs: Inputs) -> list[Stage]:
        """Return the stage ``directions/<text>``."""
        config = inputs.config
        if not config.directions:
            return []
        text, rsa = config.main_text, settings_of(inputs.rsa)
        read = {"rsa": {key: rsa[key] for key in SETTINGS if key in rsa}, "text": inputs.source_of(text)}
        depends = {"directions": config.directions, **read, "models": inputs.tuned, **inputs.seeds}
        return [Stage(f"directions/{text}", depends, lambda: self.work(inputs), product=FILES[0])]

    def check(self, inputs: Inputs) -> None:
        """Read the text."""
        inputs.stimuli(inputs.config.main_text)

    def work(self, inputs: Inputs) -> list[Row]:
        """Return the rows, and write the files."""
        config, base = inputs.config, inputs.encoder("base")
        texts = fitting(base, inputs.stimuli(config.main_text))
        found = directions_of_change(
            base, inputs.encoders(), texts, k=config.directions, draw=inputs.draw(), progress=inputs.progress
        )
        write_directions(found, inputs.out, config.main_text, logit_lens(base))
        return rows_of_directions(found, config.main_text, config.seed)

    def cost(self, inputs: Inputs, stages: Sequence[Stage], held: int) -> Iterator[StageCost]:
        """Yield the cost of one pass of every encoder."""
        base, tuned = inputs.encoder("base"), len(inputs.config.tasks)
        texts = fitting(base, inputs.stimuli(inputs.config.main_text))
        sums = tuned * base.num_layers * base.dim**2 * 8
        for stage in stages:
            yield corpus_cost(stage.name, base, texts, inputs.draw(), passes=tuned + 1, held=held, sums=sums)

    def figures(self, rows: Sequence[Row], context: Context) -> Sequence[Figure | HeatMap]:
        """Return the first direction, the effective rank and the mean shift by layer."""
        return layered_figures(
            "directions",
            "How many directions the change has",
            "Principal components of tuned minus base. Effective rank: participation ratio of their variances; "
            "first direction: its share of the variance; mean shift: the share of the mean squared change that all "
            "tokens have in common.",
            [line for line in lines(rows, TASK) if line.measure in SHOWN],
            panel=lambda line: line.name.title,
            ylabel=lambda line: line.name.axis,
        )
