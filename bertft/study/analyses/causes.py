"""Blocks that change the top layer when they are exchanged alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bertft.report.figure import Figure, HeatMap
from bertft.report.lines import Context, lines
from bertft.runs.folder import Stage
from bertft.runs.rows import Row
from bertft.similarity.causes import TASK, block_causes, rows_of_causes
from bertft.study.analysis import Analysis, layered_figures
from bertft.study.config import settings_of
from bertft.study.inputs import Inputs, fitting
from bertft.study.timing import StageCost, corpus_cost

SETTINGS = ("metric", "unit", "draw")  # of ``rsa`` that the rows depend on


class Causes(Analysis[Inputs]):
    """Rows ``swap_in_<measure>`` and ``swap_out_<measure>`` of every tuned encoder, by block.

    Settings: ``causes``, the number of tokens, with the metric of ``rsa``; the text is `StudyConfig.main_text`.
    """

    name, order, tasks = "causes", 90, (TASK,)

    def stages(self, inputs: Inputs) -> list[Stage]:
        """Return the stage ``causes/<text>``."""
        config = inputs.config
        if not config.causes:
            return []
        text, rsa = config.main_text, settings_of(inputs.rsa)
        read = {"rsa": {key: rsa[key] for key in SETTINGS if key in rsa}, "text": inputs.source_of(text)}
        depends = {"causes": config.causes, **read, "models": inputs.tuned, **inputs.seeds}
        return [Stage(f"causes/{text}", depends, lambda: self.work(inputs))]

    def check(self, inputs: Inputs) -> None:
        """Read the text."""
        inputs.stimuli(inputs.config.main_text)

    def work(self, inputs: Inputs) -> list[Row]:
        """Return the rows."""
        config, base = inputs.config, inputs.encoder("base")
        texts = fitting(base, inputs.stimuli(config.main_text))
        found = block_causes(
            base,
            inputs.encoders(),
            texts,
            metric=inputs.rsa.metric,
            draw=inputs.draw(config.causes),
            progress=inputs.progress,
        )
        return rows_of_causes(found, config.main_text, config.seed)

    def cost(self, inputs: Inputs, stages: Sequence[Stage], held: int) -> Iterator[StageCost]:
        """Yield the cost of two passes of half height for every part, and of the whole encoders."""
        base, tuned = inputs.encoder("base"), len(inputs.config.tasks)
        texts = fitting(base, inputs.stimuli(inputs.config.main_text))
        hybrids = 2 * base.num_layers + 2
        sums = 2 * hybrids * base.dim**2 * 8 * 2
        for stage in stages:
            draw, passes = inputs.draw(inputs.config.causes), tuned * (base.num_layers + 2)
            yield corpus_cost(stage.name, base, texts, draw, passes=passes, held=held, sums=sums)

    def figures(self, rows: Sequence[Row], context: Context) -> Sequence[Figure | HeatMap]:
        """Return the similarity of the top layer to the base's by exchanged block."""
        return layered_figures(
            "causes",
            "Which block changed the top layer",
            "Similarity of the top layer with that of the base, with one block exchanged. A low value of one tuned "
            "block in the base: this block alone changes the top. A high value of one base block in the tuned encoder: "
            "the change needs this block.",
            [line for line in lines(rows, TASK) if not line.name.derived],
            panel=lambda line: line.name.title,
            ylabel=lambda line: line.name.axis,
            xlabel="exchanged block (0 = embeddings)",
        )
