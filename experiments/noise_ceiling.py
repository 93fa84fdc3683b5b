"""How alike two runs are that differ in their seed alone, and two tasks: what a similarity to the base is to be read
against."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from bertft.report.figures.catalogue import Figure
from bertft.report.figures.layered import layered
from bertft.report.lines import lines
from bertft.runs.folder import Stage
from bertft.runs.rows import Row
from bertft.similarity import compare_encoders
from bertft.study.inputs import fitting
from bertft.study.repeat import Lab


def stages(lab: Lab) -> list[Stage]:
    """Options ``text``: the study's text and how many ``tokens``."""
    options = lab.options("text", "text", "tokens")
    found = lab.study_stages("models")
    for i, seed in enumerate(lab.seeds):
        # each seed with the next one, the last with the first where there are more than two
        other = lab.seeds[(i + 1) % len(lab.seeds)] if i + 1 < len(lab.seeds) or len(lab.seeds) > 2 else None
        settings = {"text": options, "other": other}
        work = lambda seed=seed, other=other: measure(lab, seed, other, **options)
        found.append(lab.stage(f"ceiling/seed{seed}", seed, settings, work))
    return found


def measure(lab: Lab, seed: int, other: int | None, text: str, tokens: int) -> list[Row]:
    """``model`` says what is compared: two seeds of a task, two tasks of a seed, a task and the base."""
    tasks = list(lab.setting.study.tasks)
    pairs = {f"{a} and {b}": (lab.encoder(seed, a), lab.encoder(seed, b)) for a, b in combinations(tasks, 2)}
    pairs |= {f"{task} and base": (lab.encoder(seed, "base"), lab.encoder(seed, task)) for task in tasks}
    if other is not None:
        pairs |= {f"{task}, two seeds": (lab.encoder(seed, task), lab.encoder(other, task)) for task in tasks}
    texts = fitting(lab.encoder(seed, "base"), lab.materials(seed).stimuli(text))
    rows = []
    for name, (first, second) in pairs.items():
        found = compare_encoders(first, {name: second}, texts, tokens=tokens, seed=seed, data=text)
        rows += [row for row in found if row.measure == "rsa_cosine_pearson"]
    return rows


def figures(rows: Sequence[Row], lab: Lab) -> list[Figure]:
    kinds = {"two seeds": "one task, two seeds", "base": "a task and the base"}
    figure = layered(
        "noise_ceiling",
        "Similarity between seeds, between tasks, and to the base",
        f"RSA of the same layer of two encoders on {rows[0].data}.",
        lines(rows, "rsa"),
        panel=lambda line: next((title for end, title in kinds.items() if line.model.endswith(end)), "two tasks"),
        ylabel=lambda line: "RSA (cosine, Pearson)",
        label=lambda line: line.model.removesuffix(" and base").removesuffix(", two seeds"),
        share_y=True,
    )
    return [figure] if figure else []
