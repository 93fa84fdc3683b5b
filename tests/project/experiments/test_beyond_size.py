"""Layers that moved more than the size of the change explains."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bertft.models.encoder import Encoder
from bertft.models.noise import noise_encoder
from bertft.runs.progress import SILENT
from bertft.runs.rows import Row
from bertft.similarity import compare_encoders
from experiments import beyond_size

OPTIONS = {"draws": 3, "derangements": 100, "text": "plain", "tokens": 150}
TEXTS = [f"the {a} dog saw the {b} cat" for a in ("old", "big", "red", "small") for b in ("young", "thin", "tall")]


def difference(value: float, low: float, high: float, layer: int = 0) -> Row:
    return Row("dep - noise of dep", "difference", "plain", layer, "rsa_cosine_pearson", value, low, high, 9, 1)


def test_z_of_known_draws():
    half = 1.959964 * 0.01
    draws = [difference(v, v - half, v + half) for v in (-0.1, -0.2, -0.3)]
    row = beyond_size.over_draws(draws)
    (line,) = beyond_size.z_by_layer([row])
    assert row.value == pytest.approx(-0.2) and line.model == "dep"
    # variance of the draws 0.01, of another draw beside the mean of three 4/3 of it
    assert line.values[0] == pytest.approx(0.2 / math.sqrt(1e-4 + 0.01 * 4 / 3))


def test_a_layer_that_nothing_moved_has_z_0():
    draws = [difference(0.0, 0.0, 0.0)] * 3
    assert beyond_size.z_by_layer([beyond_size.over_draws(draws)])[0].values == (0.0,)


@pytest.fixture(scope="module")
def table(tiny_model):
    """Rows of a planted change: ``one`` moved block 2 in one direction, ``other`` as noise of the same size does."""
    base, one = (Encoder.from_pretrained(str(tiny_model), device="cpu") for _ in range(2))
    with torch.no_grad():
        weight = one.model.encoder.layer[1].output.dense.weight
        direction = torch.linspace(-1, 1, weight.shape[0])
        weight.add_(3 * torch.outer(direction, torch.ones(weight.shape[1])))
    random = noise_encoder(base, one, 99, "other")
    random.name = "other"
    inputs = SimpleNamespace(
        stimuli=lambda text: TEXTS,
        encoder=lambda name: base,
        encoders=lambda: {"one": one, "other": random},
    )
    study = SimpleNamespace(options=lambda name: OPTIONS, inputs=lambda seed: inputs, progress=SILENT)
    return beyond_size.EXPERIMENT.work(study, 5), base, one


def test_a_directed_change_is_beyond_its_size_and_a_random_one_is_not(table):
    z = {line.model: line.values for line in beyond_size.z_by_layer(table[0])}
    assert z["one"][:2] == z["other"][:2] == (0.0, 0.0)  # below the block that changed
    assert z["one"][2] > 3 and abs(z["other"][2]) < 2


def test_rows_of_noise_are_means_over_draws(table):
    rows, base, one = table
    found = {(row.model, row.layer): row for row in rows if row.task == "rsa"}
    assert len({row.key for row in rows}) == len(rows) and {row.seed for row in rows} == {5}
    settings = {"tokens": 150, "seed": 5, "data": "plain"}
    drawn = [
        compare_encoders(base, {"n": noise_encoder(base, one, 5 + draw, "n")}, TEXTS, **settings) for draw in range(3)
    ]
    top = [row.value for rows in drawn for row in rows if row.layer == 3 and row.measure == "rsa_cosine_pearson"]
    row = found["noise of one", 3]
    assert row.value == pytest.approx(np.mean(top), abs=1e-6)
    assert row.high - row.low > 2 * 1.96 * np.std(top, ddof=1)
    assert {row.model for row in rows if row.task == "null"} == {"one", "other"}


def test_panels_and_table(table):
    (figure,) = beyond_size.EXPERIMENT.figures(table[0], SimpleNamespace())
    panels = {panel.title: [curve.label for curve in panel.curves] for panel in figure.panels}
    assert panels == {
        "one": ["one", "random change"],
        "other": ["other", "random change"],
        "z": ["one", "other"],
    }
    text = beyond_size.EXPERIMENT.tables([dataclasses.replace(row, seed=None) for row in table[0]], SimpleNamespace())
    lines = text["beyond_size"].splitlines()
    assert lines[0] == "| z | layer 0 | layer 1 | layer 2 | layer 3 |" and lines[2].startswith("| one | 0.0 | 0.0 | ")
