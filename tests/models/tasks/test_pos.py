"""Part-of-speech tagging: learning, scores and registration."""

from __future__ import annotations

import dataclasses
from collections import Counter
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest

import bertft.models.tasks
from bertft.data import sources
from bertft.models.finetuning.config import FinetuneConfig
from bertft.models.finetuning.evaluation import evaluate, load_finetuned
from bertft.models.finetuning.run import finetune
from bertft.models.tasks import get_task, names
from bertft.study.reader import study_of

TRAIN, DEV = "builtin:synthetic?split=train&size=60&seed=1", "builtin:synthetic?split=dev&size=12&seed=1"


def test_a_tagger_beats_the_most_frequent_tag(tiny_model, tmp_path):
    config = FinetuneConfig(
        "pos", str(tiny_model), TRAIN, DEV, tmp_path / "pos", epochs=3, learning_rate=5e-3, head_learning_rate=1e-2,
        batch_size=8, max_length=128,
    )  # fmt: skip
    result = finetune(config)
    sentences = sources.load("dep", DEV)
    tags = Counter(tag for sentence in sentences for tag in sentence.upos)
    assert result.metrics["accuracy"] > 0.2 + max(tags.values()) / tags.total()
    found = load_finetuned(result.folder).predict(sentences)
    right = sum(g == p for s, tags in zip(sentences, found, strict=True) for g, p in zip(s.upos, tags, strict=True))
    assert result.metrics["accuracy"] == pytest.approx(right / tags.total())
    assert evaluate(result.folder, DEV)[0] == pytest.approx(result.metrics)


def test_a_tag_absent_from_training_is_always_wrong():
    task = get_task("pos")
    sentence = sources.load("dep", DEV)[0]
    strange = dataclasses.replace(sentence, upos=("ODD", *sentence.upos[1:]))
    score = task.score([strange], [sentence.upos])["accuracy"]
    assert score.value == pytest.approx(1 - 1 / len(sentence.words))


def test_every_task_is_known_to_the_driver_and_the_studies():
    modules = (
        import_module(f"bertft.models.tasks.{found.name}") for found in iter_modules(bertft.models.tasks.__path__)
    )
    assert "pos" in names() and set(names()) == {module.TASK.name for module in modules if hasattr(module, "TASK")}
    tree = {"name": "s", "model": "builtin:minilm", "tasks": {"pos": {"train": TRAIN, "dev": DEV}}}
    assert study_of(tree, Path("study.yaml")).tasks["pos"].task == "pos"
