"""Products of rows rounded to float16 (precision "fast") on the CPU, against float64 and the bits of the card.

They are executed with the arithmetic of tensor cores. Bounds are the errors that its model gives, with a margin of two.
"""

from __future__ import annotations

import numpy as np
import pytest
from accuracy import METRICS, ORDERS
from core_arithmetic import CAPABILITIES, high_products
from gpu_executor import Device, KernelError, Kernels
from rdm import correlate, exact_torch
from split import columns, exact_distances, split, sums
from test_split_gram import distances

# largest error / largest distance of 2,000 rows of 768: isotropic, with a common mean, where two dimensions dominate
MODELLED = {"cosine": (5e-5, 4e-5, 7e-4), "sqeuclidean": (5e-5, 5e-5, 3e-4)}
ROUNDED = 1e-3  # of the largest distance: rows of few columns, whose roundings do not average out
SHAPES = [(1, 1, None, 3), (2, 130, None, 33), (1, 5, 131, 64), (1, 129, 3, 100), (1, 150, None, 225)]


def kinds(n, d=768, seed=0):
    """Return the three kinds of rows (1, n, d) of the model."""
    x = np.random.default_rng(seed).standard_normal((3, 1, n, d))
    x[1:] += np.random.default_rng(seed + 1).standard_normal(d)
    x[1:, ..., 3], x[1:, ..., d // 2] = x[1:, ..., 3] + 40, x[1:, ..., d // 2] - 25
    x[2, ..., 3], x[2, ..., d // 2] = x[2, ..., 3] * 30, x[2, ..., d // 2] * 60
    return x.astype(np.float32)


@pytest.mark.parametrize("metric", ["sqeuclidean", pytest.param("cosine", marks=pytest.mark.slow)])
def test_distances_err_as_the_model_says(metric):
    for x, bound in zip(kinds(130), MODELLED[metric], strict=True):
        exact = exact_distances(x.astype(np.float64), None, metric)
        out, count = distances(x, None, metric, "plain", parts=1)
        error = np.abs(out - exact).max() / exact.max()
        assert bound / 20 < error <= 2 * bound  # no better than halves allow: products of both parts err by 5e-8
        assert not count.any()


def test_shapes_and_metrics():
    random = np.random.default_rng(2)
    for shape, (layers, n, m, d) in enumerate(SHAPES):
        x = random.standard_normal((layers, n, d)).astype(np.float32) + 2
        y = None if m is None else random.standard_normal((layers, m, d)).astype(np.float32) + 2
        for metric in METRICS[:-1] if n * d < 1000 else (METRICS[shape % 5],):
            exact = exact_distances(*(None if t is None else t.astype(np.float64) for t in (x, y)), metric)
            out, _ = distances(x, y, metric, parts=1)
            assert np.abs(out - exact).max() <= ROUNDED * np.abs(exact).max()
            if y is None:
                assert np.array_equal(out, out.swapaxes(1, 2))
                assert metric == "dot" or not out.diagonal(0, 1, 2).any()


def test_same_bits_in_every_order():
    x = kinds(129, 100)[1]
    first, _ = distances(x, None, "cosine", parts=1)
    for order in ORDERS:
        assert np.array_equal(distances(x, None, "cosine", parts=1, order=order, seed=2)[0], first)


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_bits_of_the_card(capability):
    x, device = kinds(40)[1], Device(compute_capability=capability)
    out, _ = distances(x, None, "sqeuclidean", "plain", parts=1, device=device)
    found = split(Kernels("split_rows.cu", "plain"), x, "sqeuclidean", parts=1)
    products = high_products(found.halves[0, :40].reshape(40, 768), capability)
    scale, square, upper = found.scale[0, :40], found.square[0, :40], np.triu_indices(40, 1)
    expected = products * (-2 * scale[:, None]) * scale + (square[:, None] + square)
    assert np.array_equal(out[0][upper], expected[upper])

    u = np.random.default_rng(3).standard_normal((200, 40)).astype(np.float32)
    kernels = Kernels("split_moments.cu", "plain", device=device)
    hi = columns(kernels, u, parts=1)[0].view(np.float16).reshape(256, 128)[:, :40]
    assert np.array_equal(np.triu(sums(kernels, u, parts=1)[1][0]), np.triu(high_products(hi.T, capability)))


def test_near_rows_are_taken_anew():
    x = kinds(140, 100)[1]
    x[0, 130:] = x[0, :10]
    x[0, 131:] += 1e-3 * np.random.default_rng(7).standard_normal((9, 100)).astype(np.float32)
    exact = exact_distances(x.astype(np.float64), None, "sqeuclidean")
    out, count = distances(x, None, "sqeuclidean", parts=1)
    assert out[0, 0, 130] == out[0, 130, 0] == 0
    assert count[0] == 10
    for i in range(1, 10):
        assert abs(out[0, i, 130 + i] / exact[0, i, 130 + i] - 1) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("stimuli", [50, 200])
def test_correlations_err_as_the_route_states(stimuli):
    """By 3e-3 / n: 3e-5 at 50 stimuli, 1e-5 at 200 by the model."""
    first, second = kinds(stimuli, 256, seed=1), kinds(stimuli, 256, seed=5)
    for x, y in zip(first, (first + second) / 2, strict=True):
        out, _ = correlate(Kernels("rdm_correlation.cu", "plain"), x, y, "float32", "cosine", path="fast")
        exact = exact_torch(x.astype(np.float64), y.astype(np.float64), "cosine")
        assert 1e-9 < np.abs(out - exact).max() <= 3e-3 / stimuli


def test_correlations_of_layers_and_ranks():
    x = np.random.default_rng(8).standard_normal((3, 130, 70)).astype(np.float32) + 3
    x[1:] += x[:1]
    kernels = Kernels("rdm_correlation.cu", "checked")
    for metric, compare in (("euclidean", "pearson"), ("sqeuclidean", "cosine"), ("cosine", "spearman")):
        out, _ = correlate(kernels, x, None, "float32", metric, compare, path="fast")
        assert np.abs(out - exact_torch(x.astype(np.float64), None, metric, compare)).max() <= 3e-3 / 130
    with pytest.raises(KernelError):
        correlate(kernels, x, None, "float32", "manhattan", path="fast")


def test_sums_over_stimuli():
    """By 4e-3 / sqrt(n) of the largest; several ranges of rows, tails of tiles, positive products."""
    for n, d, e in ((1100, 20, 33), (70, 150, None), (2000, 8, None)):
        u = np.random.default_rng(4).standard_normal((n, d)).astype(np.float32) + np.float32(n == 2000)
        v = None if e is None else np.random.default_rng(5).standard_normal((n, e)).astype(np.float32) + u[:, :1]
        exact = u.astype(np.float64).T @ (u if v is None else v)
        for mode in ("plain",) if n > 1000 else ("checked",):
            found, _ = sums(Kernels("split_moments.cu", mode), u, v, parts=1)
            assert 1e-8 < np.abs(found - exact).max() / np.abs(exact).max() <= 4e-3 / n**0.5
