"""Intervals of streamed similarity.

Influences against leaving stimuli out, and simulated coverage.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import stdtrit
from scipy.stats import kstest

from bertft.errors import BertftError
from bertft.ops.moments.layout import Moments
from bertft.runs.intervals import clustered_difference, clustered_interval, positive_interval
from bertft.similarity import measures
from bertft.similarity.augmented_rows import augment, pack, translation, unpack
from bertft.similarity.influence import (
    angle_interval,
    anisotropy_influence,
    augmented_rows,
    cka_influence,
    cka_intervals,
    dimension_influence,
    entries,
    rsa_influence,
    rsa_intervals,
    scatter_influence,
    shape_influence,
)
from bertft.similarity.moments import CrossMoments
from bertft.similarity.reservoir import Reservoir, _priorities


def sample(sentences: int, generator: torch.Generator, words: int = 10, d: int = 12):
    """Return x and y (1, T, d), groups (T,): tokens of sentences with a common part, of about ``words`` words."""
    lengths = torch.randint(words // 2, words * 3 // 2 + 1, (sentences,), generator=generator)
    groups = torch.repeat_interleave(torch.arange(sentences), lengths)

    def normal(rows: int) -> torch.Tensor:
        return torch.randn(rows, d, generator=generator, dtype=torch.float64)

    t = len(groups)
    common, change = normal(sentences)[groups], normal(sentences)[groups]
    x = 0.7 * common + normal(t) + 0.5
    y = x + 0.8 * change + 0.5 * normal(t)
    return x[None], y[None], groups, lengths


@pytest.mark.parametrize("metric", ["dot", "cosine", "correlation", "sqeuclidean"])
def test_influence_is_what_leaving_a_stimulus_out_changes(metric):
    g = torch.Generator().manual_seed(3)
    x, y, *_ = sample(12, g)
    n = x.shape[1]
    moments = CrossMoments(1, 1, metric).update(x, y)
    rows = [augment(t[0], mean, metric) for t, mean in zip((x, y), moments.means(0, 0), strict=True)]
    for influence_of, measure in ((rsa_influence, "rsa"), (cka_influence, "cka")):
        influence = influence_of(moments.moments(0, 0), *rows)
        assert influence.mean().item() == pytest.approx(0, abs=1e-12)
        whole = getattr(moments, measure)()
        left_out = torch.zeros(n, dtype=torch.float64)
        for i in range(n):
            others = torch.arange(n) != i
            part = CrossMoments(1, 1, metric).update(x[:, others], y[:, others])
            left_out[i] = (n - 1) * (whole - getattr(part, measure)())
        assert torch.corrcoef(torch.stack([influence, left_out]))[0, 1] > 0.995
        assert (left_out.std() / influence.std()).item() == pytest.approx(1, abs=10 / n)


def test_influences_are_the_same_in_inference_mode():
    x, y, *_ = sample(20, torch.Generator().manual_seed(3), d=6)

    def influences():
        whole = CrossMoments(1, 1, "dot").update(x, y)
        given = whole.moments(0, 0), *augmented_rows(whole, 0, x[0], y[0])
        return rsa_influence(*given), scatter_influence(measures.procrustes, *given)

    with torch.inference_mode():
        inside = influences()
    assert all(torch.equal(a, b) for a, b in zip(inside, influences(), strict=True))


@pytest.mark.parametrize("name", ["cca", "svcca", "pwcca", "procrustes", "linear_r2"])
def test_influence_on_functions_of_scatter_is_what_leaving_out_changes(name):
    g = torch.Generator().manual_seed(3)
    x, y, *_ = sample(50, g, d=6)
    x, y, n = x, y[..., :5], x.shape[1]
    whole = CrossMoments(1, 1, "dot").update(x, y)
    rows = augmented_rows(whole, 0, x[0], y[0])
    influence = scatter_influence(getattr(measures, name), whole.moments(0, 0), *rows)
    left_out = torch.zeros(n, dtype=torch.float64)
    for i in range(n):
        others = torch.arange(n) != i
        part = CrossMoments(1, 1, "dot").update(x[:, others], y[:, others])
        left_out[i] = (n - 1) * (getattr(whole, name)() - getattr(part, name)())
    assert influence.mean().item() == pytest.approx(0, abs=1e-12)
    assert torch.corrcoef(torch.stack([influence, left_out]))[0, 1] > 0.995
    assert (left_out.std() / influence.std()).item() == pytest.approx(1, abs=10 / n)


@pytest.mark.parametrize("metric", ["cosine", "sqeuclidean", "dot"])
def test_influence_on_the_cosine_comparison(metric):
    x, y, *_ = sample(12, torch.Generator().manual_seed(3))
    n = x.shape[1]
    whole = CrossMoments(1, 1, metric).update(x, y)
    rows = augmented_rows(whole, 0, x[0], y[0])
    influence = rsa_influence(whole.moments(0, 0), *rows, entries(whole, 0))
    left_out = torch.zeros(n, dtype=torch.float64)
    for i in range(n):
        others = torch.arange(n) != i
        part = CrossMoments(1, 1, metric).update(x[:, others], y[:, others])
        left_out[i] = (n - 1) * (whole.rsa("cosine") - part.rsa("cosine"))
    assert influence.mean().item() == pytest.approx(0, abs=1e-12)
    assert torch.corrcoef(torch.stack([influence, left_out]))[0, 1] > 0.995
    assert (left_out.std() / influence.std()).item() == pytest.approx(1, abs=10 / n)


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("name", ["effective_dimension", "anisotropy"])
def test_influence_on_measures_of_one_space_is_what_leaving_out_changes(name, side):
    x, y, *_ = sample(50, torch.Generator().manual_seed(3), d=6)
    metric, of = ("cosine", anisotropy_influence) if name == "anisotropy" else ("dot", dimension_influence)
    y, n = y[..., :5], x.shape[1]
    whole = CrossMoments(1, 1, metric).update(x, y)
    z = augment((x, y)[side][0], whole.means(0, 0)[side], metric)
    influence = of(whole.moments(0, 0), z, side)
    left_out = torch.zeros(n, dtype=torch.float64)
    for i in range(n):
        others = torch.arange(n) != i
        part = CrossMoments(1, 1, metric).update(x[:, others], y[:, others])
        left_out[i] = (n - 1) * (getattr(whole, name)()[side] - getattr(part, name)()[side])
    assert influence.mean().item() == pytest.approx(0, abs=1e-12)
    assert torch.corrcoef(torch.stack([influence, left_out]))[0, 1] > 0.995
    assert (left_out.std() / influence.std()).item() == pytest.approx(1, abs=10 / n)


def test_influence_on_the_shape_distance():
    x, y, *_ = sample(50, torch.Generator().manual_seed(3), d=6)
    n = x.shape[1]
    whole = CrossMoments(1, 1, "dot").update(x, y)
    influence = shape_influence(whole.moments(0, 0), *augmented_rows(whole, 0, x[0], y[0]))
    left_out = torch.zeros(n, dtype=torch.float64)
    for i in range(n):
        others = torch.arange(n) != i
        part = CrossMoments(1, 1, "dot").update(x[:, others], y[:, others])
        left_out[i] = (n - 1) * (whole.shape_distance() - part.shape_distance())
    assert torch.corrcoef(torch.stack([influence, left_out]))[0, 1] > 0.995
    assert (left_out.std() / influence.std()).item() == pytest.approx(1, abs=10 / n)
    same = CrossMoments(1, 1, "dot").update(x, x)
    assert (shape_influence(same.moments(0, 0), *augmented_rows(same, 0, x[0], x[0])) == 0).all()


def test_intervals_of_measures_that_are_not_correlations():
    influence = torch.randn(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    groups, size = torch.arange(40) // 4, {"stimuli": 40, "sentences": 10}
    one = positive_interval(7.0, influence, groups, **size)
    assert one.low > 0 and one.high / 7 == pytest.approx(7 / one.low)
    assert math.log(one.high / 7) == pytest.approx(stdtrit(9, 0.975) * one.standard_error / 7)
    angle = angle_interval(0.4, 0.1 * influence, groups, **size)
    near = stdtrit(9, 0.975) * angle.standard_error
    assert (angle.low, angle.high) == pytest.approx((0.4 - near, 0.4 + near), abs=0.15 * near)
    for value in (0.0, 1e-5, 1.9e-4):  # rounding has no interval
        below = angle_interval(value, 0 * influence, groups, **size)
        assert below.value == value and math.isnan(below.low) and math.isnan(below.high)
    above = angle_interval(2.1e-4, 1e-4 * influence, groups, **size)
    assert 0 <= above.low < 2.1e-4 < above.high


def test_a_difference_uses_paired_influences():
    influence = torch.randn(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    groups = torch.arange(40) // 4
    size = {"stimuli": 40, "sentences": 10}
    same = clustered_difference(0.7, 0.7, (influence, influence), groups, **size)
    assert same == (0, 0, 0, 0)
    nothing = clustered_difference(0.7, 0.5, (influence, torch.zeros(40).double()), groups, **size)
    alone = clustered_interval(0.0, influence, groups, **size)
    assert nothing.standard_error == alone.standard_error and nothing.value == pytest.approx(0.2)
    assert nothing.high - nothing.value == pytest.approx(nothing.value - nothing.low)


@pytest.mark.parametrize("cuts", [(), (11, 23), (1, 2, 3)])
def test_samples_of_parts_give_the_sample_of_the_stream(cuts):
    x, _, _, lengths = sample(40, torch.Generator().manual_seed(0))
    spaces = list(x.split(lengths.tolist(), 1))
    whole, parts = Reservoir(90, seed=4), []
    for ids in torch.arange(40).tensor_split(cuts):
        part = Reservoir(90, seed=4)
        for reservoir in (whole, part):
            reservoir.offer(ids, lengths[ids], torch.cat([spaces[i] for i in ids.tolist()], 1))
        state, limit = part.state()
        parts.append(Reservoir(90, seed=4).restore(state, limit))
    chosen = whole.best_of([entry for part in parts for entry in part.listing()])
    union = parts[0].of_parts(*(part.only(chosen) for part in parts))
    assert union.ids == whole.ids and union.counts == whole.counts and union.stimuli == whole.stimuli
    assert torch.equal(union.contents()[1][0], whole.contents()[1][0])


def test_unpack_inverts_pack():
    g = torch.Generator().manual_seed(5)
    x, y, *_ = sample(6, g)
    m = CrossMoments(1, 1, ("cosine", "sqeuclidean")).update(x, y[..., :7]).moments(0, 0)
    for name, a, b in zip(Moments._fields, m, unpack(*pack(m)), strict=True):
        assert torch.equal(a, b), name


def _intervals(x, y, groups, lengths, capacity=10**9, metric="cosine"):
    moments = CrossMoments(1, 1, metric).update(x, y)
    reservoir = Reservoir(capacity, seed=1)
    reservoir.offer(torch.arange(len(lengths)), lengths, x, y)
    kept, (a, b) = reservoir.contents()
    return [f(moments, kept, a, b, sentences=len(lengths))[0] for f in (rsa_intervals, cka_intervals)]


def test_a_reservoir_gives_nearly_the_interval_of_all_stimuli():
    x, y, groups, lengths = sample(600, torch.Generator().manual_seed(0))
    for whole, part in zip(_intervals(x, y, groups, lengths), _intervals(x, y, groups, lengths, 2000), strict=True):
        assert part.value == whole.value
        assert part.standard_error == pytest.approx(whole.standard_error, rel=0.12)
        assert whole.low < whole.value < whole.high


def test_reservoir_does_not_depend_on_the_order_of_the_stream():
    x, y, _, lengths = sample(50, torch.Generator().manual_seed(0))
    parts = list(
        zip(range(50), lengths.tolist(), x.split(lengths.tolist(), 1), y.split(lengths.tolist(), 1), strict=True)
    )
    kept = []
    for order in (parts, parts[::-1]):
        reservoir = Reservoir(100, seed=4)
        for index, length, a, b in order:
            reservoir.offer(torch.tensor([index]), torch.tensor([length]), a, b)
        assert 80 < reservoir.stimuli <= 100
        kept.append(reservoir.contents())
    assert torch.equal(kept[0][0], kept[1][0])
    assert all(torch.equal(a, b) for a, b in zip(kept[0][1], kept[1][1], strict=True))


def test_a_long_stream_reuses_rows():
    """Sentences reuse the same memory, also after a checkpoint, and keep their own vectors."""
    g = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 30, (3000,), generator=g)
    reservoir, places = Reservoir(100, seed=4), set()
    for index, length in enumerate(lengths.tolist()):
        x = torch.full((2, length, 3), float(index))
        reservoir.offer(torch.tensor([index]), torch.tensor([length]), x, x[..., :2] + 0.5)
        places.add(tuple(space.data_ptr() for space in reservoir._room))
        if index == 2000:
            assert len(places) == 1
            reservoir, places = Reservoir(100, seed=4).restore(*reservoir.state()), set()
    assert len(places) == 1 and reservoir._used <= 100 and 70 < reservoir.stimuli <= 100
    first = np.argsort(_priorities(4, np.arange(3000)))[: len(reservoir.ids)]
    assert reservoir.ids == sorted(first.tolist()) and reservoir.counts == lengths[reservoir.ids].tolist()
    groups, (x, y) = reservoir.contents()
    expected = torch.tensor(reservoir.ids)[groups]
    assert (x == expected[:, None]).all() and (y == expected[:, None] + 0.5).all()


def test_priorities_are_uniform_and_unrelated_between_seeds():
    a, b = (_priorities(seed, np.arange(20_000)) for seed in (0, 1))
    assert kstest(a, "uniform").pvalue > 0.01 and kstest(b, "uniform").pvalue > 0.01
    for lag in range(3):
        assert abs(np.corrcoef(a[lag:], b[: len(b) - lag])[0, 1]) < 0.03
        assert lag == 0 or abs(np.corrcoef(a[lag:], a[:-lag])[0, 1]) < 0.03


def test_a_sentence_may_come_in_parts():
    x, _, _, lengths = sample(30, torch.Generator().manual_seed(0))
    whole, halves = Reservoir(60, seed=4), Reservoir(60, seed=4)
    whole.offer(torch.arange(30), lengths, x)
    first = lengths // 2
    cuts = torch.stack([first, lengths - first], dim=1).flatten()
    halves.offer(torch.arange(30).repeat_interleave(2), cuts, x)
    assert torch.equal(whole.contents()[0], halves.contents()[0])
    assert torch.equal(whole.contents()[1][0], halves.contents()[1][0])


def test_equal_spaces_have_no_width():
    x, _, groups, lengths = sample(20, torch.Generator().manual_seed(0))
    for interval in _intervals(x, x, groups, lengths):
        assert interval.low == interval.high == interval.value == pytest.approx(1, abs=1e-12)


def test_a_constant_matrix_has_no_influence():
    x = torch.eye(5, dtype=torch.float64)[None]  # all rows are equally far apart
    y = torch.randn(1, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for spaces in ((x, y), (y, x)):
        m = CrossMoments(1, 1, "sqeuclidean", float64=True).update(*spaces)
        rows = (augment(t[0], mean, "sqeuclidean") for t, mean in zip(spaces, m.means(0, 0), strict=True))
        found = rsa_influence(m.moments(0, 0), *rows)
        assert found.shape == (5,) and found.isnan().all()


def test_bad_input():
    with pytest.raises(BertftError, match="at least 2 sentences, found 1"):
        clustered_interval(0.5, torch.ones(3), torch.zeros(3, dtype=torch.long), stimuli=3, sentences=1)
    with pytest.raises(BertftError, match="capacity must be positive"):
        Reservoir(0)
    assert Reservoir(1).capacity == 1
    with pytest.raises(BertftError, match="found 0"):
        Reservoir(5).contents()
    x, y, groups, _ = sample(5, torch.Generator().manual_seed(0))
    with pytest.raises(BertftError, match="pairs='diagonal'"):
        rsa_intervals(CrossMoments(1, 1, pairs="all").update(x, y), groups, x, y, sentences=5)


def coverage(
    sentences: int, runs: int, reservoir: int, parts: int = 1, seed: int = 0
) -> tuple[float, float, float, float]:
    """Return the coverage of RSA and CKA intervals, and each mean standard error over the true standard deviation."""
    generator = torch.Generator().manual_seed(seed)
    population = CrossMoments(1, 1, "cosine")
    for _ in range(parts):  # the error of the truth must be small beside the intervals
        population.update(*sample(20_000, generator)[:2])
    truth = population.rsa().item(), population.cka().item()
    found = np.zeros((runs, 2, 4))
    for run in range(runs):
        found[run] = _intervals(*sample(sentences, generator), capacity=reservoir)
    value, low, high, error = np.moveaxis(found, 2, 0)
    covered = ((low <= truth) & (np.array(truth) <= high)).mean(0)
    ratio = error.mean(0) / value.std(0, ddof=1)
    return (*covered, *ratio)


def test_coverage_at_300_sentences():
    rsa, cka, rsa_error, cka_error = coverage(300, 80, 1000)
    for covered in (rsa, cka):
        assert abs(covered - 0.95) < 3.3 * math.sqrt(0.95 * 0.05 / 80)
    for ratio in (rsa_error, cka_error):
        assert ratio == pytest.approx(1, abs=0.27)


@pytest.mark.simulation
def test_coverage_at_2000_sentences():
    """93-97 % of intervals cover, up to the simulation's own error. Run with ``-m simulation``."""
    runs = 600
    rsa, cka, *_ = coverage(2000, runs, 5000, parts=20)
    for covered in (rsa, cka):
        assert 0.93 - 2 * math.sqrt(0.95 * 0.05 / runs) < covered < 0.97 + 2 * math.sqrt(0.95 * 0.05 / runs)


