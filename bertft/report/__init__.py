"""From a run folder's numbers to figures and one page: the only part that draws."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bertft.errors import BertftError
from bertft.runs.progress import SILENT, Progress
from bertft.runs.rows import read_results, write_bytes_atomically, write_text_atomically

__all__ = ["write_report"]


def write_report(folder: str | os.PathLike[str], *, progress: Progress = SILENT) -> Path:
    """Draw ``figures/*.png, *.svg, *.csv`` and ``report.html`` from ``results.csv`` and ``config.yaml``.

    Works on the folder of a study, of a single command, of a study that is not finished, or of ``python -m
    experiments`` (whose tables lie in ``results``). Returns the page's path; raises ``BertftError`` if the folder holds
    no results.
    """
    from bertft.report.draw.paper import on_paper
    from bertft.report.figure import HeatMap
    from bertft.report.figures.catalogue import Figure, figures
    from bertft.report.figures.layer_maps import layer_maps
    from bertft.report.lines import context
    from bertft.report.page.example_trees import example_trees
    from bertft.report.page.moved_words import moved_words
    from bertft.report.page.page import render
    from bertft.report.pooled_tables import noted, read_tables

    folder = Path(folder)
    if not folder.is_dir():
        raise BertftError(f"{folder}: no such run folder")
    config = _mapping(folder / "config.yaml")
    study = _study(folder, config)
    of_experiments = not (folder / "results.csv").exists() and (folder / "results").is_dir()
    if of_experiments:
        rows, seeds = read_tables(folder / "results", study.get("tasks") or {})
        if seeds:
            study = {**study, "seed": seeds[0] if len(seeds) == 1 else seeds}
    else:
        rows = read_results(folder / "results.csv")
    described = context(study, rows)
    record = _told(folder, _mapping(folder / "run.json"))
    drawn_of = figures(rows, described)
    if of_experiments:
        drawn_of = [noted(figure, rows) for figure in drawn_of]
    wanted: list[Figure | HeatMap] = [*drawn_of, *layer_maps(rows)]
    files = []
    with progress.step("report", total=len(wanted) + 1, unit="figure") as bar:
        for figure in wanted:
            png, svg = on_paper(figure)
            files.append((png, svg))
            write_bytes_atomically(folder / "figures" / f"{figure.name}.png", png)
            write_bytes_atomically(folder / "figures" / f"{figure.name}.svg", svg)
            write_text_atomically(folder / "figures" / f"{figure.name}.csv", figure.to_csv())
            bar.advance()
        drawn = [(figure, *pair) for figure, pair in zip(wanted, files, strict=True) if not isinstance(figure, HeatMap)]
        maps = [(figure, *pair) for figure, pair in zip(wanted, files, strict=True) if isinstance(figure, HeatMap)]
        page = folder / "report.html"
        trees = moved_words(folder) + example_trees(folder, described.models)
        write_text_atomically(page, render(rows, described, drawn, record, maps, trees))
        bar.advance()
    return page


def _study(folder: Path, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The study of a run's configuration; of ``python -m experiments`` with the texts that only its stages' markers
    name."""
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


def _told(folder: Path, record: Mapping[str, Any]) -> Mapping[str, Any]:
    """What ``run.json`` says, with the stages that are ``done`` and ``left`` and the seconds of the former: of a study
    that was cut off only the stages' markers know them. Of ``python -m experiments``, which writes none, when the last
    stage was finished."""
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
    """A stage's marker; empty where there is none that can be read."""
    try:
        mark = json.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError):
        return {}
    return mark if isinstance(mark, dict) else {}


def _mapping(path: Path) -> Mapping[str, Any]:
    """A YAML or JSON file that holds a mapping; empty where there is none."""
    import yaml

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
