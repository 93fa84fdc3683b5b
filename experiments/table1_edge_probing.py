"""Table 1: micro-F1 of edge probes on every layer and mix of the base and the tuned encoders, beside their control."""

from __future__ import annotations

from collections.abc import Sequence

from bertft.report.figures.catalogue import Figure
from bertft.report.page.edge_table import edge_table
from bertft.runs.folder import Stage
from bertft.runs.rows import Row
from bertft.study.config import EdgeConfig, settings_of
from bertft.study.reader import edge_of
from bertft.study.repeat import Lab
from bertft.study.run import probe_edges


def tasks(lab: Lab) -> dict[str, EdgeConfig]:
    """Options ``edge``: ``seeds`` and ``tasks``, by name as a study's ``edge``; ``shared``, if any, holds for each."""
    options = lab.options("edge", "seeds", "tasks")
    where, root = f"setting {lab.setting.name}", lab.setting.root
    return {
        name: edge_of({**(options.get("shared") or {}), **own}, root, where, f"options.edge.tasks.{name}")
        for name, own in options["tasks"].items()
    }


def stages(lab: Lab) -> list[Stage]:
    seeds = lab.options("edge", "seeds")["seeds"]
    found = lab.study_stages("models", seeds=seeds)
    for seed in seeds:
        for name, edge in tasks(lab).items():
            work = lambda seed=seed, name=name, edge=edge: probe(lab, seed, name, edge)
            found.append(lab.stage(f"edge/seed{seed}/{name}", seed, {"edge": settings_of(edge)}, work))
    return found


def check(lab: Lab) -> None:
    lab.materials(lab.seeds[0]).check_spans(tasks(lab))


def probe(lab: Lab, seed: int, name: str, edge: EdgeConfig) -> list[Row]:
    encoders = ["base", *lab.setting.study.tasks, *(["random"] if edge.random else [])]
    named = {encoder: lab.encoder(seed, encoder) for encoder in encoders}
    texts = lab.materials(seed).spans(edge)
    return probe_edges(name, edge, named, texts, lab.out / "edge" / f"seed{seed}", seed, lab.progress)


def figures(rows: Sequence[Row], lab: Lab) -> list[Figure]:
    return lab.drawn(rows, "edge_by_layer")


def tables(rows: Sequence[Row], lab: Lab) -> dict[str, str]:
    return {"table1_edge_probing": edge_table(rows, ["base", *lab.setting.study.tasks])}
