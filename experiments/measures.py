"""CKA and Procrustes similarity beside RSA, of each layer to the base encoder: do the measures tell one story?"""

from __future__ import annotations

import random
from collections.abc import Sequence

from bertft.report.figures.catalogue import Figure
from bertft.report.figures.layered import layered
from bertft.report.lines import Line, lines
from bertft.runs.folder import Stage
from bertft.runs.rows import Row
from bertft.similarity import Plan, compare_stream
from bertft.study.repeat import Lab

TITLES = {"rsa_cosine_pearson": "RSA (cosine, Pearson)", "cka_debiased": "CKA (debiased)", "procrustes": "Procrustes"}


def stages(lab: Lab) -> list[Stage]:
    """Options ``text``: the study's text and how many ``tokens``."""
    options = lab.options("text", "text", "tokens")
    found = lab.study_stages("models")
    for seed in lab.seeds:
        work = lambda seed=seed: measure(lab, seed, **options)
        found.append(lab.stage(f"measures/seed{seed}", seed, {"text": options}, work))
    return found


def measure(lab: Lab, seed: int, text: str, tokens: int) -> list[Row]:
    examples = list(lab.materials(seed).stimuli(text))
    random.Random(seed).shuffle(examples)
    plan = Plan(measures=("rsa", "cka", "procrustes"), seed=seed)
    tuned = {name: lab.encoder(seed, name) for name in lab.setting.study.tasks}
    rows = compare_stream(
        lab.encoder(seed, "base"), tuned, examples, plan, tokens=tokens, data=text, progress=lab.progress
    )
    return [row for row in rows or [] if row.task != "difference"]


def figures(rows: Sequence[Row], lab: Lab) -> list[Figure]:
    shown: list[Line] = [line for task in ("rsa", "similarity") for line in lines(rows, task)]
    figure = layered(
        "measures",
        "Three measures of how far each layer moved from the base encoder",
        f"On {rows[0].data}. 1 = unchanged.",
        shown,
        panel=lambda line: TITLES[line.measure],
        ylabel=lambda line: "similarity to the base",
        share_y=True,
    )
    return [figure] if figure else []
