"""Studies: questions to answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertft._lazy import exports

_HOMES = {
    "StudyConfig": "bertft.study.config",
    "read_study": "bertft.study.reader",
    "run_study": "bertft.study.run",
    "study_stages": "bertft.study.run",
}

__all__ = sorted(_HOMES)

__getattr__, __dir__ = exports(__name__, _HOMES)


if TYPE_CHECKING:
    from bertft.study.config import StudyConfig as StudyConfig
    from bertft.study.reader import read_study as read_study
    from bertft.study.run import run_study as run_study
    from bertft.study.run import study_stages as study_stages
