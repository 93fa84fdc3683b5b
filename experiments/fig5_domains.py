"""Figure 5: the same similarity on the task's own text, on the other tasks' and on text of no task."""

from __future__ import annotations

from collections.abc import Sequence

from bertft.report.figures.catalogue import Figure
from bertft.runs.folder import Stage
from bertft.runs.own_text import own_text_differences
from bertft.runs.rows import Row
from bertft.study.repeat import Lab


def stages(lab: Lab) -> list[Stage]:
    return lab.study_stages("rsa")


def derived(rows: Sequence[Row], lab: Lab) -> list[Row]:
    return own_text_differences(rows, lab.setting.study.own_text)


def figures(rows: Sequence[Row], lab: Lab) -> list[Figure]:
    return lab.drawn(rows, "rsa_domains")
