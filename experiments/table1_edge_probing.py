"""Table 1: micro-F1 of edge probes, with controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from bertft.report.figure import Figure
from bertft.report.lines import Context
from bertft.report.page.edge_table import edge_table
from bertft.runs.folder import Stage
from bertft.runs.rows import Row
from bertft.study.analyses.edge import check_spans, probe_edges
from bertft.study.analysis import named_figures
from bertft.study.config import EdgeConfig, settings_of
from bertft.study.reader import edge_of
from bertft.study.repeat import Experiment, RepeatedStudy


class EdgeProbing(Experiment):
    """Edge probes of every task and seed.

    Options ``edge``: ``seeds`` and ``tasks``, by name as a study's ``edge``; ``shared`` holds defaults of all tasks.
    """

    name, order = "table1_edge_probing", 140

    def stages(self, study: RepeatedStudy) -> list[Stage]:
        """Return a stage for every seed and task, after the models."""
        seeds = study.options("edge", "seeds")["seeds"]
        found = study.study_stages("models", seeds=seeds)
        for seed in seeds:
            for name, edge in edge_tasks(study).items():
                work = partial(self.work, study, seed, name, edge)
                found.append(study.stage(f"edge/seed{seed}/{name}", seed, {"edge": settings_of(edge)}, work))
        return found

    def check(self, study: RepeatedStudy) -> None:
        """Read the texts of every task; refuse those that cannot be probed."""
        check_spans(study.inputs(study.seeds[0]), edge_tasks(study))

    def work(self, study: RepeatedStudy, seed: int, name: str, edge: EdgeConfig) -> list[Row]:
        """Return the rows of one seed and task."""
        return probe_edges(study.inputs(seed), name, edge, study.out / "edge" / f"seed{seed}")

    def figures(self, rows: Sequence[Row], context: Context) -> list[Figure]:
        """Return micro-F1 by layer."""
        return named_figures(rows, context, "edge_by_layer")

    def tables(self, rows: Sequence[Row], context: Context) -> Mapping[str, str]:
        """Return the table of the best layers."""
        return {"table1_edge_probing": edge_table(rows, ["base", *context.config["tasks"]])}


def edge_tasks(study: RepeatedStudy) -> dict[str, EdgeConfig]:
    """Return the edge-probing tasks of the options."""
    options = study.options("edge", "seeds", "tasks")
    where, root = f"setting {study.setting.name}", study.setting.root
    return {
        name: edge_of({**(options.get("shared") or {}), **own}, root, where, f"options.edge.tasks.{name}")
        for name, own in options["tasks"].items()
    }


EXPERIMENT = EdgeProbing()
