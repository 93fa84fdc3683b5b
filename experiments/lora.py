"""Full fine-tuning against LoRA on one task: do adapters change the same layers and the same words?"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from bertft.models.encoder import Encoder
from bertft.models.finetuning.run import finetune, read_card
from bertft.report.figures.catalogue import Figure
from bertft.report.figures.layered import layered
from bertft.report.lines import lines
from bertft.runs.folder import Stage
from bertft.runs.rows import Row
from bertft.similarity import compare_encoders, words_that_moved
from bertft.similarity.words.agreement import words_agree
from bertft.study.inputs import fitting
from bertft.study.repeat import Lab

ALIKE = "local_rsa_correlation"
PANELS = {False: "to the base encoder", True: "one to the other"}


def stages(lab: Lab) -> list[Stage]:
    """Options ``lora``: ``seeds``, the ``task``, ``changes`` to its fine-tuning (``lora``: the rank, a higher learning
    rate), the study's ``text`` with how many ``tokens``, and how many ``sentences`` of the probes' treebank."""
    options = lab.options("lora", "seeds", "task", "changes", "text", "tokens", "sentences")
    found = lab.study_stages("models", seeds=options["seeds"])
    for seed in options["seeds"]:
        for name, work in (("model", train), ("similarity", compare), ("words", words)):
            stage = lab.stage(f"lora/seed{seed}/{name}", seed, {"lora": options}, lambda s=seed, w=work: w(lab, s))
            found.append(stage)
    return found


def folder(lab: Lab, seed: int) -> Path:
    return lab.out / "lora" / f"seed{seed}" / "encoder"


def train(lab: Lab, seed: int) -> list[Row]:
    options = lab.options("lora")
    config = lab.driver(seed, options["task"], folder(lab, seed), **options["changes"])
    result = finetune(config, progress=lab.progress)
    rows = [dataclasses.replace(row, model="LoRA", task="score") for row in result.rows]
    full = lab.out / f"seed{seed}" / "models" / options["task"]
    for name, card in (("LoRA", read_card(result.folder)), ("full", read_card(full))):
        if count := card.get("trained_parameters"):
            rows.append(Row(name, "score", rows[0].data, None, "trained_parameters", float(count), seed=seed))
    return rows


def tuned(lab: Lab, seed: int) -> dict[str, Encoder]:
    return {
        "full": lab.encoder(seed, lab.options("lora")["task"]),
        "LoRA": Encoder.from_pretrained(str(folder(lab, seed))),
    }


def compare(lab: Lab, seed: int) -> list[Row]:
    """Each to the base, and ``LoRA and full``: one to the other."""
    options, base, both = lab.options("lora"), lab.encoder(seed, "base"), tuned(lab, seed)
    texts = fitting(base, lab.materials(seed).stimuli(options["text"]))
    settings = {"tokens": options["tokens"], "seed": seed, "data": options["text"]}
    rows = compare_encoders(base, both, texts, **settings, progress=lab.progress)
    rows += compare_encoders(both["full"], {"LoRA and full": both["LoRA"]}, texts, **settings)
    return [row for row in rows if row.measure == "rsa_cosine_pearson"]


def words(lab: Lab, seed: int) -> list[Row]:
    """Mean local RSA of the words of each part of speech, ``local_rsa_<UPOS>``; ``local_rsa_correlation`` over words of
    the two encoders', whether it is the same words that moved."""
    sentences = lab.materials(seed).trees("dev")[: lab.options("lora")["sentences"]]
    base, both = lab.encoder(seed, "base"), tuned(lab, seed)
    moved = words_that_moved(base, both, sentences, ("upos",), progress=lab.progress)
    rows = [
        Row(name, "words", "trees", m.layer, f"local_rsa_{m.label}", m.value, m.low, m.high, m.n, seed)
        for name, found in moved.items()
        for m in found.by["upos"]
    ]
    alike = words_agree(base, both["full"], both["LoRA"], sentences, seed=seed, progress=lab.progress)
    rows += [Row("LoRA and full", "words", "trees", a.layer, ALIKE, a.value, a.low, a.high, a.n, seed) for a in alike]
    return rows


def figures(rows: Sequence[Row], lab: Lab) -> list[Figure]:
    text = lab.options("lora")["text"]
    alike = [line for line in lines(rows, "words") if line.measure == ALIKE]
    figure = layered(
        "lora",
        f"Full fine-tuning and LoRA on {lab.options('lora')['task']}",
        f"Similarity of each layer on {text}; over the words of a treebank, the correlation of how far each one moved.",
        [*lines(rows, "rsa"), *alike],
        panel=lambda line: "the same words?" if line.measure == ALIKE else PANELS["and" in line.model],
        ylabel=lambda line: "correlation of local RSA" if line.measure == ALIKE else "RSA (cosine, Pearson)",
    )
    return [figure] if figure else []
