"""Change of the weights, block by block: distance, rank and intruder dimensions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

from bertft.models.weight_change import FILE, MatrixChange, by_block, matrix_change, weight_changes, write_matrices
from bertft.models.weight_distance import weight_distance
from bertft.report.figure import Figure, HeatMap
from bertft.report.lines import Context, lines
from bertft.runs.folder import Stage
from bertft.runs.rows import Row
from bertft.study.analysis import Analysis, layered_figures
from bertft.study.inputs import Inputs
from bertft.study.timing import StageCost, placed, seconds_of, weights_of

MEASURE = "relative_weight_distance"
RANK, SHARE, INTRUDERS = "weight_change_rank", "weight_change_share_1", "intruder_dimensions"

SPECTRA = "weights/spectra"


class Weights(Analysis[Inputs]):
    """Rows ``relative_weight_distance`` for each tuned encoder, the embeddings (layer 0) and every block.

    Settings: ``weights: true``. ``spectra: true`` adds the rows ``weight_change_rank``, ``weight_change_share_1`` and
    ``intruder_dimensions`` and the table ``matrices.csv`` (`bertft.models.weight_change`).
    """

    name, order, tasks = "weights", 70, ("weights",)

    def stages(self, inputs: Inputs) -> list[Stage]:
        """Return the stages ``weights/blocks`` and ``weights/spectra``."""
        found, depends = [], {"models": inputs.tuned, **inputs.seeds}
        if inputs.config.weights:
            found.append(Stage("weights/blocks", {"measure": MEASURE, **depends}, lambda: self.work(inputs)))
        if inputs.config.spectra:
            measures = {"measures": [RANK, SHARE, INTRUDERS], **depends}
            found.append(Stage(SPECTRA, measures, lambda: self.spectra(inputs), product=FILE))
        return found

    def work(self, inputs: Inputs) -> list[Row]:
        """Return the distances |W' - W| / |W|, in Frobenius norms over all parameters of a block."""
        base, seed = inputs.encoder("base").model, inputs.config.seed
        return [
            Row(name, "weights", "weights", layer, MEASURE, value, seed=seed)
            for name, encoder in inputs.encoders().items()
            for layer, value in enumerate(weight_distance(base, encoder.model))
        ]

    def spectra(self, inputs: Inputs) -> list[Row]:
        """Return the rows of all matrices of a block together, and write the table of the matrices."""
        base, found = inputs.encoder("base").model, {}
        with inputs.progress.step("spectra of the change of weights", total=len(inputs.config.tasks)) as step:
            for name, encoder in inputs.encoders().items():
                found[name] = list(weight_changes(base, encoder.model))
                step.advance()
        write_matrices(found, inputs.out)
        return spectra_rows(found, inputs.config.seed)

    def cost(self, inputs: Inputs, stages: Sequence[Stage], held: int) -> Iterator[StageCost]:
        """Yield the cost of comparing every tuned encoder with the base; one comparison is timed."""
        base, tuned = inputs.encoder("base").model, len(inputs.config.tasks)
        memory = placed(held, (tuned + 1) * weights_of(base))
        for stage in stages:
            one = _spectra_seconds(base) if stage.name == SPECTRA else seconds_of(lambda: weight_distance(base, base))
            yield StageCost(stage.name, f"{tuned + 1} encoders", tuned * one, 0, 0, *memory)

    def figures(self, rows: Sequence[Row], context: Context) -> Sequence[Figure | HeatMap]:
        """Return the distances and the spectra by block, a line for each tuned encoder."""
        found = lines(rows, "weights")
        distances = layered_figures(
            "weight_distance",
            "How far the weights of each block moved",
            "Frobenius norm of the change over that of the weights, all parameters of a block together.",
            [line for line in found if line.measure == MEASURE],
            panel=lambda line: "weights",
            ylabel=lambda line: "|W' − W| / |W|",
            xlabel="block (0 = embeddings)",
            cluster="seeds",
        )
        spectra = layered_figures(
            "weight_spectra",
            "What kind of change the weights of each block had",
            "Means over the matrices of a block of the effective rank of W' - W and of the share of its first singular "
            "value; sum of the intruder dimensions.",
            [line for line in found if line.measure in (RANK, SHARE, INTRUDERS)],
            panel=lambda line: line.name.title,
            ylabel=lambda line: line.name.axis,
            xlabel="block (0 = embeddings)",
            cluster="seeds",
        )
        return [*distances, *spectra]


def spectra_rows(found: Mapping[str, Sequence[MatrixChange]], seed: int) -> list[Row]:
    """Return the rows of all matrices of a block together, of each encoder."""
    rows = []
    for name, changes in found.items():
        for block in by_block(changes):
            values = {RANK: block.rank, SHARE: block.share, INTRUDERS: float(block.intruders)}
            rows += [
                Row(name, "weights", "weights", block.layer, measure, value, n=block.matrices, seed=seed)
                for measure, value in values.items()
                if value is not None
            ]
    return rows


def _spectra_seconds(model: nn.Module) -> float:
    """Return the seconds of the spectra of all matrices of a model, timed on one of each shape."""
    counts = Counter(weight.shape for weight in model.parameters() if weight.ndim == 2)
    seconds = 0.0
    for weight in model.parameters():
        if weight.ndim == 2 and (count := counts.pop(weight.shape, 0)):
            w = weight.detach().double()
            v = w + 0.01 * torch.randn(w.shape, generator=torch.Generator().manual_seed(0)).to(w)
            seconds += count * seconds_of(lambda w=w, v=v: matrix_change(w, v))  # type: ignore[misc]
    return seconds
