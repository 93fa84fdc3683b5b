"""The fine-tuned models that the other analyses share, and their scores on dev and on whatever else is asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from bertft.data import sources
from bertft.errors import BertftError
from bertft.models.finetuning.evaluation import evaluate
from bertft.models.tasks import get_task
from bertft.report.figures.catalogue import Figure
from bertft.runs.folder import Stage
from bertft.runs.rows import Row
from bertft.study.repeat import Lab


def also(lab: Lab) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Options ``also``: by task and name what its models are scored on too, a ``source`` with its ``split`` and
    ``limit`` where it needs them; may be left out. Yields task, name and these."""
    for task, texts in lab.options("also").items():
        if task not in lab.setting.study.tasks:
            raise BertftError(f"setting {lab.setting.name}: options.also.{task}: no task of the study has that name")
        for name, own in (texts or {}).items():
            if "source" not in (own or {}):
                raise BertftError(f"setting {lab.setting.name}: options.also.{task}.{name}.source: missing")
            yield task, name, {**own, "source": lab.source(own["source"])}


def stages(lab: Lab) -> list[Stage]:
    found = lab.study_stages("models")
    for seed in lab.seeds:
        for task, name, settings in also(lab):
            work = partial(score, lab, seed, task, name, settings)
            found.append(lab.stage(f"also/seed{seed}/{task}/{name}", seed, {"also": settings, "task": task}, work))
    return found


def check(lab: Lab) -> None:
    for task, _, settings in also(lab):
        sources.load(get_task(lab.setting.study.tasks[task].task).kind, **settings)


def score(lab: Lab, seed: int, task: str, name: str, settings: dict[str, Any]) -> list[Row]:
    """The task's measures, with ``data`` ``<task>_<name>``."""
    folder = lab.out / f"seed{seed}" / "models" / task
    rows = evaluate(folder, **settings, name=f"{task}_{name}", progress=lab.progress)[1]
    return [dataclasses.replace(row, model=task, seed=seed) for row in rows]


def figures(rows: Sequence[Row], lab: Lab) -> list[Figure]:
    return []
