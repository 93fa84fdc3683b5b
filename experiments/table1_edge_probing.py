"""Table 1: micro-F1 of edge probes on every layer and mix of the base and the tuned encoders, beside their control."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bertft.data.sources import load
from bertft.lab import Lab
from bertft.probes.edge import edge_probes
from bertft.probes.edge_train import EdgeTraining
from bertft.report.figures import Figure
from bertft.results import Row
from bertft.run_folder import Stage


def stages(lab: Lab) -> list[Stage]:
    """Options ``edge``: ``seeds``, ``training`` (of ``EdgeTraining``) and ``tasks``, by name ``train`` and ``dev``
    sources with ``max_train``, ``max_dev`` where they are to be cut."""
    options = lab.options("edge")
    found = lab.study_stages("models", seeds=options["seeds"])
    for seed in options["seeds"]:
        for task, corpus in options["tasks"].items():
            name = f"edge/seed{seed}/{task}"
            settings = {"edge": corpus, "training": options["training"]}
            work = lambda seed=seed, task=task, corpus=corpus: probe(lab, seed, task, corpus)
            found.append(lab.stage(name, seed, settings, work))
    return found


def probe(lab: Lab, seed: int, task: str, corpus: dict[str, Any]) -> list[Row]:
    split = {"train": "train", "dev": "dev"}
    texts = {
        part: load("spans", lab.source(corpus[part]), split=split[part], limit=corpus.get(f"max_{part}"))
        for part in split
    }
    training = EdgeTraining(seed=seed, **lab.options("edge")["training"])
    encoders = {name: lab.encoder(seed, name) for name in ("base", *lab.setting.study.tasks)}
    out = lab.out / "edge" / f"seed{seed}" / task
    return edge_probes(
        encoders, texts["train"], texts["dev"], data=task, training=training, out=out, progress=lab.progress
    ).rows


def figures(rows: Sequence[Row], lab: Lab) -> list[Figure]:
    return lab.drawn(rows, "edge_by_layer")
