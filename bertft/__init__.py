"""bertft: what did fine-tuning change inside my encoder?

The public names load on first use, so that ``import bertft`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertft._lazy import exports

__version__ = "0.1.0"

_HOMES = {
    "BertftError": "bertft.errors",
    "Row": "bertft.runs.rows",
    "read_results": "bertft.runs.rows",
    "to_arrow": "bertft.runs.rows",
    "to_pandas": "bertft.runs.rows",
    "write_results": "bertft.runs.rows",
    "Encoder": "bertft.models.encoder",
    "FinetuneConfig": "bertft.models.finetuning.run",
    "StudyConfig": "bertft.study.config",
    "run_study": "bertft.study.run",
}
_MODULES = frozenset({"cli", "data", "models", "ops", "probes", "report", "runs", "similarity", "study"})

__all__ = sorted([*_HOMES, *_MODULES, "__version__"])


__getattr__, __dir__ = exports(__name__, _HOMES, _MODULES)


if TYPE_CHECKING:
    from bertft.errors import BertftError as BertftError
    from bertft.models.encoder import Encoder as Encoder
    from bertft.models.finetuning.run import FinetuneConfig as FinetuneConfig
    from bertft.runs.rows import Row as Row
    from bertft.runs.rows import read_results as read_results
    from bertft.runs.rows import to_arrow as to_arrow
    from bertft.runs.rows import to_pandas as to_pandas
    from bertft.runs.rows import write_results as write_results
    from bertft.study.config import StudyConfig as StudyConfig
    from bertft.study.run import run_study as run_study
