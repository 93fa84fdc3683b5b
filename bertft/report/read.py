"""Rows, configuration and record of a run folder."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bertft.errors import BertftError
from bertft.report.lines import Context, context
from bertft.report.pooled_tables import read_tables
from bertft.runs.extras import need
from bertft.runs.rows import Row, read_results


@dataclass(frozen=True)
class Run:
    """What a run folder holds.

    Attributes:
        folder: the path.
        rows: the results.
        context: the order of the encoders, and the configuration.
        record: ``run.json``, with the stages ``done`` and ``left``.
        of_experiments: whether it is a folder of ``python -m experiments``, whose tables are in ``results``.
    """

    folder: Path
    rows: Sequence[Row]
    context: Context
    record: Mapping[str, Any]
    of_experiments: bool = False


def read_run(folder: str | os.PathLike[str]) -> Run:
    """Read a run folder: of a study, finished or not, of a single command, or of ``python -m experiments``.

    Raises:
        BertftError: The folder has no results, or a file in it is damaged.
    """
    folder = Path(folder)
    check_run(folder)
    need("report", f"{folder}: the page")
    config = _mapping(folder / "config.yaml")
    study = _study(folder, config)
    of_experiments = not (folder / "results.csv").exists() and (folder / "results").is_dir()
    if of_experiments:
        rows, seeds = read_tables(folder / "results", study.get("tasks") or {})
        if seeds:
            study = {**study, "seed": seeds[0] if len(seeds) == 1 else seeds}
    else:
        rows = read_results(folder / "results.csv")
    record = _record(folder, _mapping(folder / "run.json"))
    return Run(folder, rows, context(study, rows), record, of_experiments)


def check_run(folder: Path) -> None:
    """Raise ``BertftError`` for a folder that does not exist."""
    if not folder.is_dir():
        raise BertftError(f"{folder}: no such run folder")


def _study(folder: Path, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the study in a configuration; for ``python -m experiments`` with the texts in its stages' markers."""
    study = config.get("study")
    if not isinstance(study, dict):
        return config
    along: Mapping[str, Any] = {}
    edge: dict[str, Any] = {}
    for path in sorted(folder.rglob("*.done.json")):
        settings = _mark(path).get("settings")
        if isinstance(settings, dict):
            along = settings.get("along") or along
            if settings.get("edge"):
                edge[path.name.removesuffix(".done.json")] = settings["edge"]
    return study | {name: own for name, own in (("along", along), ("edge", edge)) if own}


def _record(folder: Path, record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return ``run.json`` with the stages ``done`` and ``left`` and the ``seconds`` of the former.

    If a study was interrupted, only the stages' markers have the seconds. ``python -m experiments`` writes no
    ``run.json``: its record is the time at which the last stage finished.
    """
    if not record:
        marks = [_mark(path) for path in folder.rglob("*.done.json")]
        last = max((str(mark["finished"]) for mark in marks if mark.get("finished")), default=None)
        return {} if last is None else {"finished": last}
    stages = [stage for stage in record.get("stages") or [] if isinstance(stage, str)]
    seconds = {}
    for stage in stages:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            seconds[stage] = round(float(_mark(folder / f"{stage}.done.json")["seconds"]), 2)
    left = [stage for stage in stages if stage not in seconds]
    return {"seconds": seconds, **record, "done": [*seconds], "left": left}


def _mark(path: Path) -> Mapping[str, Any]:
    """Return a stage's marker; empty if it is missing or unreadable."""
    try:
        mark = json.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError):
        return {}
    return mark if isinstance(mark, dict) else {}


def _mapping(path: Path) -> Mapping[str, Any]:
    """Return the mapping in a YAML or JSON file; empty if there is no such file."""
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf8")
        value = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise BertftError(f"{path}: not readable ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(value, dict):
        raise BertftError(f"{path}: expected a mapping, found {type(value).__name__}")
    return value
