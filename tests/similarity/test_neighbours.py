"""Mutual nearest neighbours and RBF CKA.

Dense matrices, golden values and leaving stimuli out.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bertft.errors import BertftError
from bertft.similarity import neighbours
from bertft.similarity.neighbours import mutual_knn, nearest, overlap_influence, rbf_cka


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(neighbours, "TILE", 64)
    monkeypatch.setattr(neighbours, "STRIP", 64)


def spaces(n: int, seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 12, generator=g, dtype=torch.float64) + 2
    return x, x[:, :9] + torch.randn(n, 9, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("metric", ["cosine", "sqeuclidean"])
@pytest.mark.parametrize(("n", "k"), [(300, 10), (65, 3), (12, 11), (12, 1)])
def test_neighbours_are_those_of_the_whole_matrix(metric, n, k):
    x, y = spaces(n)

    def dense(t: torch.Tensor) -> torch.Tensor:
        if metric == "cosine":
            unit = torch.nn.functional.normalize(t)
            similar = unit @ unit.T
        else:
            similar = -torch.cdist(t, t, compute_mode="donot_use_mm_for_euclid_dist")
        return similar.fill_diagonal_(-torch.inf).topk(k, dim=1).indices

    for t in (x, y):
        assert torch.equal(nearest(t, k, metric=metric).sort(1).values, dense(t).sort(1).values)
    shared = [len(set(a) & set(b)) / k for a, b in zip(dense(x).tolist(), dense(y).tolist(), strict=True)]
    assert mutual_knn(x, y, k, metric=metric).tolist() == pytest.approx(shared)


def test_neighbours_of_equal_and_of_unrelated_spaces():
    x, _ = spaces(400)
    assert mutual_knn(x, x).mean() == 1
    assert mutual_knn(x, 3 * x).mean() == 1  # cosine ignores scale
    unrelated = mutual_knn(x, spaces(400, seed=7)[0]).mean()
    assert unrelated == pytest.approx(10 / 399, abs=0.015)


def test_influences_on_the_overlap_equal_leaving_parts_of_the_texts_out():
    x, y = spaces(150)
    groups = torch.arange(150) // 5
    influence, part = overlap_influence(x, y, groups, 6)
    assert part.tolist() == (torch.arange(150) // 15).tolist()
    left = torch.stack([mutual_knn(x[part != p], y[part != p], 6).mean() for p in range(10)])
    found = torch.zeros(10, dtype=torch.float64).index_add_(0, part, influence) * 10 / 150
    assert found.tolist() == pytest.approx((9 * (left.mean() - left)).tolist(), abs=1e-12)
    few = overlap_influence(x[:8], y[:8], groups[:8], 7)  # fewer texts than parts, and neighbours than are listed
    assert few[1].tolist() == groups[:8].tolist() and few[0].isfinite().all()


def test_influences_on_the_overlap_list_all_others_of_few_stimuli():
    """Without the two stimuli of a text, eleven others are left, and each is a neighbour."""
    x, y = spaces(14)
    for k in (9, 10, 11):
        influence, part = overlap_influence(x, y, torch.arange(14) // 2, k)
        left = torch.stack([mutual_knn(x[part != p], y[part != p], k).mean() for p in range(7)])
        found = torch.zeros(7, dtype=torch.float64).index_add_(0, part, influence) * 7 / 14
        assert found.tolist() == pytest.approx((6 * (left.mean() - left)).tolist(), abs=1e-12)


def dense_rbf(x: torch.Tensor, y: torch.Tensor) -> float:
    centre = torch.eye(len(x), dtype=torch.float64) - 1 / len(x)
    kernels = []
    for t in (x, y):
        squares = torch.cdist(t, t, compute_mode="donot_use_mm_for_euclid_dist").square()
        kernels.append(centre @ torch.exp(-squares / (2 * 0.25 * np.median(squares.numpy()))) @ centre)
    k, l_ = kernels
    return float((k * l_).sum() / (k.norm() * l_.norm()))


def test_rbf_cka():
    rng = np.random.RandomState(1337)
    x = rng.randn(100, 10)
    y = rng.randn(100, 10) + x
    value, low, high = rbf_cka(torch.tensor(x), torch.tensor(y))
    assert value == pytest.approx(0.65483, abs=5e-6) and low is high is None
    x, y = spaces(200)
    assert rbf_cka(x, y)[0] == pytest.approx(dense_rbf(x, y), abs=1e-10)


def test_the_width_of_many_stimuli_is_the_median_of_a_million_drawn_pairs():
    x = torch.randn(1001, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    i, j = torch.randint(0, 1001, (2, 1_000_000), generator=torch.Generator().manual_seed(0))
    assert neighbours._Gaussian(x, 0.5).width == 0.5 * float(np.median((x[i] - x[j]).square().sum(1).numpy()))


def test_rbf_cka_takes_three_stimuli_or_more():
    x = torch.tensor([[0.0, 1.0], [2.0, 0.5], [1.0, -1.0]])
    assert rbf_cka(x, x)[0] == pytest.approx(1)
    with pytest.raises(BertftError, match="n >= 3"):
        rbf_cka(x[:2], x[:2])


def test_rbf_interval_equals_the_jackknife(monkeypatch):
    """The kernels keep the widths of the full sample."""
    x, y = spaces(300)
    widths = {tuple(t.shape[1:]): neighbours._Gaussian(t - t.mean(0), 0.5).width for t in (x, y)}
    groups = torch.arange(300) // 3
    value, low, high = rbf_cka(x, y, groups)
    start = neighbours._Gaussian.__init__

    def fixed(self, t: torch.Tensor, sigma: float) -> None:
        start(self, t, sigma)
        self.width = widths[tuple(t.shape[1:])]

    monkeypatch.setattr(neighbours._Gaussian, "__init__", fixed)
    left_out = np.array([rbf_cka(x[groups != g], y[groups != g])[0] for g in range(100)])
    error = np.sqrt(99 / 100 * ((left_out - left_out.mean()) ** 2).sum())
    assert low < value < high
    # Fisher's z stretches an interval near 1 a little
    assert (high - low) / 2 == pytest.approx(1.984 * error, rel=0.1)


def weighted_rbf(x: torch.Tensor, y: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Return CKA of the kernels of `rbf_cka` if stimulus i has the ``share`` p_i of the sample."""
    kernels = []
    for t in (x, y):
        squares = torch.cdist(t, t, compute_mode="donot_use_mm_for_euclid_dist").square()
        kernels.append(torch.exp(-squares / (0.5 * np.median(squares.numpy()))))

    def hsic(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        centred = [t - (t @ share)[:, None] - share @ t + share @ t @ share for t in (a, b)]
        return share @ (centred[0] * centred[1]) @ share

    k, l_ = kernels
    return hsic(k, l_) / (hsic(k, k) * hsic(l_, l_)).sqrt()


def test_rbf_influence_is_the_derivative_by_a_stimulus_share():
    x, y = spaces(90)
    share = torch.full((90,), 1 / 90, dtype=torch.float64, requires_grad=True)
    value = weighted_rbf(x, y, share)
    slope = torch.autograd.grad(value, share)[0]
    found, influence = neighbours.rbf_alignment(x, y)
    assert found == pytest.approx(value.item(), abs=1e-12)
    torch.testing.assert_close(influence, slope - (slope * share).sum().detach(), rtol=1e-8, atol=1e-10)
    assert neighbours.rbf_alignment(x, y, influences=False) == (found, None)


def test_the_gaussian_kernel_is_centred_on_both_sides():
    x, _ = spaces(30)
    squares = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").square()
    centre = torch.eye(30, dtype=torch.float64) - 1 / 30
    for sigma in (0.5, 1.0):
        kernel = torch.exp(-squares / (2 * sigma**2 * np.median(squares.numpy())))
        torch.testing.assert_close(neighbours.gaussian_kernel(x, sigma=sigma), centre @ kernel @ centre)


def test_refusals():
    x, y = spaces(20)
    with pytest.raises(BertftError, match=r"k must lie in 1\.\.19"):
        mutual_knn(x, y, 20)
    with pytest.raises(BertftError, match="expected x"):
        mutual_knn(x, y[:5])
    with pytest.raises(BertftError, match="metric must be cosine or sqeuclidean"):
        nearest(x, 3, metric="dot")
    with pytest.raises(BertftError, match="norm 0"):
        mutual_knn(torch.zeros(20, 3), y)
    with pytest.raises(BertftError, match="cosine needs rows of at least one number"):
        mutual_knn(torch.zeros(20, 0), y)
    for one, other, name in ((x * torch.nan, y, "x"), (x, y * torch.nan, "y")):
        with pytest.raises(BertftError, match=rf"rbf_cka: .*\b{name}\b.*NaN"):
            rbf_cka(one, other)
    with pytest.raises(BertftError, match="are equal"):
        rbf_cka(torch.ones(20, 3), y)


def test_float64_rows_are_compared_in_float64():
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0 - 1e-12, 0.0], [2.0 + 1e-12, 0.0], [5.0, 0.0]], dtype=torch.float64)
    # The second row is nearer to the third than to the first or fourth, the last one nearest to the fourth.
    assert nearest(x, 1, metric="sqeuclidean")[:, 0].tolist() == [2, 2, 1, 1, 3]
