"""Pooled seeds and differences of texts.

Formulas by hand, coverage by simulation.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from bertft.runs.pooling import less, own_text_differences, pool_seeds
from bertft.runs.rows import Row


def test_three_seeds_by_hand():
    rows = [Row("dep", "rsa", "wiki", 1, "x", v, v - 0.02, v + 0.04, 10, s) for s, v in enumerate((0.5, 0.6, 0.7))]
    (row,) = pool_seeds(rows)
    seeds = 4.302652729749464 * 0.1 / math.sqrt(3)
    assert row.value == pytest.approx(0.6) and row.seed is None and row.n == 10
    assert row.low == pytest.approx(0.6 - math.hypot(seeds, 0.02))
    assert row.high == pytest.approx(0.6 + math.hypot(seeds, 0.04))


def test_rows_of_one_seed_or_of_different_layers_are_not_pooled():
    rows = [Row("dep", "rsa", "wiki", layer, "x", 0.5, 0.4, 0.6, 10, 1) for layer in (0, 1)]
    assert [(r.layer, r.low, r.high, r.seed) for r in pool_seeds(rows)] == [(0, 0.4, 0.6, None), (1, 0.4, 0.6, None)]
    bare = [Row("dep", "rsa", "wiki", 0, "x", 0.5, seed=s) for s in (1, 2)]
    assert [(r.low, r.high) for r in pool_seeds(bare)] == [(0.5, 0.5)]


def test_p_values_of_several_seeds_are_omitted_and_differences_kept():
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
def test_intervals_are_cut_at_the_bounds_of_the_measure(task, measure, values, ends):
    (row,) = pool_seeds(Row("m", task, "d", 0, measure, v, seed=s) for s, v in enumerate(values))
    assert (row.low, row.high) == ends


def test_measures_without_bounds_keep_their_whole_interval():
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
    """Simulate item errors that all seeds share and seed errors that they do not: 95 % of the intervals contain 0.

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


OWN = {"dep": "dep", "mnli": "mnli"}


def similar(seed: int, own: float, other: float) -> list[Row]:
    made = [("dep", own, 0.03), ("plain", other, 0.04), ("mnli", 0.9, 0.01)]
    return [
        Row("dep", "rsa", data, 1, "rsa_cosine_pearson", value, value - half, value + half, 100, seed)
        for data, value, half in made
    ]


def test_differences_are_own_text_minus_each_other_text():
    base = [Row("base", "finetune", "dep", None, "f1", 3.0)]
    found = {row.data: row for row in own_text_differences([*similar(1, 0.2, 0.5), *base], OWN)}
    assert list(found) == ["dep - plain", "dep - mnli"]
    row = found["dep - plain"]
    assert row.measure == "rsa_cosine_pearson_difference" and row.seed == 1 and row.n == 100 and row.layer == 1
    assert (row.value, row.low, row.high) == pytest.approx((-0.3, -0.35, -0.25))
    assert own_text_differences(similar(1, 0.2, 0.5)[1:], OWN) == []  # nothing on its own text


def test_a_shift_of_both_texts_by_a_seed_does_not_widen_the_difference():
    many = [row for seed, shift in ((1, 0.0), (2, 0.2), (3, 0.4)) for row in similar(seed, 0.2 + shift, 0.5 + shift)]
    pooled = pool_seeds(own_text_differences(many, OWN))
    (row,) = (row for row in pooled if row.data == "dep - plain")
    assert (row.value, row.low, row.high) == pytest.approx((-0.3, -0.35, -0.25))
    assert all(row.high - row.low > 0.5 for row in pool_seeds(many) if row.data != "mnli")


def test_intervals_of_a_difference_have_95_percent_coverage():
    rng = np.random.default_rng(0)
    a, b = 1 + rng.normal(size=4000), 0.5 * rng.normal(size=4000)
    inside = 0
    for x, y in zip(a, b, strict=True):
        _, low, high = less((x, x - 1.96, x + 1.96), (y, y - 0.98, y + 0.98))
        inside += low <= 1 <= high
    assert abs(inside / 4000 - 0.95) < 4 * math.sqrt(0.05 * 0.95 / 4000)


def test_each_end_of_a_difference_combines_opposite_ends():
    expected = (0.2, 0.2 - math.hypot(0.1, 0.03), 0.2 + math.hypot(0.3, 0.1))
    assert less((0.5, 0.4, 0.8), (0.3, 0.2, 0.33)) == pytest.approx(expected)


def test_a_difference_has_no_interval_unless_both_values_have_one():
    assert less((0.5, None, None), (0.25, 0.0, 1.0)) == (0.25, None, None)


@pytest.mark.parametrize("missing", range(4))
def test_an_end_that_is_missing_takes_the_interval_of_a_difference(missing):
    ends = [0.4, 0.8, 0.2, 0.33]
    ends[missing] = None
    assert less((0.5, *ends[:2]), (0.25, *ends[2:])) == (0.25, None, None)


def test_differences_of_texts_are_of_tuned_encoders_and_of_similarity_only():
    rows = [Row(model, task, data, 1, "cka_debiased", 0.5) for model, task, data in (
        ("base", "rsa", "dep"), ("base", "rsa", "plain"), ("dep", "structural", "dep"), ("dep", "structural", "plain"),
    )]  # fmt: skip
    assert own_text_differences(rows, OWN) == []


@pytest.mark.parametrize(("counts", "least"), [((100, 30), 30), ((30, 100), 30), ((None, 7), 7), ((None, None), None)])
def test_a_difference_counts_the_items_of_the_smaller_text(counts, least):
    own, other = (Row("dep", "rsa", d, 1, "x", v, None, None, n, 1) for d, v, n in zip(
        ("dep", "plain"), (0.5, 0.25), counts, strict=True))  # fmt: skip
    # The other text first: its row is not the last that counts.
    assert own_text_differences([other, own], OWN) == [
        Row("dep", "own_text", "dep - plain", 1, "x_difference", 0.25, None, None, least, 1)
    ]


def test_pooled_rows_keep_the_place_and_the_count_of_the_first():
    rows = [Row("dep", "rsa", "wiki", 1, name, 0.5, 0.4, 0.7, n, s) for s, n in ((3, 10), (4, 20)) for name in "xy"]
    assert pool_seeds(rows) == [Row("dep", "rsa", "wiki", 1, name, 0.5, 0.4, 0.7, 10, None) for name in "xy"]
