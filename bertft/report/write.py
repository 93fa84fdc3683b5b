"""A run folder's figures and page."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from bertft.errors import BertftError
from bertft.report.draw.paper import draw
from bertft.report.figure import Figure, HeatMap, Picture
from bertft.report.figures.catalogue import figures
from bertft.report.figures.layer_maps import layer_maps
from bertft.report.lines import Context, context
from bertft.report.page.answer import Answer
from bertft.report.page.direction_words import DirectionSection, direction_section
from bertft.report.page.example_trees import example_trees
from bertft.report.page.figure_section import Drawn
from bertft.report.page.moved_words import moved_words
from bertft.report.page.page import render
from bertft.report.pooled_tables import noted, read_tables
from bertft.runs.extras import need
from bertft.runs.files import write_bytes_atomically, write_text_atomically
from bertft.runs.progress import SILENT, Progress
from bertft.runs.rows import Row, read_results

Further = Callable[[Sequence[Row], Context], Sequence[Figure | HeatMap]]
"""Makes figures of rows, to add to the report's own."""
Top = Callable[[Sequence[Row], Context, Mapping[str, Any]], Answer]
"""Makes the answer at the top of the page of the rows, the configuration and ``run.json``."""


def write_report(
    folder: str | os.PathLike[str],
    *,
    further: Further | None = None,
    answer: Top | None = None,
    progress: Progress = SILENT,
) -> Path:
    """Draw ``figures/*.png, *.svg, *.csv`` and ``report.html`` from ``results.csv`` and ``config.yaml``.

    ``folder`` is the folder of a study, finished or not, of a single command, or of ``python -m experiments``, whose
    tables are in ``results``. ``further`` returns figures to add to the report's own; of two with one name the first
    is drawn. ``answer`` returns the answer at the top of the page.

    Returns:
        The path of the page.

    Raises:
        BertftError: The folder has no results, or a file in it is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BertftError(f"{folder}: no such run folder")
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
    described = context(study, rows)
    record = _record(folder, _mapping(folder / "run.json"))
    found: dict[str, Figure | HeatMap] = {}
    for figure in (*figures(rows, described), *layer_maps(rows), *(further(rows, described) if further else ())):
        found.setdefault(figure.name, figure)
    curves = [figure for figure in found.values() if isinstance(figure, Figure)]
    if of_experiments:
        curves = [noted(figure, rows) for figure in curves]
    words, trees = moved_words(folder), example_trees(folder, described.models)
    directions = direction_section(folder, rows, described)
    maps = [figure for figure in found.values() if isinstance(figure, HeatMap)]
    wanted = _in_order(curves, directions, maps)
    drawn = []
    with progress.step("report", total=len(wanted) + 1, unit="figure") as bar:
        for picture in wanted:
            drawn.append(_drawn(folder, picture))
            bar.advance()
        page = folder / "report.html"
        top = answer(rows, described, record) if answer else None
        write_text_atomically(page, render(rows, described, drawn, record, words, trees, top, directions))
        bar.advance()
    return page


def _in_order(curves: Sequence[Figure], directions: DirectionSection | None, maps: Sequence[HeatMap]) -> list[Picture]:
    """Return all figures in the order of the page: the words of a direction follow the shares of directions."""
    order: list[Picture] = [*curves]
    if directions:
        place = next((i for i, figure in enumerate(curves, start=1) if figure.name == "directions"), len(curves))
        order.insert(place, directions.figure)
    return [*order, *maps]


def _drawn(folder: Path, figure: Picture) -> Drawn:
    """Return a figure with its pictures, and write its files."""
    png, svg = draw(figure)
    write_bytes_atomically(folder / "figures" / f"{figure.name}.png", png)
    write_bytes_atomically(folder / "figures" / f"{figure.name}.svg", svg)
    write_text_atomically(folder / "figures" / f"{figure.name}.csv", figure.to_csv())
    return Drawn(figure, png, svg)


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
