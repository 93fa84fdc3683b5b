"""Time saved by caching the output of frozen blocks."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from functools import partial

from bertft.models.finetuning.run import FinetuneResult, finetune
from bertft.report.figure import Figure
from bertft.report.lines import Context, lines
from bertft.runs.folder import Stage
from bertft.runs.rows import Row
from bertft.study.analyses.ablation import depths
from bertft.study.analysis import layered_figures
from bertft.study.repeat import Experiment, RepeatedStudy

LABELS = {"cpu_seconds": "every block run", "cpu_seconds_kept": "prefix kept", "cpu_seconds_filling": "filling, once"}


class PrefixTime(Experiment):
    """Processor time of training with k frozen blocks.

    Options ``prefix_time``: ``tasks``, by name the changes to the study's fine-tuning with the first seed.
    """

    name, order = "prefix_time", 90

    def stages(self, study: RepeatedStudy) -> list[Stage]:
        """Return a stage for every task and k."""
        found = []
        for task, changes in study.options("prefix_time", "tasks")["tasks"].items():
            for k in depths("freeze", study.setting.study.model)[2:]:  # from 1 on
                settings, work = {"task": task, "changes": changes, "k": k}, partial(self.work, study, task, k)
                found.append(study.stage(f"prefix_time/{task}/k{k}", study.seeds[0], settings, work))
        return found

    def work(self, study: RepeatedStudy, task: str, k: int) -> list[Row]:
        """Return scores, and processor seconds of training with its evaluation and checkpoint.

        The seconds leave out reading the corpus and loading the model, which take the same either way.
        """
        seed, own = study.seeds[0], {"freeze": k, **study.options("prefix_time")["tasks"][task]}
        folder = study.out / "prefix_time" / task

        def timed(**changes: object) -> tuple[Clock, FinetuneResult]:
            config = study.driver(seed, task, folder / "run", **{**own, **changes})
            result = finetune(config, progress=(clock := Clock()))
            shutil.rmtree(folder / "run")
            return clock, result

        for left in (*folder.glob("run"), *folder.glob(".run*")):  # by an interrupted measurement
            shutil.rmtree(left, ignore_errors=True)  # its lock, a file, stays
        for table in study.prefix.rglob(f"layer{k}.npy"):
            table.unlink()
        timed(max_train=32, max_dev=2)  # a process's first run is slower
        kept, with_cache = timed(prefix_cache=study.prefix)
        plain, without = timed()
        seconds, seconds_kept = plain.seconds["fine-tune"], kept.seconds["fine-tune"]
        found = {"cpu_seconds": seconds, "cpu_seconds_kept": seconds_kept}
        found |= {"cpu_seconds_filling": kept.seconds["blocks"], "time_ratio": seconds_kept / seconds}
        found |= without.metrics | {f"{name}_kept": value for name, value in with_cache.metrics.items()}
        return [Row(task, "prefix", "subset", k, name, value, seed=seed) for name, value in found.items()]

    def figures(self, rows: Sequence[Row], context: Context) -> list[Figure]:
        """Return a panel for each task."""
        return layered_figures(
            "prefix_time",
            "What keeping the frozen blocks' output saves",
            "Processor time of training one epoch on a subset; single measurements.",
            [line for line in lines(rows, "prefix") if line.measure in LABELS],
            panel=lambda line: line.model,
            ylabel=lambda line: "seconds",
            label=lambda line: LABELS[line.measure],
            xlabel="k: embeddings and blocks 1..k frozen",
        )


class Clock:
    """A progress that adds up the processor time of its steps by their first word."""

    def __init__(self, seconds: dict[str, float] | None = None, name: str = "") -> None:
        self.seconds, self.name = {} if seconds is None else seconds, name

    def step(self, description: str, total: float | None = None, unit: str = "") -> Clock:
        """Return a clock that adds to the same sums."""
        return Clock(self.seconds, description.split()[0])

    def __enter__(self) -> Clock:
        self.started = time.process_time()
        return self

    def __exit__(self, *exc: object) -> None:
        self.seconds[self.name] = self.seconds.get(self.name, 0.0) + time.process_time() - self.started

    advance = note = say = lambda *_: None


EXPERIMENT = PrefixTime()
