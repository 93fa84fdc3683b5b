"""The exact null of linear CKA against permutations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bertft.errors import BertftError
from bertft.ops.moments.layout import Moments
from bertft.similarity import CrossMoments, cka_null


def spaces(n: int, d: int, heavy: bool, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return two unrelated spaces (n, d) with a mean; their rows have tails of Student's t with 3 degrees if heavy."""
    g = np.random.default_rng(seed)
    scale = (lambda: g.standard_t(3, (n, 1))) if heavy else (lambda: 1.0)
    return g.normal(size=(n, d)) * scale() + 3, g.normal(size=(n, d)) * scale() - 1


def permuted(x: np.ndarray, y: np.ndarray, draws: int) -> np.ndarray:
    """Return linear CKA (draws,) of x with permutations of y, by definition."""
    g, x, y = np.random.default_rng(1), x - x.mean(0), y - y.mean(0)
    size = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return np.array([np.linalg.norm(x.T @ y[g.permutation(len(y))]) ** 2 / size for _ in range(draws)])


def check(n: int, d: int, heavy: bool, draws: int) -> None:
    x, y = spaces(n, d, heavy)
    sums = CrossMoments(1, 1, "dot", float64=True)
    sums.update(x[None, : n // 2], y[None, : n // 2]).update(x[None, n // 2 :], y[None, n // 2 :])
    mean, sd = (float(value) for value in cka_null(sums.moments(0, 0)))
    drawn = permuted(x, y, draws)
    assert abs(drawn.mean() - mean) < 4 * sd / np.sqrt(draws)
    centred = drawn - drawn.mean()
    error = np.sqrt((np.mean(centred**4) / np.mean(centred**2) ** 2 - 1) / draws) / 2  # of a standard deviation
    assert abs(drawn.std() / sd - 1) < 4 * error


@pytest.mark.parametrize(("n", "d", "heavy"), [(120, 30, False), (60, 8, True)])
def test_mean_and_spread_are_those_of_permutations(n, d, heavy):
    check(n, d, heavy, 1000)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "d", "heavy"), [(120, 30, False), (120, 300, False), (400, 64, True), (200, 16, True)])
def test_mean_and_spread_are_those_of_4000_permutations(n, d, heavy):
    check(n, d, heavy, 4000)


def test_every_permutation_of_five_stimuli():
    """With all 120 permutations, mean and variance are exact."""
    import itertools

    x, y = (t[:5, :3] for t in spaces(5, 3, True))
    sums = CrossMoments(1, 1, "dot", float64=True).update(x[None], y[None])
    x, y = x - x.mean(0), y - y.mean(0)
    size = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    every = np.array([np.linalg.norm(x.T @ y[list(p)]) ** 2 / size for p in itertools.permutations(range(5))])
    mean, sd = cka_null(sums.moments(0, 0))
    assert float(mean) == pytest.approx(every.mean(), rel=1e-10)
    assert float(sd) == pytest.approx(every.std(), rel=1e-9)


@pytest.mark.parametrize("first", [4, 30])
def test_the_null_does_not_depend_on_the_mean_that_sums_are_about(first):
    x, y = (torch.from_numpy(t)[None] for t in spaces(60, 5, heavy=True))
    whole = CrossMoments(1, 1, "dot", float64=True).update(x, y)
    apart = CrossMoments(1, 1, "dot", float64=True).start(x[:, :first] + 2, y[:, :first] - 1).update(x, y)
    for found, expected in zip(cka_null(apart.moments(0, 0)), cka_null(whole.moments(0, 0)), strict=True):
        assert float(found) == pytest.approx(float(expected), rel=1e-9)


def test_stacked_layers_have_the_null_of_each():
    sums = CrossMoments(2, 2, "dot", float64=True)
    sums.update(*(np.stack([t, 2 * t**2]) for t in spaces(30, 4, heavy=False)))
    each = [sums.moments(k, k) for k in range(2)]
    mean, sd = cka_null(Moments(*(torch.stack(t) for t in zip(*each, strict=True))))
    expected = [cka_null(m) for m in each]
    torch.testing.assert_close(mean, torch.stack([m for m, _ in expected]))
    torch.testing.assert_close(sd, torch.stack([s for _, s in expected]))


def test_three_stimuli_have_no_null():
    sums = CrossMoments(1, 1, "dot").update(torch.randn(1, 3, 2), torch.randn(1, 3, 2))
    with pytest.raises(BertftError, match=r"cka_null: needs at least 4 stimuli, found 3"):
        cka_null(sums.moments(0, 0))
