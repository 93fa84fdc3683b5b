"""Pooling seeds: against the formula by hand, and its coverage by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bertft.runs.pooling import pool_seeds
from bertft.runs.rows import Row


def test_three_seeds_by_hand():
    rows = [Row("dep", "rsa", "wiki", 1, "x", v, v - 0.02, v + 0.04, 10, s) for s, v in enumerate((0.5, 0.6, 0.7))]
    (row,) = pool_seeds(rows)
    seeds = 4.302652729749464 * 0.1 / math.sqrt(3)
    assert row.value == pytest.approx(0.6) and row.seed is None and row.n == 10
    assert row.low == pytest.approx(0.6 - math.hypot(seeds, 0.02))
    assert row.high == pytest.approx(0.6 + math.hypot(seeds, 0.04))


def test_one_seed_and_rows_that_are_not_alike_stay_apart():
    rows = [Row("dep", "rsa", "wiki", layer, "x", 0.5, 0.4, 0.6, 10, 1) for layer in (0, 1)]
    assert [(r.layer, r.low, r.high, r.seed) for r in pool_seeds(rows)] == [(0, 0.4, 0.6, None), (1, 0.4, 0.6, None)]
    bare = [Row("dep", "rsa", "wiki", 0, "x", 0.5, seed=s) for s in (1, 2)]
    assert [(r.low, r.high) for r in pool_seeds(bare)] == [(0.5, 0.5)]


def test_p_values_of_several_seeds_are_left_out_and_the_difference_is_not():
    names = ("micro_f1_difference", "micro_f1_difference_p", "dspr_difference_p_rank8", "uuas_difference_p_rbf")
    rows = [Row("dep", "edge", "pos", 0, name, v, seed=s) for name in names for s, v in enumerate((0.01, 0.5))]
    assert [row.measure for row in pool_seeds(rows)] == ["micro_f1_difference"]
    assert [row.measure for row in pool_seeds(row for row in rows if row.seed == 0)] == list(names)


@pytest.mark.parametrize(
    ("task", "measure", "values", "ends"),
    [
        ("finetune", "accuracy", (0.1, 0.9), (0, 1)),
        ("finetune", "las_conll18", (40.0, 90.0), (0, 100)),
        ("finetune", "f1", (40.0, 90.0), (0, 100)),
        ("edge", "mix_micro_f1", (0.1, 0.9), (0, 1)),
        ("edge", "cat_control_micro_f1", (0.1, 0.9), (0, 1)),
        ("edge", "class_1_f1", (0.1, 0.9), (0, 1)),
        ("structural", "control_uuas_rank8", (0.1, 0.9), (0, 1)),
        ("structural", "root_accuracy_orthogonal", (0.1, 0.9), (0, 1)),
        ("structural", "dspr", (0.1, 0.9), (-1, 1)),
        ("rsa", "rsa_cosine_pearson", (0.1, 0.9), (-1, 1)),
        ("words", "local_rsa_NOUN", (0.1, 0.9), (-1, 1)),
        ("similarity", "procrustes", (0.1, 0.9), (0, 1)),
        ("similarity", "svcca", (0.1, 0.9), (0, 1)),
    ],
)
def test_no_interval_leaves_what_the_measure_can_be(task, measure, values, ends):
    (row,) = pool_seeds(Row("m", task, "d", 0, measure, v, seed=s) for s, v in enumerate(values))
    assert (row.low, row.high) == ends


def test_what_has_no_bounds_keeps_its_whole_interval():
    for task, measure in (
        ("difference", "rsa_cosine_pearson"),
        ("edge", "micro_f1_difference"),
        ("edge", "selectivity"),
        ("structural", "uuas_selectivity_rank8"),
        ("edge", "expected_layer"),
        ("freeze", "trained_parameters"),
    ):
        (row,) = pool_seeds(Row("m", task, "d", 0, measure, v, seed=s) for s, v in enumerate((0.1, 0.9)))
        assert row.low < -1 and row.high > 1, measure


@pytest.mark.parametrize(("of_items", "of_seeds"), [(0.05, 0.01), (0.01, 0.05), (0.03, 0.03)])
def test_the_interval_covers_the_truth(of_items, of_seeds):
    """Items' error is common to the seeds, seeds' error is not: 95 % of intervals hold 0, within simulation error.

    Where both are alike in size the joined interval is a little wide (t's tail is added to a normal's): up to 99.5 %.
    """
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        items = rng.normal(0, of_items)
        values = items + rng.normal(0, of_seeds, 3)
        half = 1.96 * of_items
        rows = [
            Row("m", "t", "d", 0, "x", float(v), float(v - half), float(v + half), 9, s) for s, v in enumerate(values)
        ]
        (row,) = pool_seeds(rows)
        covered += row.low <= 0 <= row.high
    assert 0.935 <= covered / 1000 <= 0.995