def space_coverage(sentences: int, runs: int, reservoir: int, parts: int = 1) -> tuple[float, float]:
    """Return the coverage of intervals of effective dimension and anisotropy, for spaces with sentence effects."""
    generator = torch.Generator().manual_seed(0)
    # a ball has the largest possible effective dimension, where influences vanish and estimates can only be lower
    axes = torch.linspace(0.2, 2, 12, dtype=torch.float64)

    def both(x: torch.Tensor) -> list[CrossMoments]:
        return [CrossMoments(1, 1, metric).update(x, x) for metric in ("dot", "cosine")]

    population = both(axes * sample(20_000, generator)[0])
    for _ in range(parts - 1):
        x = axes * sample(20_000, generator)[0]
        for moments in population:
            moments.update(x, x)
    truth = [population[0].effective_dimension()[0].item(), population[1].anisotropy()[0].item()]
    covered = np.zeros((runs, 2), dtype=bool)
    for run in range(runs):
        x, _, _, lengths = sample(sentences, generator)
        x, kept = axes * x, Reservoir(reservoir, seed=1)
        kept.offer(torch.arange(sentences), lengths, x)
        groups, (rows,) = kept.contents()
        raw, cosine = both(x)
        for j, (m, metric, value, influence_of, interval) in enumerate((
            (raw, "dot", raw.effective_dimension()[0].item(), dimension_influence, positive_interval),
            (cosine, "cosine", cosine.anisotropy()[0].item(), anisotropy_influence, clustered_interval),
        )):  # fmt: skip
            influence = influence_of(m.moments(0, 0), augment(rows[0], m.means(0, 0)[0], metric), 0)
            found = interval(value, influence, groups, stimuli=x.shape[1], sentences=sentences)
            covered[run, j] = found.low <= truth[j] <= found.high
    return tuple(covered.mean(0))


def test_coverage_of_measures_of_one_space():
    for covered in space_coverage(300, 80, 1000):
        assert abs(covered - 0.95) < 3.3 * math.sqrt(0.95 * 0.05 / 80)


@pytest.mark.simulation
def test_coverage_of_measures_of_one_space_at_2000_sentences():
    runs = 600
    for covered in space_coverage(2000, runs, 5000, parts=20):
        assert 0.93 - 2 * math.sqrt(0.95 * 0.05 / runs) < covered < 0.97 + 2 * math.sqrt(0.95 * 0.05 / runs)


@pytest.mark.parametrize("metric", ["dot", "sqeuclidean"])
def test_a_translation_moves_augmented_rows_to_another_mean(metric):
    x, old, new = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    moved = augment(x, old[0], metric) @ translation(old[0], new[0], metric).T
    torch.testing.assert_close(moved, augment(x, new[0], metric))
