"""rsa: estimates, bootstrap and permutation test.

Against SciPy, explicit weights and the nominal size of the test.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial.distance import pdist, squareform

from bertft.errors import BertftError
from bertft.similarity import pairwise_rsa
from bertft.similarity.pairwise_rsa import _bootstrap, block_sums, matrix, rsa


def data(n: int = 40, seed: int = 0, noise: float = 1.0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=g, dtype=torch.float64) + 1
    return x, x @ torch.randn(6, 5, generator=g, dtype=torch.float64) + noise * torch.randn(
        n, 5, generator=g, dtype=torch.float64
    )


@pytest.mark.parametrize("metric", ["cosine", "correlation", "sqeuclidean", "euclidean", "manhattan"])
@pytest.mark.parametrize("compare", ["pearson", "spearman", "kendall"])
def test_estimate_equals_scipy(metric, compare):
    x, y = data()
    name = {"manhattan": "cityblock"}.get(metric, metric)
    function = {"pearson": stats.pearsonr, "spearman": stats.spearmanr, "kendall": stats.kendalltau}[compare]
    expected = function(pdist(x.numpy(), name), pdist(y.numpy(), name))[0]
    result = rsa(x, y, metric, compare)
    assert result.estimate == pytest.approx(expected, abs=1e-10)
    assert (result.low, result.high, result.p_value, result.n, result.groups) == (None, None, None, 40, 40)


def test_the_result_reports_its_route():
    x, y = data(600)
    drawn = rsa(x, y, compare="kendall").route
    assert (drawn.name, drawn.pairs) == ("sampled", 100_000) and drawn.error == pytest.approx(2 / 3 / 100_000**0.5)
    expected = stats.kendalltau(pdist(x.numpy(), "cosine"), pdist(y.numpy(), "cosine"))[0]
    assert abs(rsa(x, y, compare="kendall").estimate - expected) < 4 * drawn.error
    whole = rsa(*data(40), compare="kendall").route
    assert (whole.pairs, whole.error) == (780, 0.0)
    assert rsa(x, y).route.name in ("linear", "tiles") and rsa(x, y).route.pairs is None


def test_arrays_and_tensors_give_equal_results():
    x, y = data()
    assert rsa(x.numpy(), y.numpy(), bootstrap=20) == rsa(x, y, bootstrap=20)


@pytest.mark.parametrize("compare", ["pearson", "kendall"])
def test_one_seed_gives_all_comparisons_the_same_resamples(compare):
    x, y = data(60)
    first, second = (rsa(x, t, compare=compare, bootstrap=6).resamples for t in (y, 3 * y))
    assert first == pytest.approx(second, abs=1e-9) and len(set(first.tolist())) == 6


@pytest.mark.parametrize("tile", [1, 5, 7, 100])
def test_sums_by_group_do_not_depend_on_the_strips(tile, monkeypatch):
    x, y = data(12)
    sizes = np.array([3, 1, 4, 2, 2])
    group = np.repeat(np.arange(5), sizes)
    a, b = (matrix(t, "sqeuclidean", "pearson") for t in (x, y))
    wanted = [np.eye(5)[group].T @ values @ np.eye(5)[group] for values in (a, b, a * a, b * b, a * b)]
    monkeypatch.setattr(pairwise_rsa, "TILE", tile)
    for found, expected in zip(block_sums(x, y, "sqeuclidean", "pearson", sizes), wanted, strict=True):
        np.testing.assert_allclose(found - found.mean(), expected - expected.mean(), rtol=0, atol=1e-9)


def test_kendall_is_resampled_at_most_a_hundred_times():
    x, y = data(8)
    assert len(rsa(x, y, compare="kendall", bootstrap=300).resamples) == 100


@pytest.mark.parametrize("compare", ["pearson", "cosine", "rho_a"])
def test_bootstrap_counts_no_pair_of_copies(compare):
    x, y = data(12)
    sizes = np.array([3, 1, 4, 2, 2])
    group = np.repeat(np.arange(5), sizes)
    a, b = matrix(x, "sqeuclidean", compare), matrix(y, "sqeuclidean", compare)
    blocks = block_sums(x, y, "sqeuclidean", compare, sizes)
    drawn = _bootstrap(blocks, compare, sizes, 50, np.random.default_rng(2))
    draws = np.random.default_rng(2).multinomial(5, np.full(5, 0.2), size=50)
    for weights, value in zip(draws, drawn, strict=True):
        items = np.concatenate([np.repeat(i, weights[group[i]]) for i in range(12)])
        i, j = (items[t] for t in np.triu_indices(len(items), 1))
        k, l_ = a[i, j][i != j], b[i, j][i != j]
        if compare == "cosine":
            expected = k @ l_ / np.sqrt((k @ k) * (l_ @ l_))
        else:  # rho_a is a correlation of the sample's ranks, which have no ties here
            expected = np.corrcoef(k, l_)[0, 1]
        assert value == pytest.approx(expected, abs=1e-10)


def test_interval_contains_the_estimate_and_widens_with_clusters():
    g = torch.Generator().manual_seed(0)
    sentence = torch.arange(240) // 8
    common = torch.randn(30, 10, generator=g)[sentence]
    change = torch.randn(30, 10, generator=g)[sentence]
    x = common + 0.3 * torch.randn(240, 10, generator=g)
    y = x + change + 0.3 * torch.randn(240, 10, generator=g)
    alone = rsa(x, y, bootstrap=300)
    clustered = rsa(x, y, bootstrap=300, groups=sentence)
    assert clustered.groups == 30
    for result in (alone, clustered):
        assert result.low < result.estimate < result.high
    assert clustered.high - clustered.low > 1.3 * (alone.high - alone.low)
    shuffled = torch.randperm(240, generator=g)
    names = np.array([f"s{i}" for i in sentence.tolist()])[shuffled.numpy()]
    again = rsa(x[shuffled], y[shuffled], bootstrap=300, groups=names)
    assert again.estimate == pytest.approx(clustered.estimate, abs=1e-6)


def test_resampled_rho_a_is_that_of_the_sample_if_every_group_is_drawn_once():
    x = torch.arange(12).double().unsqueeze(1) // 2  # distances with many ties
    y = torch.cat([x, torch.randn(12, 1, generator=torch.Generator().manual_seed(0)).double()], 1)
    sizes = np.array([3, 1, 4, 2, 2])
    once = SimpleNamespace(multinomial=lambda n, p, size: np.ones((size, len(p)), dtype=int))
    blocks = block_sums(x, y, "sqeuclidean", "rho_a", sizes)
    expected = rsa(x, y, "sqeuclidean", "rho_a").estimate
    assert _bootstrap(blocks, "rho_a", sizes, 2, once) == pytest.approx([expected] * 2, abs=1e-12)
    assert expected < rsa(x, y, "sqeuclidean", "spearman").estimate - 0.01


@pytest.mark.parametrize("compare", ["pearson", "spearman"])
def test_resamples_are_centred_on_the_estimate(compare):
    g = torch.Generator().manual_seed(1)
    sentence = torch.arange(60) // 5
    x, y = (torch.randn(12, 8, generator=g)[sentence] + 0.3 * torch.randn(60, 8, generator=g) for _ in range(2))
    found = rsa(x, y, compare=compare, bootstrap=200, groups=sentence)
    assert np.mean(found.resamples) == pytest.approx(found.estimate, abs=1e-12)
    assert (found.low, found.high) == pytest.approx(np.percentile(found.resamples, (2.5, 97.5)))


def test_permutation_test_sees_a_relation_and_is_deterministic():
    x, y = data()
    result = rsa(x, y, permutations=199)
    assert result.p_value == pytest.approx(1 / 200)
    assert rsa(x, y, permutations=199) == result
    assert rsa(x, data(seed=5)[0], permutations=199, seed=1).p_value > 0.05


def rejections(runs: int, permutations: int, equal: bool, seed: int = 0) -> float:
    """Return the share of true nulls rejected at 5 %, for unrelated spaces with strong sentence effects."""
    rejected = 0
    for run in range(runs):
        g = torch.Generator().manual_seed(seed + run)
        lengths = torch.full((20,), 5) if equal else torch.randint(2, 9, (20,), generator=g)
        groups = torch.repeat_interleave(torch.arange(20), lengths)
        x, y = (
            torch.randn(20, 8, generator=g)[groups] + 0.5 * torch.randn(len(groups), 8, generator=g) for _ in range(2)
        )
        rejected += rsa(x, y, permutations=permutations, groups=groups, seed=run).p_value <= 0.05
    return rejected / runs


@pytest.mark.simulation
@pytest.mark.parametrize("equal", [True, False])
def test_true_nulls_are_rejected_at_their_rate(equal):
    rate = rejections(2000, 199, equal)
    assert 0.04 <= rate <= 0.06


def test_groups_of_several_sizes_do_not_reject_a_true_null():
    # if groups of different sizes swapped places, sentence effects alone would be significant in two of three runs
    assert rejections(60, 99, equal=False) < 0.15


def test_constant_dissimilarities_are_an_error():
    _, y = data(4)
    with pytest.raises(BertftError, match="all dissimilarities"):
        rsa(torch.eye(4, dtype=torch.float64), y, "sqeuclidean")


def test_bad_input():
    x, y = data()
    with pytest.raises(BertftError, match="metric must be one of"):
        rsa(x, y, "hamming")
    with pytest.raises(BertftError, match="compare must be one of"):
        rsa(x, y, "cosine", "tau")
    with pytest.raises(BertftError, match=r"expected x \(N, D\)"):
        rsa(x, y[1:])
    with pytest.raises(BertftError, match="at least 3 stimuli, found 2"):
        rsa(x[:2], y[:2])
    with pytest.raises(BertftError, match="groups must name"):
        rsa(x, y, groups=[1, 2])
    with pytest.raises(BertftError, match="the sizes of the 3 groups all differ"):
        rsa(x[:6], y[:6], groups=[0, 1, 1, 2, 2, 2], permutations=9)
    with pytest.raises(BertftError, match="at least 2 groups, found 1"):
        rsa(x, y, groups=[1] * 40, bootstrap=10)
    with pytest.raises(BertftError, match="kendall"):
        rsa(x, y, compare="kendall", permutations=10)
    for name in ("bootstrap", "permutations"):
        with pytest.raises(BertftError, match=f"rsa: {name} must be at least 0, found -1"):
            rsa(x, y, **{name: -1})


def test_matrix_equals_squareform():
    x, _ = data(10)
    assert matrix(x, "cosine", "cosine") == pytest.approx(squareform(pdist(x.numpy(), "cosine")), abs=1e-12)


def test_two_groups_are_enough_for_a_bootstrap():
    x, y = data(6)
    two = rsa(x, y, groups=np.array([0, 0, 0, 1, 1, 1]), bootstrap=20, seed=1)
    assert two.groups == 2 and len(two.resamples) == 20 and two.low <= two.high
    with pytest.raises(BertftError, match="at least 2 groups, found 1"):
        rsa(x, y, groups=np.zeros(6, dtype=int), bootstrap=20)


@pytest.mark.parametrize("compare", ["pearson", "spearman"])
def test_ranks_and_mean_of_many_stimuli_are_read_off_drawn_pairs(compare, monkeypatch):
    """300 stimuli have 44,850 pairs, of which a million are drawn; the error is that of such a draw."""
    x, y = data(300)
    sizes = np.full(100, 3)
    exact = block_sums(x, y, "euclidean", compare, sizes)
    monkeypatch.setattr(pairwise_rsa, "EXACT", 299)
    monkeypatch.setattr(pairwise_rsa, "GRID", 4096)
    drawn = block_sums(x, y, "euclidean", compare, sizes)
    scale = np.sqrt(exact[2].sum() * exact[3].sum())
    for found, expected in zip(drawn[2:], exact[2:], strict=True):
        assert abs(found - expected).sum() < 5e-3 * scale
    for found, expected, squares in zip(drawn[:2], exact[:2], exact[2:4], strict=True):
        deviation = math.sqrt(squares.sum() / (300 * 299))
        assert abs(found.sum() - expected.sum()) / (300 * 299) < 5 * deviation / 1000  # of the mean of a million


def test_resamples_moved_to_the_estimate_stay_correlations():
    moved = pairwise_rsa._centred(np.array([0.5, 0.9]), 0.95)
    assert moved.tolist() == pytest.approx([0.75, 1.0]) and moved.max() <= 1
    assert pairwise_rsa._centred(np.array([-0.5, -0.9]), -0.95).min() >= -1


def test_a_grid_of_ranks_begins_and_ends_at_the_extreme_entries(monkeypatch):
    monkeypatch.setattr(pairwise_rsa, "EXACT", 10)
    monkeypatch.setattr(pairwise_rsa, "GRID", 3)
    x = data(20)[0]
    ranks = pairwise_rsa._form(x, "sqeuclidean", "spearman")
    lowest, second, *_, last, highest = np.unique(pdist(x.numpy(), "sqeuclidean"))
    assert ranks(np.array([lowest]))[0] < ranks(np.array([second]))[0]
    assert ranks(np.array([last]))[0] < ranks(np.array([highest]))[0]
