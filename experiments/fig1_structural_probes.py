"""Figure 1: what structural probes read from each layer of the base, the tuned and a random encoder, and how much more
or less from a tuned one than from the base."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from bertft.report.figures.catalogue import Figure
from bertft.report.figures.layered import layered
from bertft.report.figures.probes import MEASURES
from bertft.report.lines import lines
from bertft.runs.folder import Stage
from bertft.runs.rows import Row
from bertft.study.repeat import Lab


def stages(lab: Lab) -> list[Stage]:
    return lab.study_stages("probes", "differences")


def figures(rows: Sequence[Row], lab: Lab) -> list[Figure]:
    measures = {f"{measure}_difference": title for measure, (title, _) in MEASURES.items()}
    difference = layered(
        "difference",
        "What structural probes read from a tuned encoder, less what they read from the base",
        "Paired by sentence.",
        [line for line in lines(rows, "structural") if line.measure in measures],
        panel=lambda line: measures[line.measure],
        ylabel=lambda line: line.measure.removesuffix("_difference") + ", tuned − base",
    )
    found = [dataclasses.replace(difference, columns=2)] if difference else []
    return lab.drawn(rows, "probes_by_layer") + found
