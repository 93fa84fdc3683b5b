"""Distance of weights to the base, block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bertft.models.weight_distance import weight_distance
from bertft.report.figure import Figure, HeatMap
from bertft.report.lines import Context, lines
from bertft.runs.folder import Stage
from bertft.runs.rows import Row
from bertft.study.analysis import Analysis, layered_figures
from bertft.study.inputs import Inputs
from bertft.study.timing import StageCost, placed, seconds_of, weights_of

MEASURE = "relative_weight_distance"


class Weights(Analysis[Inputs]):
    """Rows ``relative_weight_distance`` for each tuned encoder, the embeddings (layer 0) and every block.

    Settings: ``weights: true``.
    """

    name, order, tasks = "weights", 70, ("weights",)

    def stages(self, inputs: Inputs) -> list[Stage]:
        """Return the stage ``weights/blocks``."""
        if not inputs.config.weights:
            return []
        depends = {"measure": MEASURE, "models": inputs.tuned, **inputs.seeds}
        return [Stage("weights/blocks", depends, lambda: self.work(inputs))]

    def work(self, inputs: Inputs) -> list[Row]:
        """Return the distances |W' - W| / |W|, in Frobenius norms over all parameters of a block."""
        base, seed = inputs.encoder("base").model, inputs.config.seed
        return [
            Row(name, "weights", "weights", layer, MEASURE, value, seed=seed)
            for name, encoder in inputs.encoders().items()
            for layer, value in enumerate(weight_distance(base, encoder.model))
        ]

    def cost(self, inputs: Inputs, stages: Sequence[Stage], held: int) -> Iterator[StageCost]:
        """Yield the cost of comparing every tuned encoder with the base; one comparison is timed."""
        base, tuned = inputs.encoder("base").model, len(inputs.config.tasks)
        for stage in stages:
            seconds = tuned * seconds_of(lambda: weight_distance(base, base))
            memory = placed(held, (tuned + 1) * weights_of(base))
            yield StageCost(stage.name, f"{tuned + 1} encoders", seconds, 0, 0, *memory)

    def figures(self, rows: Sequence[Row], context: Context) -> Sequence[Figure | HeatMap]:
        """Return the distances by block, a line for each tuned encoder."""
        return layered_figures(
            "weight_distance",
            "How far the weights of each block moved",
            "Frobenius norm of the change over that of the weights, all parameters of a block together.",
            lines(rows, "weights"),
            panel=lambda line: "weights",
            ylabel=lambda line: "|W' − W| / |W|",
            xlabel="block (0 = embeddings)",
            cluster="seeds",
        )
