"""Own text less other text: seed by seed, and over seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bertft.runs.own_text import less, own_text_differences
from bertft.runs.pooling import pool_seeds
from bertft.runs.rows import Row

OWN = {"dep": "dep", "mnli": "mnli"}


def rows(seed: int, own: float, other: float) -> list[Row]:
    made = [("dep", own, 0.03), ("plain", other, 0.04), ("mnli", 0.9, 0.01)]
    return [
        Row("dep", "rsa", data, 1, "rsa_cosine_pearson", value, value - half, value + half, 100, seed)
        for data, value, half in made
    ]


def test_own_less_each_other_text():
    base = [Row("base", "finetune", "dep", None, "f1", 3.0)]
    found = {row.data: row for row in own_text_differences([*rows(1, 0.2, 0.5), *base], OWN)}
    assert list(found) == ["dep - plain", "dep - mnli"]
    row = found["dep - plain"]
    assert row.measure == "rsa_cosine_pearson_difference" and row.seed == 1 and row.n == 100 and row.layer == 1
    assert (row.value, row.low, row.high) == pytest.approx((-0.3, -0.35, -0.25))
    assert own_text_differences(rows(1, 0.2, 0.5)[1:], OWN) == []  # nothing on its own text


def test_a_seed_that_changes_both_texts_alike_does_not_widen_the_difference():
    many = [row for seed, shift in ((1, 0.0), (2, 0.2), (3, 0.4)) for row in rows(seed, 0.2 + shift, 0.5 + shift)]
    pooled = pool_seeds(own_text_differences(many, OWN))
    (row,) = (row for row in pooled if row.data == "dep - plain")
    assert (row.value, row.low, row.high) == pytest.approx((-0.3, -0.35, -0.25))
    assert all(row.high - row.low > 0.5 for row in pool_seeds(many) if row.data != "mnli")


def test_intervals_of_a_difference_cover_as_often_as_they_say():
    rng = np.random.default_rng(0)
    a, b = 1 + rng.normal(size=4000), 0.5 * rng.normal(size=4000)
    inside = 0
    for x, y in zip(a, b, strict=True):
        _, low, high = less((x, x - 1.96, x + 1.96), (y, y - 0.98, y + 0.98))
        inside += low <= 1 <= high
    assert abs(inside / 4000 - 0.95) < 4 * math.sqrt(0.05 * 0.95 / 4000)


def test_each_end_takes_the_far_ends_of_the_two():
    expected = (0.2, 0.2 - math.hypot(0.1, 0.03), 0.2 + math.hypot(0.3, 0.1))
    assert less((0.5, 0.4, 0.8), (0.3, 0.2, 0.33)) == pytest.approx(expected)


def test_no_interval_without_both():
    assert less((0.5, None, None), (0.25, 0.0, 1.0)) == (0.25, None, None)
