"""Scores of the fine-tuned models, on dev and further texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import Any

from bertft.data.sources import load
from bertft.errors import BertftError
from bertft.models.finetuning.evaluation import evaluate
from bertft.models.tasks import get_task
from bertft.runs.folder import Stage
from bertft.runs.rows import Row
from bertft.study.repeat import Experiment, RepeatedStudy


class ModelScores(Experiment):
    """Scores of every task's models.

    Options ``also``, which may be left out: by task and name further texts, each a ``source`` with its ``split`` and
    ``limit`` where it needs them.
    """

    name, order = "models", 10

    def stages(self, study: RepeatedStudy) -> list[Stage]:
        """Return the study's models for every seed, then a stage for every further text."""
        found = study.study_stages("models")
        for seed in study.seeds:
            for task, name, settings in further_texts(study):
                stem, depends = f"also/seed{seed}/{task}/{name}", {"also": settings, "task": task}
                found.append(study.stage(stem, seed, depends, partial(self.work, study, seed, task, name, settings)))
        return found

    def check(self, study: RepeatedStudy) -> None:
        """Read every further text."""
        for task, _, settings in further_texts(study):
            load(get_task(study.setting.study.tasks[task].task).kind, **settings)

    def work(self, study: RepeatedStudy, seed: int, task: str, name: str, settings: dict[str, Any]) -> list[Row]:
        """Return the task's measures, with ``data`` ``<task>_<name>``."""
        rows = evaluate(study.model(seed, task), **settings, name=f"{task}_{name}", progress=study.progress)[1]
        return [dataclasses.replace(row, model=task, seed=seed) for row in rows]

    def figures(self, *_: object) -> list[Any]:
        """Return none."""
        return []


def further_texts(study: RepeatedStudy) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield task, name and settings of every text of the options ``also``."""
    where = f"setting {study.setting.name}: options.also"
    for task, texts in study.options("also").items():
        if task not in study.setting.study.tasks:
            raise BertftError(f"{where}.{task}: no task of the study has that name")
        for name, own in (texts or {}).items():
            if "source" not in (own or {}):
                raise BertftError(f"{where}.{task}.{name}.source: missing")
            yield task, name, {**own, "source": study.source(own["source"])}


EXPERIMENT = ModelScores()
