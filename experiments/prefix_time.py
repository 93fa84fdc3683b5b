"""What the kept prefix saves: one short frozen run for every k, with and without it, in seconds of processor time."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from functools import partial

from bertft.models.finetuning.run import FinetuneResult, finetune
from bertft.report.figures.catalogue import Figure
from bertft.report.figures.layered import layered
from bertft.report.lines import lines
from bertft.runs.folder import Stage
from bertft.runs.rows import Row
from bertft.study.analyses.ablation import depths
from bertft.study.repeat import Lab

LABELS = {
    "cpu_seconds": "every block run",
    "cpu_seconds_kept": "prefix kept",
    "cpu_seconds_filling": "filling it, once",
}


def stages(lab: Lab) -> list[Stage]:
    """Options ``prefix_time``: ``tasks``, by name what differs from the study's fine-tuning, of the first seed."""
    seed = lab.seeds[0]
    found = []
    for task, changes in lab.options("prefix_time", "tasks")["tasks"].items():
        for k in depths("freeze", lab.setting.study.model):
            if k >= 1:
                work = partial(measure, lab, seed, task, k)
                found.append(
                    lab.stage(f"prefix_time/{task}/k{k}", seed, {"task": task, "changes": changes, "k": k}, work)
                )
    return found


def measure(lab: Lab, seed: int, task: str, k: int) -> list[Row]:
    """User and system seconds of training with its evaluation and checkpoint; reading the corpus and loading the model,
    the same either way, are left out."""
    folder, changes = lab.out / "prefix_time" / task, lab.options("prefix_time")["tasks"][task]
    driver = partial(lab.driver, seed, task, freeze=k, **changes)

    def timed(**changes: object) -> tuple[Clock, FinetuneResult]:
        clock = Clock()
        result = finetune(driver(folder / "run", **changes), progress=clock)
        shutil.rmtree(folder / "run")
        return clock, result

    for rest in (*folder.glob("run"), *folder.glob(".run*")):  # of a measurement that was cut off
        shutil.rmtree(rest, ignore_errors=True)  # beside it lies its lock, a file
    for table in lab.prefix.rglob(f"layer{k}.npy"):
        table.unlink()
    timed(max_train=32, max_dev=2)  # what a process does at its first run alone
    kept, with_it = timed(prefix_cache=lab.prefix)
    plain, without = timed()
    ratio = kept.seconds["fine-tune"] / plain.seconds["fine-tune"]
    seconds = {"cpu_seconds": plain.seconds["fine-tune"], "cpu_seconds_kept": kept.seconds["fine-tune"]}
    seconds |= {"cpu_seconds_filling": kept.seconds["blocks"], "time_ratio": ratio}
    scores = dict(without.metrics)
    scores |= {f"{name}_kept": value for name, value in with_it.metrics.items()}
    found = (seconds | scores).items()
    return [Row(task, "prefix", "subset", k, name, value, seed=seed) for name, value in found]


class Clock:
    """A progress that adds up the processor time of its steps: of training, of filling the prefix."""

    def __init__(self, seconds: dict[str, float] | None = None, name: str = "") -> None:
        self.seconds, self.name = {} if seconds is None else seconds, name

    def step(self, description: str, total: float | None = None, unit: str = "") -> Clock:
        return Clock(self.seconds, description.split()[0])

    def __enter__(self) -> Clock:
        self.started = time.process_time()
        return self

    def __exit__(self, *exc: object) -> None:
        self.seconds[self.name] = self.seconds.get(self.name, 0.0) + time.process_time() - self.started

    def say(self, *_: object) -> None: ...

    advance = note = say


def figures(rows: Sequence[Row], lab: Lab) -> list[Figure]:
    figure = layered(
        "prefix_time",
        "What keeping the frozen blocks' output saves",
        "Processor time of training one epoch on a subset; single measurements.",
        [line for line in lines(rows, "prefix") if line.measure in LABELS],
        panel=lambda line: line.model,
        ylabel=lambda line: "seconds",
        label=lambda line: LABELS[line.measure],
        xlabel="k: embeddings and blocks 1..k frozen",
    )
    return [figure] if figure else []
