"""Figures and one HTML page from the numbers of a run folder.

::

    results.csv -> lines -> figures (figure.Figure) -> draw.paper  -> figures/*.png, *.svg
                                                    -> draw.screen -> page/ -> report.html
                         -> findings (sentences) ------------------> page/

Only this package draws. It reads run folders and imports nothing of bertft but `bertft.runs` and `bertft.errors`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from bertft.report.draw.tree import Tree
from bertft.runs.progress import SILENT, Progress

if TYPE_CHECKING:
    from bertft.report.write import Further

__all__ = ["Tree", "write_report"]


def write_report(
    folder: str | os.PathLike[str], *, further: Further | None = None, progress: Progress = SILENT
) -> Path:
    """Draw ``figures/*.png, *.svg, *.csv`` and ``report.html``; see `bertft.report.write.write_report`."""
    from bertft.report import write

    return write.write_report(folder, further=further, progress=progress)
