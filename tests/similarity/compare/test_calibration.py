"""Calibrated values whose null varies with the sample."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import calibrated_draws
import numpy as np
import pytest
import torch

from bertft.runs.rows import Row
from bertft.similarity.compare import calibration, nulls
from bertft.similarity.compare.calibration import FEWEST, Tie, calibrated, tie
from bertft.similarity.compare.plan import Plan

ROW = Row("t", "rsa", "toy", 0, "rsa_cosine_pearson", 0.4, 0.3, 0.55, 9999, 0)
SAMPLED = replace(calibrated_draws.PLAN, sample=400)
MEASURES = ("rsa_cosine_pearson", "cka_debiased")


def drawn(pairing: str, seed: int, plan: Plan = SAMPLED, loud: float = 0.8) -> dict[str, Row]:
    """Return the rows of layer 0 of a pair of random spaces, whose sample is a fifth of all texts."""
    g = torch.Generator().manual_seed(seed)
    lengths = calibrated_draws.lengths_of(400, g)
    rows = calibrated_draws.rows_of(*calibrated_draws.pair(pairing, lengths, g, loud), lengths, plan)
    return {row.measure: row for row in rows if row.model == "t" and row.layer == 0}


def by_the_sample_alone(monkeypatch, work):
    """Return the result of ``work`` with the null of the sample, as if it were too small for a tie."""
    with monkeypatch.context() as patch:
        patch.setattr(nulls, "_tie", lambda *_: None)
        return work()


@pytest.mark.parametrize("measure", MEASURES)
def test_unrelated_texts_are_nearer_to_zero_than_by_the_null_of_the_sample_alone(measure, monkeypatch):
    """The last stimuli of eight texts in ten have a long vector in common: their share of a sample moves its null."""
    plain, mended = [], []
    for seed in range(20):
        work = partial(drawn, "unrelated", seed)
        plain.append(by_the_sample_alone(monkeypatch, work)[f"{measure}_calibrated"])
        mended.append(work()[f"{measure}_calibrated"])
    covers = lambda found: sum(row.low <= 0 <= row.high for row in found)
    size = lambda found: float(np.square([row.value for row in found]).mean() ** 0.5)
    assert covers(plain) <= 15 and covers(mended) >= 17
    assert size(mended) < 0.9 * size(plain)


def test_unrelated_texts_of_alike_stimuli_are_at_zero_however_few_are_sampled(monkeypatch):
    """Stimuli of one text are alike: in a sample of 40 of 400 texts they make a null of 0.05, of all texts 0.005."""
    g, lengths = torch.Generator().manual_seed(0), torch.full((400,), 5)
    groups = torch.repeat_interleave(torch.arange(400), 5)
    for _ in range(5):
        x, y = (torch.randn(400, 12, generator=g)[groups] + torch.randn(2000, 12, generator=g) for _ in range(2))
        work = partial(calibrated_draws.rows_of, x, y, lengths, replace(SAMPLED, sample=200))
        sampled, found = (
            {(row.measure, row.layer): row.value for row in rows}
            for rows in (by_the_sample_alone(monkeypatch, work), work())
        )
        for measure in MEASURES:
            assert sampled[f"{measure}_null", 0] > 0.03 and abs(found[f"{measure}_calibrated", 0]) < 0.015
            # one null everywhere: that of the row, of the largest over the only layer, and of the calibrated value
            value, null = found[measure, 0], found[f"{measure}_null", 0]
            assert found[f"{measure}_calibrated", 0] == pytest.approx((value - null) / (1 - null), abs=1e-12)
            assert found[f"{measure}_null_max", None] == pytest.approx(null, abs=1e-12)


@pytest.mark.parametrize("measure", MEASURES)
def test_equal_spaces_are_exactly_one(measure):
    plan, lengths = calibrated_draws.PLAN, torch.full((300,), 4)
    x = calibrated_draws.read(lengths, torch.Generator().manual_seed(0))
    rows = {row.measure: row for row in calibrated_draws.rows_of(x, x.clone(), lengths, plan)}
    row = rows[f"{measure}_calibrated"]
    assert row.value == pytest.approx(1, abs=1e-9) and row.low == pytest.approx(row.high, abs=1e-6)


def test_the_numbers_of_a_seed_are_always_the_same():
    assert drawn("half-related", 0) == drawn("half-related", 0)


def test_a_value_without_an_interval_is_calibrated_like_one_with(measure="cka_debiased_calibrated"):
    plan = replace(SAMPLED, intervals=False)
    with_ends, without = drawn("half-related", 0)[measure], drawn("half-related", 0, plan)[measure]
    assert with_ends.value == without.value and with_ends.low < with_ends.value and without.low is None


def test_a_tie_is_the_regression_of_the_totals_of_texts():
    """The null moves by half of what moves the measure, and by something of its own."""
    g = torch.Generator().manual_seed(0)
    groups = torch.repeat_interleave(torch.arange(200), torch.randint(1, 6, (200,), generator=g))
    of_value, own = torch.randn(2, len(groups), generator=g, dtype=torch.float64)
    found = tie(of_value, 0.5 * of_value + 0.1 * own, groups)
    totals = torch.zeros(2, 200, dtype=torch.float64).index_add_(1, groups, torch.stack([of_value, own]))
    slope, error = np.polyfit(*totals.numpy(), 1)[0], 0.1 * float(totals[1].std()) * 200**0.5 / len(groups)
    assert found is not None and found.slope == pytest.approx(0.5 + 0.1 * slope)
    assert found.error == pytest.approx(error, rel=0.01) and found.quantile == pytest.approx(1.972, abs=1e-3)


def test_few_texts_and_influences_without_a_value_have_no_tie():
    groups, influence = torch.arange(FEWEST - 1), torch.arange(FEWEST - 1.0)
    assert tie(influence, influence, groups) is None
    groups, influence = torch.arange(FEWEST), torch.arange(float(FEWEST))
    assert tie(influence, influence, groups) is not None
    assert tie(influence, influence / 0, groups) is None


def test_a_value_within_rounding_has_no_slope_but_the_error_of_its_null():
    groups = torch.arange(FEWEST)
    of_null = torch.randn(FEWEST, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = tie(of_null * calibration.EXACT, of_null, groups)
    assert found is not None and found.slope == 0 and found.error == pytest.approx(float(of_null.std()) / FEWEST**0.5)


def test_each_half_of_an_interval_is_what_value_and_null_do_not_share():
    """Of v = 0.4 and z = 0.2, g = 0.75 of an error of the null moves the value, divided by 0.8."""
    found = calibrated(ROW, 0.2, 1.0, Tie(0.4, 0.05, 2.0))
    low, high = (np.hypot(0.7 * half, 0.75 * 0.05 * 2.0) / 0.8 for half in (0.1, 0.15))
    assert (found.value, found.value - found.low, found.high - found.value) == pytest.approx((0.25, low, high))


def test_a_null_that_moves_more_than_its_value_turns_the_interval_around():
    found = calibrated(ROW, 0.2, 1.0, Tie(4.0, 0.0, 2.0))
    assert (found.value - found.low, found.high - found.value) == pytest.approx((2 * 0.15 / 0.8, 2 * 0.1 / 0.8))


def test_without_a_tie_the_interval_is_that_of_the_value():
    found = calibrated(ROW, 0.2, 1.0)
    assert (found.value, found.low, found.high) == pytest.approx((0.25, 0.125, 0.4375))


def test_a_null_moves_with_its_value_and_to_the_share_of_pairs_within_texts_of_all_stimuli():
    """A quarter of all stimuli is sampled: three quarters of the shifts."""
    found = Tie(0.5, 0.0, 2.0, (-0.04, -0.08))
    assert found.null_beside(0.3, 0.35, 0.2, 0.25) == pytest.approx(0.2 - 0.06 + 0.5 * (0.3 - 0.35 + 0.03))
    assert found.null_beside(0.35, 0.35, 0.2, 1.0) == 0.2
