"""Pairs, permutations and texts that are drawn: how many, from which seed, and never a stimulus with itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist, squareform
from scipy.stats import kendalltau

from bertft.errors import BertftError
from bertft.ops import rdm_correlation, reference
from bertft.similarity import neighbours, pairwise_rsa, rsa
from bertft.similarity.compare.nulls import _some_texts
from bertft.similarity.pairwise_rsa import _check_tests


def space(n: int, seed: int = 0, d: int = 3) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 1


@pytest.fixture
def pairs(monkeypatch):
    """Return the list of (i, j) whose distances are taken one by one."""
    found, original = [], reference.paired_distance

    def noting(x, i, j, metric):
        found.append((i, j))
        return original(x, i, j, metric)

    monkeypatch.setattr(reference, "paired_distance", noting)
    return found


def check_uniform(i: torch.Tensor, j: torch.Tensor, n: int, size: int) -> None:
    """Check that ``size`` pairs are uniform among those of two different stimuli, to 6 standard errors."""
    assert len(i) == len(j) == size and not (i == j).any()
    for drawn, kinds in ((i, n), (j, n), ((j - i) % n - 1, n - 1)):
        counts, expected = torch.bincount(drawn, minlength=kinds), size / kinds
        assert len(counts) == kinds and float((counts - expected).abs().max()) < 6 * expected**0.5


def test_ranks_of_many_stimuli_are_read_off_a_million_pairs(pairs, monkeypatch):
    monkeypatch.setattr(pairwise_rsa, "EXACT", 29)
    first = pairwise_rsa._form(space(30), "euclidean", "spearman")
    i, j = pairs.pop()
    check_uniform(i, j, 30, 1_000_000)
    seeded = torch.Generator().manual_seed(0)
    assert torch.equal(i, torch.randint(0, 30, (1_000_000,), generator=seeded))
    distances = pdist(space(30).numpy())
    assert abs(first(distances).mean()) < 0.5 and first(distances).max() - first(distances).min() > 425  # of 435 ranks
    monkeypatch.setattr(pairwise_rsa, "EXACT", 30)
    exact = pairwise_rsa._form(space(30), "euclidean", "spearman")
    assert pairs == [] and sorted(exact(distances)) == pytest.approx(np.arange(435) - 217)


def test_a_kernel_of_many_stimuli_has_the_median_of_a_million_pairs(pairs):
    assert neighbours._Gaussian(space(1000), 0.5).width > 0 and pairs == []
    neighbours._Gaussian(space(1001), 0.5)
    ((i, j),) = pairs
    drawn = torch.randint(0, 1001, (2, 1_000_000), generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.stack([i, j]), drawn)


def test_kendall_is_resampled_on_30_000_of_200_000_pairs(pairs, monkeypatch):
    sizes = []

    def noting(a, b):
        sizes.append((len(a), len(b)))
        return kendalltau(a, b)

    monkeypatch.setattr("scipy.stats.kendalltau", noting)
    rng = np.random.default_rng(4)
    found = pairwise_rsa._bootstrap_kendall(space(12), space(12, 1), "cosine", np.full(6, 2), 3, rng)
    assert len(found) == 3 and sizes == [(30_000, 30_000)] * 3
    (i, j), again = pairs
    assert again[0] is i and again[1] is j
    check_uniform(i, j, 12, 200_000)


@pytest.mark.parametrize(("samples", "exact"), [(44, False), (45, True), (46, True)])
def test_sampled_kendall_takes_all_pairs_where_there_are_no_more(samples, exact, pairs):
    x, y = space(10)[None], space(10, 1)[None]
    out, how = rdm_correlation(x, y, compare="kendall", samples=samples, seed=7, return_route=True)
    i, j = pairs[0]
    assert (how.name, how.pairs, how.dtype) == ("sampled", 45 if exact else 44, torch.float64)
    if exact:
        assert how.error == 0 and torch.equal(torch.stack([i, j]), torch.triu_indices(10, 10, 1))
    else:
        assert how.error == pytest.approx(2 / (3 * 44**0.5), rel=1e-12) and not (i == j).any()
        assert torch.equal(i, torch.randint(0, 10, (44,), generator=torch.Generator().manual_seed(7)))
    a, b = (pdist(t[0].numpy(), "cosine") for t in (x, y))
    if exact:
        assert out.item() == pytest.approx(kendalltau(a, b)[0], abs=1e-12)


def test_drawn_pairs_are_uniform(pairs):
    rdm_correlation(space(10)[None], space(10, 1)[None], compare="kendall", samples=40, seed=1)
    assert len(pairs[0][0]) == 40
    pairs.clear()
    rdm_correlation(space(700)[None], space(700, 1)[None], compare="kendall")
    check_uniform(*pairs[0], 700, 100_000)


@pytest.mark.parametrize("compare", ["pearson", "cosine", "spearman"])
def test_the_p_value_counts_permutations_that_are_at_least_as_similar(compare):
    """Six groups of two, permuted as in a definition; some of 60 permutations are the identity or nearly so."""
    x, y = space(12), space(12) + 0.8 * space(12, 1)
    groups = np.repeat(np.arange(6), 2)
    found = rsa(x, y, "euclidean", compare, groups=groups, permutations=60, seed=3)
    a, b = (squareform(pdist(t.numpy())) for t in (x, y))
    above, i, rng = 0, np.triu_indices(12, 1), np.random.default_rng(3)

    def similarity(order):
        p, q = a[i], b[np.ix_(order, order)][i]
        if compare == "cosine":
            return p @ q / np.sqrt(p @ p * (q @ q))
        if compare == "spearman":
            p, q = p.argsort().argsort(), q.argsort().argsort()
        return np.corrcoef(p, q)[0, 1]

    observed = similarity(np.arange(12))
    assert found.estimate == pytest.approx(observed, abs=1e-9)
    for _ in range(60):
        order = np.concatenate([[2 * g, 2 * g + 1] for g in rng.permutation(6)])
        above += similarity(order) >= observed - 1e-9
    assert found.p_value == (1 + above) / 61


def test_a_permutation_that_changes_nothing_counts():
    """Two groups of one size are swapped or not, and both ways the matrices are as similar."""
    x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [5.0, 0.0], [5.0, 1.0]])
    assert rsa(x, x, "sqeuclidean", groups=[0, 0, 1, 1], permutations=9).p_value == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("pearson", [1, 1], -1, 0), "bootstrap must be at least 0, found -1"),
        (("pearson", [1, 1], 0, -1), "permutations must be at least 0, found -1"),
        (("kendall", [1, 1], 0, 1), "has no permutation test"),
        (("pearson", [3], 1, 0), "at least 2 groups, found 1"),
        (("pearson", [3], 0, 1), "at least 2 groups, found 1"),
        (("pearson", [3, 2], 0, 1), "the sizes of the 2 groups all differ"),
        (("pearson", [5000, 5000, 1], 0, 1), "at most 10000 stimuli, found 10001"),
    ],
)
def test_impossible_tests_are_refused(arguments, words):
    compare, sizes, *counts = arguments
    with pytest.raises(BertftError, match=words):
        _check_tests(compare, np.array(sizes), *counts)


@pytest.mark.parametrize(
    "arguments",
    [
        ("kendall", [1, 1], 5, 0),
        ("pearson", [3], 0, 0),
        ("pearson", [3, 2], 1, 0),
        ("pearson", [3, 3, 2], 0, 1),
        ("pearson", [5000, 5000], 0, 1),
        ("pearson", [5000, 5000, 1], 1, 0),
    ],
)
def test_possible_tests_are_taken(arguments):
    compare, sizes, *counts = arguments
    _check_tests(compare, np.array(sizes), *counts)


def test_some_texts_are_whole_and_fill_the_room_exactly():
    groups = torch.arange(20).repeat_interleave(3)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(5))
    for most, texts in ((30, 10), (29, 9), (3, 1), (60, 20)):
        some = _some_texts(groups, most, 5)
        assert groups[some].unique().tolist() == sorted(order[:texts].tolist()) and len(some) == 3 * texts


def test_ties_are_measured_by_the_variance_of_ranks_whatever_their_mean():
    rng = np.random.default_rng(0)
    a, b = (squareform(rng.integers(1, 9, 15).astype(float)) for _ in range(2))
    blocks = [np.array([[matrix.sum()]]) for matrix in (a, b, a * a, b * b, a * b)]
    first, second = (squareform(matrix).std() for matrix in (a, b))
    found = pairwise_rsa._share_of_ties(np.array([6]), blocks)
    assert found == pytest.approx(12 * first * second / (15**2 - 1), rel=1e-12)
