"""Similarity to the base encoder along the training.

When does each layer change? Measured at 0, 1, 2, 5, ... % of the steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from bertft.models.encoder import Encoder
from bertft.models.finetuning.config import snapshot_folder
from bertft.models.finetuning.run import finetune
from bertft.report.figure import Figure
from bertft.report.lines import Context, lines
from bertft.runs.folder import Stage
from bertft.runs.rows import Row
from bertft.similarity import compare_encoders
from bertft.study.analysis import layered_figures
from bertft.study.inputs import fitting
from bertft.study.repeat import Experiment, RepeatedStudy


class AlongTraining(Experiment):
    """Models trained once more, with snapshots of the encoder.

    Options ``along``: ``seeds``, ``percents``, ``text``, ``tokens`` and ``tasks``, by name the changes to the study's
    fine-tuning.
    """

    name, order = "along_training", 130

    def stages(self, study: RepeatedStudy) -> list[Stage]:
        """Return a stage for every seed and task."""
        options = study.options("along", "seeds", "percents", "text", "tokens", "tasks")
        return [
            study.stage(
                f"along/seed{seed}/{task}",
                seed,
                {"along": options, "task": task},
                partial(self.work, study, seed, task),
            )
            for seed in options["seeds"]
            for task in options["tasks"]
        ]

    def work(self, study: RepeatedStudy, seed: int, task: str) -> list[Row]:
        """Return RSA to the base; a row's ``model`` is the share of the steps, its ``data`` the task."""
        options = study.options("along")
        percents, text = tuple(options["percents"]), options["text"]
        out = study.out / "along" / f"seed{seed}" / task
        config = study.driver(seed, task, out, snapshots=percents, **options["tasks"][task])
        finetune(config, progress=study.progress)
        base = study.encoder(seed, "base")
        tuned = {f"{p} %": Encoder.from_pretrained(str(snapshot_folder(config, p))) for p in percents}
        texts = fitting(base, study.inputs(seed).stimuli(text))
        rows = compare_encoders(
            base, tuned, texts, tokens=options["tokens"], seed=seed, draw=study.draw, data=text, progress=study.progress
        )
        return [
            Row(row.model, "along", task, row.layer, row.measure, row.value, row.low, row.high, row.n, seed)
            for row in rows
            if row.measure == "rsa_cosine_pearson"
        ]

    def figures(self, rows: Sequence[Row], context: Context) -> list[Figure]:
        """Return a panel for each task."""
        text = context.config["options"]["along"]["text"]
        return layered_figures(
            "along_training",
            "When each layer leaves the base encoder",
            f"Similarity to the base on {text} after shares of the training steps.",
            lines(rows, "along"),
            panel=lambda line: line.data,
            ylabel=lambda line: "RSA (cosine, Pearson)",
            share_y=True,
        )


EXPERIMENT = AlongTraining()
