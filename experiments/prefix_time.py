"""What the kept prefix saves: one short frozen run for every k, with and without it, in seconds of processor time."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from functools import partial

from bertft.ablation import depths
from bertft.finetune import FinetuneResult, finetune
from bertft.lab import Lab
from bertft.report.figures import Figure
from bertft.report.layered import layered
from bertft.report.series import lines
from bertft.results import Row
from bertft.run_folder import Stage

LABELS = {
    "cpu_seconds": "every block run",
    "cpu_seconds_kept": "prefix kept",
    "cpu_seconds_filling": "filling it, once",
}


def stages(lab: Lab) -> list[Stage]:
    """Options ``prefix_time``: the ``task`` and ``changes`` to its fine-tuning, of the first seed."""
    options = lab.options("prefix_time")
    seed = lab.seeds[0]
    return [
        lab.stage(f"prefix_time/k{k}", seed, {"options": options, "k": k}, partial(measure, lab, seed, k))
        for k in depths("freeze", lab.setting.study.model)
        if k >= 1
    ]


def measure(lab: Lab, seed: int, k: int) -> list[Row]:
    """Seconds of user and system time of whole runs, from reading the corpus to the finished folder."""
    options = lab.options("prefix_time")
    folder, cache = lab.out / "prefix_time", lab.out / "prefix_time" / "prefix"
    driver = partial(lab.driver, seed, options["task"], freeze=k, **options["changes"])

    def timed(name: str, **changes: object) -> tuple[float, FinetuneResult]:
        shutil.rmtree(folder / name, ignore_errors=True)
        started = time.process_time()
        result = finetune(driver(folder / name, **changes))
        seconds = time.process_time() - started
        shutil.rmtree(folder / name)
        return seconds, result

    timed("run", max_train=2, max_dev=2, epochs=1)  # imports, and what the machine does once
    plain, without = timed("run")
    filling, _ = timed("run", prefix_cache=cache)
    kept, with_it = timed("run", prefix_cache=cache)
    seconds = {"cpu_seconds": plain, "cpu_seconds_kept": kept, "cpu_seconds_filling": max(filling - kept, 0.0)}
    scores = dict(without.metrics)
    scores |= {f"{name}_kept": value for name, value in with_it.metrics.items()}
    found = seconds | {"time_ratio": kept / plain} | scores
    return [Row(options["task"], "prefix", "subset", k, name, value, seed=seed) for name, value in found.items()]


def figures(rows: Sequence[Row], lab: Lab) -> list[Figure]:
    figure = layered(
        "prefix_time",
        "What keeping the frozen blocks' output saves",
        "Processor time of one run; single measurements.",
        [line for line in lines(rows, "prefix") if line.measure in LABELS],
        panel=lambda line: line.model,
        ylabel=lambda line: "seconds",
        label=lambda line: LABELS[line.measure],
        xlabel="k: embeddings and blocks 1..k frozen",
    )
    return [figure] if figure else []
