"""When does each layer change? Similarity to the base encoder at 0, 1, 2, 5, ... % of the training steps."""

from __future__ import annotations

from collections.abc import Sequence

from bertft.models.encoder import Encoder
from bertft.models.finetuning.run import finetune, snapshot_folder
from bertft.report.figures.catalogue import Figure
from bertft.report.figures.layered import layered
from bertft.report.lines import lines
from bertft.runs.folder import Stage
from bertft.runs.rows import Row
from bertft.similarity import compare_encoders
from bertft.study.inputs import fitting
from bertft.study.repeat import Lab


def stages(lab: Lab) -> list[Stage]:
    """Options ``along``: ``seeds``, ``percents``, ``text``, ``tokens`` and ``tasks``, by name what differs from the
    study's fine-tuning: these models are trained anew, for the encoders on the way."""
    options = lab.options("along", "seeds", "percents", "text", "tokens", "tasks")
    return [
        lab.stage(
            f"along/seed{seed}/{task}", seed, {"along": options, "task": task}, lambda s=seed, t=task: follow(lab, s, t)
        )
        for seed in options["seeds"]
        for task in options["tasks"]
    ]


def follow(lab: Lab, seed: int, task: str) -> list[Row]:
    options = lab.options("along")
    percents = tuple(options["percents"])
    out = lab.out / "along" / f"seed{seed}" / task
    config = lab.driver(seed, task, out, snapshots=percents, **options["tasks"][task])
    finetune(config, progress=lab.progress)
    base = lab.encoder(seed, "base")
    tuned = {f"{p} %": Encoder.from_pretrained(str(snapshot_folder(config, p))) for p in percents}
    texts = fitting(base, lab.materials(seed).stimuli(options["text"]))
    rows = compare_encoders(
        base, tuned, texts, tokens=options["tokens"], seed=seed, data=options["text"], progress=lab.progress
    )
    # the rows' model is the share of the steps, their data the task: what a row's key needs
    return [
        Row(row.model, "along", task, row.layer, row.measure, row.value, row.low, row.high, row.n, seed)
        for row in rows
        if row.measure == "rsa_cosine_pearson"
    ]


def figures(rows: Sequence[Row], lab: Lab) -> list[Figure]:
    figure = layered(
        "along_training",
        "When each layer leaves the base encoder",
        f"Similarity to the base on {lab.options('along')['text']} after shares of the training steps.",
        lines(rows, "along"),
        panel=lambda line: line.data,
        ylabel=lambda line: "RSA (cosine, Pearson)",
        share_y=True,
    )
    return [figure] if figure else []
