"""The three fine-tuning tasks: features, head, predictions and official metrics of each.

A task is an object with this shape (``bertft.tasks.base.Task``); ``get_task`` finds it by name.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from bertft.errors import BertftError

if TYPE_CHECKING:
    from bertft.tasks.base import Task

TASKS = {"dep": "dependency", "mnli": "nli", "squad": "qa"}


def get_task(name: str) -> Task:
    """The task ``dep`` (dependency parsing), ``mnli`` (NLI) or ``squad`` (extractive QA)."""
    if name not in TASKS:
        raise BertftError(f"task: expected one of {', '.join(TASKS)}, found {name!r}")
    return importlib.import_module(f"bertft.tasks.{TASKS[name]}").TASK
