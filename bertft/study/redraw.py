"""The command ``bertft report``: the page of a run folder, or of several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bertft.errors import BertftError
from bertft.report.write import write_runs
from bertft.runs.progress import SILENT, Progress
from bertft.study.analyses import ANALYSES
from bertft.study.analysis import write_page
from bertft.study.diff.run import is_diff, redraw


def report(folders: Sequence[Path], out: Path | None = None, *, progress: Progress = SILENT) -> Path:
    """Redraw the page of a run folder, or write one of several into ``out``; return its path.

    Raises:
        BertftError: ``out`` is missing for several folders or given for one, or the folders cannot be drawn.
    """
    if len(folders) > 1:
        if out is None:
            raise BertftError(f"report: {len(folders)} runs need --out, a folder for the page that compares them")
        return write_runs(folders, out, progress=progress)
    folder = folders[0]
    if out is not None:
        raise BertftError("report: --out is for several runs; the page of one is written into its own folder")
    return redraw(folder, progress=progress) if is_diff(folder) else write_page(folder, ANALYSES, progress=progress)
