"""Similarity of two seeds and of two tasks.

It is the scale on which to read a similarity to the base.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import combinations

from bertft.report.figure import Figure
from bertft.report.lines import Context, lines
from bertft.runs.folder import Stage
from bertft.runs.rows import Row
from bertft.similarity import compare_encoders
from bertft.study.analysis import layered_figures
from bertft.study.inputs import fitting
from bertft.study.repeat import Experiment, RepeatedStudy


class NoiseCeiling(Experiment):
    """RSA between encoders that differ in their seed, their task, or their fine-tuning.

    Options ``text``: the study's ``text`` and the number of ``tokens``.
    """

    name, order = "noise_ceiling", 70

    def stages(self, study: RepeatedStudy) -> list[Stage]:
        """Return a stage for every seed, after the models."""
        options, seeds = study.options("text", "text", "tokens"), study.seeds
        found = study.study_stages("models")
        for i, seed in enumerate(seeds):
            # each seed with the next one, the last with the first if there are more than two
            other = seeds[(i + 1) % len(seeds)] if i + 1 < len(seeds) or len(seeds) > 2 else None
            settings = {"text": options, "other": other}
            found.append(study.stage(f"ceiling/seed{seed}", seed, settings, partial(self.work, study, seed, other)))
        return found

    def work(self, study: RepeatedStudy, seed: int, other: int | None) -> list[Row]:
        """Return the rows of one seed; ``model`` names the pair of encoders."""
        options, tasks, own = study.options("text"), list(study.setting.study.tasks), partial(study.encoder, seed)
        pairs = {f"{a} and {b}": (own(a), own(b)) for a, b in combinations(tasks, 2)}
        pairs |= {f"{task} and base": (own("base"), own(task)) for task in tasks}
        if other is not None:
            pairs |= {f"{task}, two seeds": (own(task), study.encoder(other, task)) for task in tasks}
        texts = fitting(own("base"), study.inputs(seed).stimuli(options["text"]))
        rows = []
        for name, (first, second) in pairs.items():
            found = compare_encoders(
                first, {name: second}, texts, tokens=options["tokens"], seed=seed, draw=study.draw, data=options["text"]
            )
            rows += [row for row in found if row.measure == "rsa_cosine_pearson"]
        return rows

    def figures(self, rows: Sequence[Row], context: Context) -> list[Figure]:
        """Return a panel for each kind of pair."""
        tasks = list(context.config["tasks"])
        kinds = {f"{task} and base": ("a task and the base", task) for task in tasks}
        kinds |= {f"{task}, two seeds": ("one task, two seeds", task) for task in tasks}
        return layered_figures(
            "noise_ceiling",
            "Similarity between seeds, between tasks, and to the base",
            f"RSA of the same layer of two encoders on {rows[0].data}.",
            lines(rows, "rsa"),
            panel=lambda line: kinds.get(line.model, ("two tasks", ""))[0],
            ylabel=lambda line: "RSA (cosine, Pearson)",
            label=lambda line: kinds.get(line.model, ("", line.model))[1],
            share_y=True,
        )


EXPERIMENT = NoiseCeiling()
