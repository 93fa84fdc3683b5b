"""A run folder's figures and page."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bertft.errors import BertftError
from bertft.report import several
from bertft.report.draw.paper import draw
from bertft.report.figure import Figure, HeatMap, Picture
from bertft.report.figures.catalogue import figures
from bertft.report.figures.layer_maps import layer_maps
from bertft.report.lines import Context
from bertft.report.page.answer import Answer, Said, in_columns
from bertft.report.page.direction_words import DirectionSection, direction_section
from bertft.report.page.example_trees import example_trees
from bertft.report.page.figure_section import Drawn
from bertft.report.page.moved_words import moved_words
from bertft.report.page.page import render
from bertft.report.pooled_tables import noted
from bertft.report.read import read_run
from bertft.report.study_answer import study_answer
from bertft.runs.files import write_bytes_atomically, write_text_atomically
from bertft.runs.progress import SILENT, Progress
from bertft.runs.rows import Row

PAGE = "report.html"
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
    is drawn. ``answer`` returns the answer at the top of the page, by default that of a study.

    Returns:
        The path of the page.

    Raises:
        BertftError: The folder has no results, or a file in it is damaged.
    """
    run = read_run(folder)
    folder, rows, described, record = run.folder, run.rows, run.context, run.record
    found: dict[str, Figure | HeatMap] = {}
    for figure in (*figures(rows, described), *layer_maps(rows), *(further(rows, described) if further else ())):
        found.setdefault(figure.name, figure)
    curves = [figure for figure in found.values() if isinstance(figure, Figure)]
    if run.of_experiments:
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
        page = folder / PAGE
        top = (answer or study_answer)(rows, described, record)
        write_text_atomically(page, render(rows, described, drawn, record, words, trees, top, directions))
        bar.advance()
    return page


def write_runs(
    folders: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str], *, progress: Progress = SILENT
) -> Path:
    """Draw one page of several runs side by side, ``report.html`` in the folder ``out``, and its figure.

    Returns:
        The path of the page.

    Raises:
        BertftError: The runs cannot be compared (`bertft.report.several.read_runs`), or ``out`` holds something else.
    """
    shared, out = several.read_runs(folders), Path(out)
    _check_out(out)
    described, record = several.labelled(shared), several.record(shared)
    rows = [row for run in shared.runs.values() for row in run.rows if row.task != "finetune"]
    with progress.step("report", total=2, unit="figure") as bar:
        drawn = [_drawn(out, several.figure(shared))]
        bar.advance()
        text = render(rows, described, drawn, record, answer=several.answer(shared), runs=several.section(shared))
        write_text_atomically(out / PAGE, text)
        bar.advance()
    return out / PAGE


def _check_out(out: Path) -> None:
    """Raise ``BertftError`` unless a folder is new, empty, or that of an earlier page of several runs."""
    place = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not place.is_dir():
        raise BertftError(f"--out {out}: expected a folder, found the file {place}")
    others = [entry.name for entry in out.iterdir() if entry.name not in (PAGE, "figures")] if out.exists() else []
    if others:
        raise BertftError(f"--out {out}: expected a new folder for the page, found one that holds {min(others)}")


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


def verdict(page: Path) -> list[str]:
    """Return the answer of the run folder that holds ``page`` for a terminal, line by line, and where the page is."""
    run = read_run(page.parent)
    answer = study_answer(run.rows, run.context, run.record)
    if answer is None:
        return [f"The page is at {page.resolve()}"]
    return in_columns([Said("answer", answer.sentence), *answer.said, Said("page", str(page.resolve()))])
