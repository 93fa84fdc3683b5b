"""Figure 1: what structural probes read from each layer of the base, the tuned and a random encoder, and how much more
or less from a tuned one than from the base."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from bertft.report.figure import Figure
from bertft.report.figures.layered import Layout, layered
from bertft.report.lines import lines
from bertft.runs.folder import Stage
from bertft.runs.rows import Row
from bertft.study.repeat import Lab


def stages(lab: Lab) -> list[Stage]:
    return lab.study_stages("probes", "differences")


def figures(rows: Sequence[Row], lab: Lab) -> list[Figure]:
    difference = layered(
        "difference",
        "What structural probes read from a tuned encoder, less what they read from the base",
        "Paired by sentence.",
        [line for line in lines(rows, "structural") if line.name.derived == "difference" and line.name.probe is None],
        Layout(
            panel=lambda line: line.name.title,
            ylabel=lambda line: f"{line.name.base}, tuned − base",
        ),
    )
    found = [dataclasses.replace(difference, columns=2)] if difference else []
    return lab.drawn(rows, "probes_by_layer") + found
