"""bertft: what did fine-tuning change inside my encoder?

The public names load on first use, so that ``import bertft`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOMES = {
    "BertftError": "bertft.errors",
    "Row": "bertft.results",
    "read_results": "bertft.results",
    "write_results": "bertft.results",
    "Encoder": "bertft.encoder",
    "FinetuneConfig": "bertft.finetune",
    "StudyConfig": "bertft.study",
    "run_study": "bertft.study",
}
_MODULES = {"data", "ops", "probes", "report", "similarity"}

__all__ = sorted([*_HOMES, *_MODULES, "__version__"])


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return importlib.import_module(f"bertft.{name}")
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'bertft' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


if TYPE_CHECKING:
    from bertft.encoder import Encoder as Encoder
    from bertft.errors import BertftError as BertftError
    from bertft.finetune import FinetuneConfig as FinetuneConfig
    from bertft.results import Row as Row
    from bertft.results import read_results as read_results
    from bertft.results import write_results as write_results
    from bertft.study import StudyConfig as StudyConfig
    from bertft.study import run_study as run_study
