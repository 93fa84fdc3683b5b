"""csrc/cuda/split_rows.cu on the CPU, against float64."""

from __future__ import annotations

import numpy as np
import pytest
from accuracy import CODES, MODES, ORDERS, stored
from gpu_executor import KernelError, Kernels
from split import PRODUCTS, in_form, joined, provisional_mean, split

NO_ROW = 0x7F7F7F7F7F7F7F7F
# (layers, n, d): one row and column, tails of the line of 32 columns and of the 128 rows, several lines
SHAPES = [(1, 1, 1), (2, 5, 33), (1, 130, 31), (2, 70, 64)]


def rows(shape, dtype="float32", seed=0):
    random = np.random.default_rng(seed)
    return stored(random.standard_normal(shape) + 3 * random.standard_normal(shape[-1]), dtype)


def check(x, exact, found, metric):
    """Halves, powers of two, norms and statistics of layers whose values in float64 are ``exact``."""
    (_, n, d), mean = exact.shape, found.mean
    u = in_form(exact, metric) - mean[:, None]
    assert np.array_equal(mean, mean.astype(np.float32))
    assert np.allclose(mean, provisional_mean(in_form(exact, metric)), rtol=2e-7, atol=1e-12)
    hi, lo = (found.halves[:, :, :, part].reshape(len(x), found.halves.shape[1], -1) for part in (0, 1))
    assert not hi[:, n:].any()
    assert not hi[:, :, d:].any()
    assert not lo[:, n:].any()
    assert not lo[:, :, d:].any()
    largest = np.abs(hi[:, :n]).max(-1).astype(np.float64)
    assert ((largest >= 2.0**13) & (largest <= 2.0**14) | (largest == 0)).all()
    scale = found.scale[:, :n].astype(np.float64)
    assert (np.frexp(scale)[0] == 0.5).all()  # powers of two
    allowed = (
        np.maximum(2.0**-23 * np.abs(u), 2.0**-38 * np.abs(u).max(-1, keepdims=True)) + 1e-15 * np.abs(exact).max()
    )
    assert (np.abs(joined(found)[:, :n, :d] - u) <= allowed).all()
    assert (np.abs(lo) <= np.spacing(np.abs(hi)) / 2).all()  # rounded to nearest
    for values, expected in ((found.square, (u * u).sum(-1)), (found.along, (u * mean[:, None]).sum(-1))):
        assert np.allclose(values[:, :n], expected, rtol=2e-7, atol=1e-12 + 1e-13 * np.abs(exact).max() ** 2)
        assert not values[:, n:].any()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("metric", PRODUCTS)
def test_against_float64(mode, metric):
    kernels = Kernels("split_rows.cu", mode)
    for shape in SHAPES:
        x, exact = rows(shape)
        found = split(kernels, x, metric)
        if metric == "correlation" and shape[-1] == 1:
            assert found.bad[1] == 0  # a row of one column has no direction once centred
            continue
        assert (found.bad == NO_ROW).all()
        check(x, exact, found, metric)


@pytest.mark.parametrize("dtype", ("float16", "bfloat16"))
def test_types(dtype):
    kernels = Kernels("split_rows.cu", "checked")
    x, exact = rows((2, 37, 50), dtype)
    for metric in PRODUCTS:
        check(x, exact, split(kernels, x, metric, dtype=dtype), metric)


def test_same_bits_in_every_order():
    kernels = Kernels("split_rows.cu", "checked")
    x, _ = rows((2, 70, 40))
    first = split(kernels, x, "correlation")
    for order in ORDERS:
        other = split(kernels, x, "correlation", order=order, seed=3)
        assert all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("factor", (1e-42, 1e-30, 1e-10, 1e10, 1e30, 1e37))
def test_any_range_of_values(factor):
    """Down to float32's subnormal numbers; beyond 1e19 the norms overflow, the halves do not."""
    x, _ = rows((1, 130, 40))
    x = (x * np.float32(factor)).astype(np.float32)
    with np.errstate(over="ignore"):
        found = split(Kernels("split_rows.cu", "plain"), x, "sqeuclidean")
    u = x.astype(np.float64) - found.mean[:, None]
    allowed = np.maximum(2.0**-23 * np.abs(u), 2.0**-38 * np.abs(u).max(-1, keepdims=True))
    assert (np.abs(joined(found)[:, :130, :40] - u) <= allowed).all()


def test_rows_that_are_equal_to_the_mean_are_zero():
    x = np.full((1, 9, 40), 0.1, np.float32)
    found = split(Kernels("split_rows.cu", "checked"), x, "sqeuclidean")
    assert not found.halves.any()
    assert not found.square.any()
    assert (found.scale == 1).all()


@pytest.mark.parametrize("metric", PRODUCTS)
def test_what_is_not_finite_stays_in_its_row(metric):
    x, _ = rows((2, 70, 40))
    x[1, 0, 3], x[0, 2, 1] = np.nan, np.inf
    with np.errstate(invalid="ignore"):
        found = split(Kernels("split_rows.cu", "checked"), x, metric)
    assert found.bad.tolist() == [2, NO_ROW]
    assert np.isfinite(found.mean).all()
    broken = ~np.isfinite(found.halves.astype(np.float32)).all((2, 3, 4))
    assert np.argwhere(broken).tolist() == [[0, 2], [1, 0]]


def test_rows_without_a_direction_are_found():
    x, _ = rows((2, 9, 5))
    x[1, 4], x[1, 7] = 0.1, 0
    kernels = Kernels("split_rows.cu", "checked")
    for metric, row in (("sqeuclidean", NO_ROW), ("cosine", 9 + 7), ("correlation", 9 + 4)):
        with np.errstate(invalid="ignore"):
            assert split(kernels, x, metric).bad.tolist() == [NO_ROW, row]


def test_statistics_are_those_of_the_rows():
    x, exact = rows((2, 9, 5))
    found = split(Kernels("split_rows.cu", "checked"), x, "correlation")
    centred = exact - exact.mean(-1, keepdims=True)
    expected = np.stack([exact.mean(-1), 1 / np.linalg.norm(centred, axis=-1)], -1)
    assert np.allclose(found.stats, expected, rtol=1e-6)


def test_bad_arguments_are_refused():
    kernels, x, mean = Kernels("split_rows.cu", "checked"), np.ones((1, 2, 2), np.float32), np.zeros((1, 2))
    memory, bad = np.zeros(1 << 16, np.uint8), np.zeros(2, np.int64)
    for dtype, metric in (("float64", 0), ("float32", 5), ("float32", -1)):
        with pytest.raises(KernelError):
            kernels.split_rows_launch(x, mean, memory, None, bad, CODES[dtype], metric, 1, 2, 2, 2)
        with pytest.raises(KernelError):
            kernels.split_mean_launch(x, mean, np.zeros(1), CODES[dtype], metric, 1, 2, 2)
