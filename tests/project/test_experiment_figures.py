"""Panels of the experiments' figures."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from bertft.runs.rows import Row
from experiments import lora, noise_ceiling


def similar(*models: str) -> list[Row]:
    return [Row(m, "rsa", "plain", layer, "rsa_cosine_pearson", 0.5, n=9) for m in models for layer in range(2)]


def panels(figure) -> dict[str, list[str]]:
    return {panel.title: [curve.label for curve in panel.curves] for panel in figure.panels}


def test_an_encoder_whose_name_contains_and_is_compared_with_the_base():
    about = SimpleNamespace(config={"options": {"lora": {"text": "plain", "task": "mnli"}}})
    (figure,) = lora.EXPERIMENT.figures(similar("brand", "LoRA", "LoRA and full"), about)
    assert panels(figure) == {"to the base encoder": ["brand", "LoRA"], "one to the other": ["LoRA and full"]}


@pytest.mark.parametrize("task", ["a and base", "x, two seeds"])
def test_kinds_of_pairs_do_not_depend_on_the_name_of_a_task(task):
    about = SimpleNamespace(config={"tasks": ["mnli", task]})
    rows = similar(f"mnli and {task}", f"{task} and base", f"{task}, two seeds")
    (figure,) = noise_ceiling.EXPERIMENT.figures(rows, about)
    assert panels(figure) == {
        "two tasks": [f"mnli and {task}"], "a task and the base": [task], "one task, two seeds": [task],
    }  # fmt: skip
