"""Fine-tuning tasks: features, head, predictions and metrics.

To add a task, add a module with an object ``TASK`` that satisfies `bertft.models.tasks.base.Task`. The driver, studies
and the command line then know it by its ``name``.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import TYPE_CHECKING

from bertft.errors import BertftError

if TYPE_CHECKING:
    from bertft.models.tasks.base import Task


__all__ = ["get_task", "names"]


@functools.cache
def _tasks() -> dict[str, Task]:
    modules = (importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__))
    found = (module.TASK for module in modules if hasattr(module, "TASK"))
    return {task.name: task for task in sorted(found, key=lambda task: task.name)}


def names() -> list[str]:
    """Return the names of all tasks: ``dep`` (dependency parsing), ``mnli`` (NLI), ``squad`` (extractive QA), ..."""
    return list(_tasks())


def get_task(name: str) -> Task:
    """Return the task called ``name``; raise BertftError if there is none."""
    if name not in _tasks():
        raise BertftError(f"task: expected one of {', '.join(names())}, found {name!r}")
    return _tasks()[name]
