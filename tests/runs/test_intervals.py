"""Intervals and p-values, against independent computations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from bertft.errors import BertftError
from bertft.runs import intervals
from bertft.runs.intervals import (
    bootstrap_weights,
    centred_resamples,
    clustered_difference,
    clustered_error,
    clustered_interval,
    clustered_mean,
    correlation_interval,
    holm,
    paired,
    percentile_score,
    positive_interval,
    ratio_interval,
    resamples_of,
    share_interval,
)


def test_resamples_draw_as_many_items_as_there_are_after_the_sample_itself():
    weights = resamples_of(7, 50, 3)
    assert weights.shape == (51, 7) and (weights[0] == 1).all() and (weights.sum(1) == 7).all()
    assert (weights[1:] == bootstrap_weights(7, 50, np.random.default_rng(3))).all()
    assert (resamples_of(7, 50, 4)[1:] != weights[1:]).any()


def test_a_ratio_has_the_percentile_interval_of_scipy():
    generator = np.random.default_rng(0)
    below = generator.integers(1, 20, 60).astype(float)
    above = np.floor(below * generator.random(60))
    low, high = ratio_interval(above, below, 1, resamples=20_000)
    wanted = stats.bootstrap(
        (above, below), lambda a, b, axis: a.sum(axis) / b.sum(axis), paired=True, vectorized=True,
        n_resamples=20_000, method="percentile", rng=generator,
    ).confidence_interval  # fmt: skip
    # An end of 20,000 draws errs by sqrt(0.025 * 0.975 / 20000) / density, 0.012 of its distance here; two such ends.
    assert (low, high) == pytest.approx(wanted, abs=5 * 1.5 * 0.012 * (high - low) / 2)
    assert ratio_interval(above, below, 1, resamples=100) == ratio_interval(above, below, 1, resamples=100)


def test_a_ratio_skips_resamples_without_a_denominator():
    low, high = ratio_interval(np.array([1.0, 0.0, 0.0]), np.array([1.0, 0.0, 0.0]), 0, resamples=200)
    assert (low, high) == (1.0, 1.0)  # a resample without the first item has neither


def test_percentiles_leave_out_what_is_no_number_and_hold_the_value():
    values = np.array([5.0, 1.0, math.nan, 2.0, 3.0, math.inf])
    score = percentile_score(values, 9)
    assert (score.value, score.high, score.n) == (5.0, 5.0, 9)
    assert score.low == pytest.approx(np.percentile([1, 2, 3], 2.5))
    assert percentile_score(np.array([2.0, math.nan]), 1).low == 2.0


def test_centred_resamples_have_the_value_as_mean_and_stay_in_range():
    drawn = np.array([[0.2, 0.3, 0.4], [0.9, 0.95, 1.0]])
    found = centred_resamples(np.array([[0.5], [1.0]]), drawn, 0.0)
    assert found[0].tolist() == pytest.approx([0.5, 0.4, 0.5, 0.6])
    assert found[1].tolist() == pytest.approx([1.0, 0.95, 1.0, 1.0])


def test_a_correlation_and_its_interval_follow_from_whole_groups():
    generator = torch.Generator().manual_seed(0)
    groups = torch.randint(12, (80,), generator=generator).sort().values
    groups = torch.unique(groups, return_inverse=True)[1]
    x = torch.randn(80, generator=generator, dtype=torch.float64)
    y = x + torch.randn(80, generator=generator, dtype=torch.float64)
    value, low, high = correlation_interval(x, y, groups, 300, 5)
    assert value == pytest.approx(np.corrcoef(x, y)[0, 1], rel=1e-12)
    count = int(groups.max()) + 1
    drawn = torch.randint(count, (300, count), generator=torch.Generator().manual_seed(5))
    members = [torch.nonzero(groups == g)[:, 0] for g in range(count)]
    by_hand = []
    for row in drawn:
        chosen = torch.cat([members[g] for g in row])
        by_hand.append(np.corrcoef(x[chosen], y[chosen])[0, 1])
    assert (low, high) == pytest.approx(np.quantile(by_hand, [0.025, 0.975]), rel=1e-9)


def test_a_mean_over_groups_of_one_is_students_interval():
    values = torch.tensor([0.1, 0.4, 0.2, 0.9, 0.5], dtype=torch.float64)
    mean, low, high = clustered_mean(values, torch.tensor([7, 3, 9, 1, 0]))
    wanted = stats.ttest_1samp(values.numpy(), 0).confidence_interval()
    assert (mean, low, high) == pytest.approx((float(values.mean()), wanted.low, wanted.high), rel=1e-12)
    assert clustered_mean(values, torch.zeros(5)) == (mean, None, None)


def test_influences_are_added_up_within_sentences():
    influence, groups = torch.tensor([1.0, 2.0, -1.0, -2.0]).double(), torch.tensor([0, 0, 1, 2])
    error, t = clustered_error(influence, groups, stimuli=40, sentences=30)
    assert error == pytest.approx(math.sqrt(30 * np.var([3, -1, -2], ddof=1)) / 40, rel=1e-12)
    assert t == pytest.approx(stats.t.ppf(0.975, 2), rel=1e-12)
    with pytest.raises(BertftError, match="at least 2 sentences, found 1"):
        clustered_error(torch.ones(3), torch.zeros(3, dtype=torch.long), 3, 1)


def test_intervals_are_symmetric_on_their_own_scales():
    influence, groups = torch.tensor([1.0, 2.0, -1.0, -2.0]).double(), torch.tensor([0, 0, 1, 2])
    size = {"stimuli": 400, "sentences": 30}
    error, t = clustered_error(influence, groups, 400, 30)
    found = clustered_interval(0.6, influence, groups, **size)
    assert math.atanh(found.high) - math.atanh(0.6) == pytest.approx(t * error / (1 - 0.36), rel=1e-9)
    assert math.atanh(0.6) - math.atanh(found.low) == pytest.approx(t * error / (1 - 0.36), rel=1e-9)
    found = positive_interval(7.0, influence, groups, **size)
    assert found.high / 7 == pytest.approx(7 / found.low, rel=1e-12) == pytest.approx(math.exp(t * error / 7))
    found = clustered_difference(0.7, 0.5, (influence, 0 * influence), groups, **size)
    assert (found.low, found.high) == pytest.approx((0.2 - t * error, 0.2 + t * error), rel=1e-12)
    assert clustered_difference(0.7, 0.7, (influence, influence), groups, **size)[:3] == (0, 0, 0)


def test_a_paired_difference_has_the_p_value_of_its_standard_error():
    base = np.array([[0.5, 0.4, 0.6, 0.5, 0.5], [0.5] * 5, [0.5] * 5])
    tuned = np.array([[0.7, 0.7, 0.8, 0.6, 0.7], [0.5] * 5, [0.6] * 5])
    first, same, certain = paired(base, tuned)
    drawn = (tuned - base)[0, 1:]
    assert first.value == pytest.approx(0.2) and first.p == pytest.approx(2 * stats.norm.sf(0.2 / drawn.std()))
    assert (first.low, first.high) == pytest.approx((np.percentile(drawn, 2.5), np.percentile(drawn, 97.5)))
    assert (same.value, same.p) == (0, 1) and certain.p == 0


def test_holm_adjusts_as_in_the_paper():
    # Sorted 0.01, 0.02, 0.03, 0.9 times 4, 3, 2, 1, and never below one before it.
    assert holm(np.array([0.03, 0.01, 0.9, 0.02])) == pytest.approx([0.06, 0.04, 0.9, 0.06])
    assert holm(np.array([0.6, 0.7])).tolist() == [1.0, 1.0] and len(holm(np.array([]))) == 0


def test_percentiles_are_those_of_95_percent():
    score = percentile_score(np.concatenate([[50.0], np.random.default_rng(0).permutation(101)]), 7)
    assert (score.value, score.low, score.high, score.n) == (50.0, 2.5, 97.5, 7)
    below, above = percentile_score(np.array([-1.0, 0, 1]), 2), percentile_score(np.array([3.0, 0, 1]), 2)
    assert (below.low, below.high) == (-1.0, 0.975) and (above.low, above.high) == (0.025, 3.0)


def test_centred_resamples_are_clipped_at_both_bounds():
    found = centred_resamples(np.array([[0.9], [-0.9]]), np.array([[0.2, 0.8], [-0.2, -0.8]]), -1.0)
    assert found.tolist() == [pytest.approx([0.9, 0.6, 1.0]), pytest.approx([-0.9, -0.6, -1.0])]


def test_two_groups_are_enough_for_an_interval():
    values, groups = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64), torch.tensor([4, 4, 9])
    # totals about the mean 3 are -3 and 3
    half = stats.t.ppf(0.975, 1) * math.sqrt(2 / 1 * 18) / 3
    assert clustered_mean(values, groups) == pytest.approx((3.0, 3.0 - half, 3.0 + half))
    error, t = clustered_error(torch.tensor([2.0, -2.0]).double(), torch.tensor([0, 1]), stimuli=2, sentences=2)
    assert (error, t) == pytest.approx((math.sqrt(2 * 8) / 2, stats.t.ppf(0.975, 1)))


def test_an_interval_without_width_has_the_value_at_both_ends():
    groups, size = torch.arange(4), {"stimuli": 4, "sentences": 4}
    none, some = torch.zeros(4, dtype=torch.float64), torch.arange(4.0, dtype=torch.float64)
    for found in (
        clustered_interval(0.3, none, groups, **size),
        clustered_interval(1.0, some, groups, **size),
        share_interval(0.3, none, groups, **size),
        share_interval(0.0, some, groups, **size),
    ):
        assert found.low == found.high == found.value
    assert math.isnan(clustered_interval(math.nan, some, groups, **size).low)


def test_the_interval_of_a_share_is_symmetric_in_the_log_odds():
    influence, groups = torch.tensor([1.0, 2.0, -1.0, -2.0]).double(), torch.tensor([0, 0, 1, 2])
    found = share_interval(0.2, influence, groups, stimuli=400, sentences=30)
    error, t = clustered_error(influence, groups, 400, 30)
    odds = [math.log(p / (1 - p)) for p in found[:3]]
    step = t * error / (0.2 * 0.8)
    assert (found.value, found.standard_error) == (0.2, error)
    assert (odds[1], odds[2]) == pytest.approx((odds[0] - step, odds[0] + step))


@pytest.mark.parametrize("chunk", [2_000_000, 21, 1])
def test_a_ratio_is_that_of_its_resamples_whatever_the_chunks(chunk, monkeypatch):
    monkeypatch.setattr(intervals, "CHUNK", chunk)  # of 7 items: all resamples at once, three, and one
    above, below = np.array([0.0, 1, 2, 3, 1, 0, 4]), np.array([1.0, 1, 3, 3, 2, 5, 4])
    drawn = bootstrap_weights(7, 20, np.random.default_rng(6)).astype(float)
    wanted = np.quantile((drawn @ above) / (drawn @ below), [0.05, 0.95])
    assert ratio_interval(above, below, 6, resamples=20, level=0.9) == pytest.approx(wanted, rel=1e-12)


def test_a_correlation_keeps_its_digits_beside_a_large_mean():
    generator = torch.Generator().manual_seed(3)
    x, y = torch.randn(2, 60, generator=generator, dtype=torch.float64)
    groups = torch.arange(60) // 3
    plain = correlation_interval(x, y, groups, 40, 2)
    # Without centring, the squares of 1e7 would leave 2 digits.
    for moved in ((x + 1e7, y), (x, y + 1e7)):
        assert correlation_interval(*moved, groups, 40, 2) == pytest.approx(plain, abs=1e-8)


def test_stimuli_of_no_sentence_are_refused():
    with pytest.raises(BertftError, match="at least 2 sentences, found 0"):
        clustered_error(torch.zeros(0), torch.zeros(0, dtype=torch.long), 3, 1)


def test_a_value_alone_is_its_interval():
    score = percentile_score(np.array([2.0, math.nan, math.nan]), 1)
    assert (score.value, score.low, score.high, score.n) == (2.0, 2.0, 2.0, 1)


def test_an_error_or_a_room_of_one_leaves_an_interval():
    influence, groups = torch.tensor([3.0, -3.0, 1.0]).double(), torch.arange(3)
    size = {"stimuli": 2, "sentences": 3}
    error, t = clustered_error(influence, groups, 2, 3)
    assert error > 1
    for found in (clustered_interval(0.0, influence, groups, **size), share_interval(0.5, influence, groups, **size)):
        assert found.low < found.value < found.high and found.standard_error == error
    assert clustered_interval(0.0, influence, groups, **size).high == pytest.approx(math.tanh(t * error))
