"""The protocol of an analysis, and the run folder of one.

An analysis turns its inputs into stages, and their rows into figures:

    inputs ──stages──> Stage.work ──> rows ──derived──> more rows ──figures, tables──> page
       └──check (bad input)  └──cost (a dry run)

A study (`bertft.study.run`) is a loop over analyses; ``python -m experiments`` repeats one with several seeds. To add
an analysis, write one module in `bertft.study.analyses`, list it in ``ANALYSES`` and add its settings to
`bertft.study.config`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import yaml

from bertft.report.figure import Figure, HeatMap
from bertft.report.figures.catalogue import figures
from bertft.report.figures.layer_maps import layer_maps
from bertft.report.figures.layered import Layout, layered
from bertft.report.lines import Context, Line
from bertft.report.write import write_report
from bertft.runs.extras import need
from bertft.runs.folder import CONFIG, RESULTS, RunFolder, Stage
from bertft.runs.progress import SILENT, Progress
from bertft.runs.rows import Row
from bertft.runs.versions import versions
from bertft.study.timing import StageCost

Material = TypeVar("Material", contravariant=True)
"""Inputs of an analysis: settings, corpora and encoders."""


class Analysis(Protocol[Material]):
    """One question: its stages, their cost, and the figures of their rows.

    Subclasses name themselves and implement `stages`; every other method has a default.

    Attributes:
        name: unique among its siblings.
        order: analyses run in ascending order.
        tasks: the ``task`` of the rows that its figures show.
    """

    name: str
    order: int
    tasks: tuple[str, ...] = ()

    def stages(self, inputs: Material) -> list[Stage]:
        """Return the stages in order; none if the inputs do not ask for this analysis."""
        ...

    def check(self, inputs: Material) -> None:
        """Raise ``BertftError`` for input that a stage would refuse; write nothing."""
        return

    def cost(self, inputs: Material, stages: Sequence[Stage], held: int) -> Iterator[StageCost]:
        """Yield the cost of each of ``stages``, in a process that holds ``held`` bytes; by default none."""
        return iter(())

    def clean(self, inputs: Material) -> None:
        """Remove files that stages share, once all of them are done."""
        return

    def derived(self, rows: Sequence[Row], context: Context) -> list[Row]:
        """Return further rows that follow from those of the stages."""
        return []

    def figures(self, rows: Sequence[Row], context: Context) -> Sequence[Figure | HeatMap]:
        """Return the figures of this analysis among ``rows``."""
        own = [row for row in rows if row.task in self.tasks]
        return [*figures(own, context), *layer_maps(own)]

    def tables(self, rows: Sequence[Row], context: Context) -> Mapping[str, str]:
        """Return Markdown tables by name."""
        return {}


def named_figures(rows: Sequence[Row], context: Context, *names: str) -> list[Figure]:
    """Return those of the report's figures of ``rows`` that have one of these names."""
    return [figure for figure in figures(rows, context) if figure.name in names]


def layered_figures(name: str, title: str, caption: str, shown: Sequence[Line], **layout: Any) -> list[Figure]:
    """Return the figure that `layered` makes of the lines with this `Layout`, or none if there are no lines."""
    figure = layered(name, title, caption, shown, Layout(**layout))
    return [figure] if figure else []


def write_page(folder: Path, analyses: Iterable[Analysis[Any]] = (), *, progress: Progress = SILENT) -> Path:
    """Write the page of a run folder with all figures of ``analyses``; return its path."""
    chosen = list(analyses)

    def further(rows: Sequence[Row], context: Context) -> list[Figure | HeatMap]:
        return [figure for analysis in chosen for figure in analysis.figures(rows, context)]

    return write_report(folder, further=further, progress=progress)


def open_folder(out: str | os.PathLike[str], settings: Mapping[str, Any]) -> RunFolder:
    """Return the run folder of a command with these settings, not yet claimed.

    Raises ``BertftError`` before any work if the folder holds something else, or if its page cannot be drawn.
    """
    need("report", f"{os.fspath(out)}: the page of a run")
    folder = RunFolder(out, yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True))
    folder.check()
    return folder


def check_folder(out: str | os.PathLike[str], settings: Mapping[str, Any], later: Sequence[str] = ()) -> None:
    """Raise ``BertftError`` if `open_folder` will refuse ``out``, before anything is loaded.

    ``later`` names settings that are chosen once the models are loaded; those of the folder are taken for them.
    """
    held: Any = None
    with contextlib.suppress(OSError, ValueError, yaml.YAMLError):  # `open_folder` reports them
        held = yaml.safe_load((Path(out) / CONFIG).read_text(encoding="utf8"))
    chosen = {name: held[name] for name in later if name in held} if isinstance(held, dict) else {}
    open_folder(out, {**settings, **chosen})


def close_folder(
    folder: RunFolder,
    rows: Sequence[Row],
    record: Mapping[str, Any],
    analyses: Iterable[Analysis[Any]] = (),
    *,
    progress: Progress = SILENT,
) -> str:
    """Write the table, the record and the page of a claimed folder; return the lines that locate them."""
    folder.write_table(rows)
    folder.write_record({"versions": versions(), **record})
    write_page(folder.path, analyses, progress=progress)
    return where_results_are(folder.path)


def where_results_are(out: Path) -> str:
    """Return the lines that locate the table and the page of a run folder."""
    return f"Results are in {(out / RESULTS).resolve()}\nThe page is at {(out / 'report.html').resolve()}"


def run_analysis(
    analysis: Analysis[Material], inputs: Material, folder: RunFolder, title: str, *, progress: Progress = SILENT
) -> list[Row]:
    """Run or resume one analysis in its own run folder; return the rows of its table."""
    stages = analysis.stages(inputs)
    with folder.claim():
        rows = folder.run(stages, title, progress=progress)
        analysis.clean(inputs)
        times = {"seconds": folder.seconds(stages), "finished": folder.finished(stages)}
        close_folder(folder, rows, times, [analysis], progress=progress)
    return rows
