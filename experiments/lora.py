"""Full fine-tuning and LoRA, compared layer by layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial

from bertft.models.encoder import Encoder
from bertft.models.finetuning.card import read_card
from bertft.models.finetuning.run import finetune
from bertft.report.figure import Figure
from bertft.report.lines import Context, lines
from bertft.runs.folder import Stage
from bertft.runs.rows import Row
from bertft.runs.vocabulary import MeasureName
from bertft.similarity import compare_encoders, words_that_moved
from bertft.similarity.words.agreement import words_agree
from bertft.study.analysis import layered_figures
from bertft.study.inputs import fitting
from bertft.study.repeat import Experiment, RepeatedStudy

BOTH = "LoRA and full"  # the pair of the two encoders
ALIKE, PANELS = "local_rsa_correlation", {False: "to the base encoder", True: "one to the other"}


class Lora(Experiment):
    """A LoRA model of one task compared with the study's own model.

    Options ``lora``: ``seeds``, the ``task``, ``changes`` to its fine-tuning (``lora``: the rank, a higher learning
    rate), the study's ``text`` with the number of ``tokens``, and the number of ``sentences`` of the probes' treebank.
    """

    name, order = "lora", 80

    def stages(self, study: RepeatedStudy) -> list[Stage]:
        """Return the stages ``model``, ``similarity`` and ``words`` for every seed, after the study's models."""
        settings = {"lora": study.options("lora", "seeds", "task", "changes", "text", "tokens", "sentences")}
        found = study.study_stages("models", seeds=settings["lora"]["seeds"])
        for seed in settings["lora"]["seeds"]:
            for name, work in (("model", train), ("similarity", compare), ("words", words)):
                found.append(study.stage(f"lora/seed{seed}/{name}", seed, settings, partial(work, study, seed)))
        return found

    def figures(self, rows: Sequence[Row], context: Context) -> list[Figure]:
        """Return similarity to the base, similarity to each other, and agreement on the words that moved."""
        options, words = context.config["options"]["lora"], lines(rows, "words")
        return layered_figures(
            "lora",
            f"Full fine-tuning and LoRA on {options['task']}",
            f"Similarity on {options['text']}; over a treebank's words, the correlation of how far each moved.",
            [*lines(rows, "rsa"), *(line for line in words if line.measure == ALIKE)],
            panel=lambda line: "the same words?" if line.measure == ALIKE else PANELS[line.model == BOTH],
            ylabel=lambda line: "correlation of local RSA" if line.measure == ALIKE else "RSA (cosine, Pearson)",
        )


def train(study: RepeatedStudy, seed: int) -> list[Row]:
    """Train the LoRA model; return its scores, and the trained parameters of both."""
    options, out = study.options("lora"), study.out / "lora" / f"seed{seed}" / "encoder"
    result = finetune(study.driver(seed, options["task"], out, **options["changes"]), progress=study.progress)
    rows = [dataclasses.replace(row, model="LoRA", task="score") for row in result.rows]
    for name, model in (("LoRA", out), ("full", study.model(seed, options["task"]))):
        if count := read_card(model).get("trained_parameters"):
            rows.append(Row(name, "score", rows[0].data, None, "trained_parameters", float(count), seed=seed))
    return rows


def tuned(study: RepeatedStudy, seed: int) -> dict[str, Encoder]:
    """Return both tuned encoders."""
    full, lora = study.encoder(seed, study.options("lora")["task"]), study.out / "lora" / f"seed{seed}" / "encoder"
    return {"full": full, "LoRA": Encoder.from_pretrained(str(lora))}


def compare(study: RepeatedStudy, seed: int) -> list[Row]:
    """Return RSA of each encoder with the base and, as ``LoRA and full``, with the other."""
    options, base, both = study.options("lora"), study.encoder(seed, "base"), tuned(study, seed)
    texts = fitting(base, study.inputs(seed).stimuli(options["text"]))
    settings = {"tokens": options["tokens"], "seed": seed, "draw": study.draw, "data": options["text"]}
    to_base = compare_encoders(base, both, texts, **settings, progress=study.progress)
    to_other = compare_encoders(both["full"], {BOTH: both["LoRA"]}, texts, **settings)
    return [row for row in [*to_base, *to_other] if row.measure == "rsa_cosine_pearson"]


def words(study: RepeatedStudy, seed: int) -> list[Row]:
    """Return mean local RSA by part of speech, ``local_rsa_<UPOS>``, and its correlation between the two encoders."""
    sentences = study.inputs(seed).trees("dev")[: study.options("lora")["sentences"]]
    base, both = study.encoder(seed, "base"), tuned(study, seed)
    moved = words_that_moved(base, both, sentences, ("upos",), progress=study.progress)
    rows = []
    for name, found in moved.items():
        for m in found.by["upos"]:
            measure = str(MeasureName("local_rsa", label=m.label))
            rows.append(Row(name, "words", "trees", m.layer, measure, m.value, m.low, m.high, m.n, seed))
    for a in words_agree(base, both["full"], both["LoRA"], sentences, seed=seed, progress=study.progress):
        rows.append(Row(BOTH, "words", "trees", a.layer, ALIKE, a.value, a.low, a.high, a.n, seed))
    return rows


EXPERIMENT = Lora()
