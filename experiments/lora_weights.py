"""Intruder dimensions of LoRA and of full fine-tuning, beside their representations.

LoRA puts singular vectors into the weights that the base has not (Shuttleworth et al. 2024). Do the representations
differ as much as the weights?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from bertft.models.weight_change import weight_changes
from bertft.models.weight_distance import weight_distance
from bertft.report.figure import Figure
from bertft.report.lines import Context, lines, number
from bertft.runs.folder import Stage
from bertft.runs.rows import Row
from bertft.runs.vocabulary import MeasureName
from bertft.study.analyses.weights import INTRUDERS, MEASURE, RANK, SHARE, spectra_rows
from bertft.study.analysis import layered_figures
from bertft.study.repeat import Experiment, RepeatedStudy
from experiments import lora

NAME = "lora_weights"
RSA, SIMILAR = MeasureName.rsa("cosine", "pearson"), "representations, one to the other"
COLUMNS = {"intruders": INTRUDERS, "effective rank": RANK, "first share": SHARE, "relative distance": MEASURE}


class LoraWeights(Experiment):
    """Change of the weights of the two encoders of `experiments.lora`, with its options."""

    name, order = NAME, 85

    def stages(self, study: RepeatedStudy) -> list[Stage]:
        """Return the stages ``lora/seed<seed>/weights``, after the models and their similarity."""
        found = [stage for stage in lora.EXPERIMENT.stages(study) if not stage.name.endswith("/words")]
        options = study.options("lora")
        settings = {"lora": {key: options[key] for key in ("task", "changes")}}
        for seed in options["seeds"]:
            found.append(study.stage(f"lora/seed{seed}/weights", seed, settings, partial(self.work, study, seed)))
        return found

    def work(self, study: RepeatedStudy, seed: int) -> list[Row]:
        """Return distance, rank, first share and intruders of the embeddings and of every block."""
        base, both = study.encoder(seed, "base").model, lora.tuned(study, seed)
        rows = spectra_rows({name: list(weight_changes(base, own.model)) for name, own in both.items()}, seed)
        for name, own in both.items():
            for block, value in enumerate(weight_distance(base, own.model)):
                rows.append(Row(name, "weights", "weights", block, MEASURE, value, seed=seed))
        return rows

    def figures(self, rows: Sequence[Row], context: Context) -> list[Figure]:
        """Return intruders and effective rank by block, and the similarity of the two encoders."""
        changed = [line for line in lines(rows, "weights") if line.measure in (INTRUDERS, RANK)]
        similar = [line for line in lines(rows, "rsa") if line.model == lora.BOTH]
        return layered_figures(
            NAME,
            f"Full fine-tuning and LoRA on {context.config['options']['lora']['task']}: weights and representations",
            "Sum of the intruder dimensions and mean effective rank of W' - W over the matrices of a block; similarity "
            "of the two encoders.",
            [*changed, *similar],
            panel=lambda line: SIMILAR if line.model == lora.BOTH else line.name.title,
            ylabel=lambda line: "RSA (cosine, Pearson)" if line.model == lora.BOTH else line.name.axis,
            xlabel="block (0 = embeddings)",
        )

    def tables(self, rows: Sequence[Row], context: Context) -> Mapping[str, str]:
        """Return all measures by block, full and LoRA, and the similarity of the layer above the block."""
        found = {(row.measure, row.model, row.layer): row for row in rows}
        head = [f"{name}, {model}" for name in COLUMNS for model in ("full", "LoRA")]
        table = [["block", *head, "RSA of both"], ["---"] * (len(head) + 2)]
        for block in sorted({row.layer for row in rows if row.task == "weights" and row.layer is not None}):
            cells = [str(block)]
            for measure in COLUMNS.values():
                cells += [shown(found.get((measure, model, block))) for model in ("full", "LoRA")]
            table.append([*cells, shown(found.get((str(RSA), lora.BOTH, block)))])
        return {NAME: "".join(f"| {' | '.join(cells)} |\n" for cells in table)}


def shown(row: Row | None) -> str:
    """Return the value and the interval of a row; nothing without one, as of an unchanged matrix."""
    if row is None:
        return ""
    digits = 0 if row.measure == INTRUDERS else 1 if row.measure == RANK else 3
    return number(row.value, row.low, row.high, digits)


EXPERIMENT = LoraWeights()
