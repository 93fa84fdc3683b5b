"""Results table of a study with known numbers.

Its folder and its page too.
"""

from __future__ import annotations

import copy
import json

import pytest
import yaml

from bertft.report import write_report
from bertft.runs.rows import Row, write_results

LAYERS = 4
CONFIG = {
    "name": "a study",
    "model": "builtin:minilm",
    "seed": 7,
    "tasks": {
        "dep": {"task": "dep", "dev": "builtin:synthetic?split=dev", "train": "builtin:synthetic"},
        "mnli": {"task": "mnli", "dev": "other/dev.jsonl", "train": "other/train.jsonl"},
    },
    "stimuli": {"plain": {"source": "plain.txt", "kind": "text"}},
    "probes": {"name": "trees", "train": "a.conllu", "dev": "b.conllu"},
}


@pytest.fixture(scope="session")
def rows() -> list[Row]:
    table = [
        Row("dep", "finetune", "dep", None, "las_conll18", 90.0, 88.0, 92.0, 50, 7),
        Row("mnli", "finetune", "mnli", None, "accuracy", 0.7, 0.65, 0.75, 50, 7),
    ]
    # Loss of similarity per layer. Own text loses a quarter more than other text.
    loss = {"dep": (0.0, 0.2, 0.4, 0.6), "mnli": (0.0, 0.0, 0.1, 0.4)}
    for measure, factor in (("rsa_cosine_pearson", 1.0), ("cka_debiased", 0.5)):
        for data in ("dep", "mnli", "plain"):
            for model, losses in loss.items():
                for layer, lost in enumerate(losses):
                    value = 1 - factor * lost * (1.25 if data == model else 1)
                    table.append(
                        Row(model, "rsa", data, layer, measure, value, value - 0.01, value + 0.01, 2000 + layer, 7)
                    )
    for model, best in (("base", 0.8), ("dep", 0.85), ("mnli", 0.79), ("random", 0.5)):
        for measure in ("dspr", "nspr", "uuas", "root_accuracy"):
            for layer in range(LAYERS):
                value = best - 0.01 * abs(layer - 2)
                table.append(
                    Row(model, "structural", "trees", layer, measure, value, value - 0.02, value + 0.02, 80, 7)
                )
    return table


@pytest.fixture
def config() -> dict:
    return copy.deepcopy(CONFIG)


@pytest.fixture(scope="session")
def page(rows, tmp_path_factory):
    """Return the page of a whole study, drawn once. Tests must not change it."""
    folder = tmp_path_factory.mktemp("study")
    fill(folder, rows, CONFIG)
    return write_report(folder)


def fill(folder, rows, config) -> None:
    write_results(folder / "results.csv", rows)
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf8")
    record = {"versions": {"bertft": "9.9", "torch": "2.x"}, "seconds": {"models/dep": 90.0}}
    (folder / "run.json").write_text(json.dumps(record), encoding="utf8")


@pytest.fixture
def folder(tmp_path, rows, config):
    """Return a run folder that a test may change."""
    fill(tmp_path, rows, config)
    return tmp_path
