"""Figure 3: task scores by the number of frozen blocks."""

from __future__ import annotations

from collections.abc import Sequence

from bertft.report.figure import Figure
from bertft.report.lines import Context
from bertft.runs.folder import Stage
from bertft.runs.rows import Row
from bertft.study.analyses.ablation import sweep_stages
from bertft.study.analysis import named_figures
from bertft.study.repeat import Experiment, RepeatedStudy


class RepeatedSweep(Experiment):
    """Sweeps of one ``kind`` (`bertft.study.analyses.ablation`) of every task and seed.

    Options ``sweep``: ``seeds``, ``k`` (a list by kind; default all) and ``tasks``, by name the changes to the study's
    fine-tuning, such as ``max_train``, and optionally a ``k`` of the task's own.
    """

    def __init__(self, kind: str, name: str, order: int) -> None:
        self.kind, self.name, self.order = kind, name, order

    def stages(self, study: RepeatedStudy) -> list[Stage]:
        """Return a stage for every seed, task and k."""
        options = study.options("sweep", "seeds", "tasks")
        found = []
        for seed in options["seeds"]:
            for task, own in options["tasks"].items():
                changes = dict(own or {})
                depths = changes.pop("k", options.get("k", {})).get(self.kind)
                config = study.driver(seed, task, study.out, **changes)
                found += sweep_stages(
                    self.kind,
                    config,
                    study.out,
                    depths_wanted=depths,
                    name=f"{self.kind}/{task}/seed{seed}",
                    cache=study.prefix,
                    keep=False,
                    progress=study.progress,
                )
        return found

    def figures(self, rows: Sequence[Row], context: Context) -> list[Figure]:
        """Return the scores by k."""
        return named_figures(rows, context, f"{self.kind}_by_k")


EXPERIMENT = RepeatedSweep("freeze", "fig3_freezing", 110)
