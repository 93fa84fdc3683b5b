"""csrc/cuda/split_gram.cu on the CPU, against float64.

It is executed with the arithmetic of tensor cores.
"""

from __future__ import annotations

import numpy as np
import pytest
from accuracy import CODES, METRICS, MODES, ORDERS, stored
from core_arithmetic import CAPABILITIES, split_products
from gpu_executor import Device, KernelError, Kernels, Uninitialised
from split import PRODUCTS, exact_distances, split

ROUNDING = 3e-7  # of the largest distance: what the scheme loses by the model of the cores, with a margin of two
# (layers, n, m or None for y = x, d): tails of the 128 tile and of the lines, fewer lines than the ring's stages, more
SHAPES = [(1, 1, None, 3), (2, 130, None, 33), (1, 5, 131, 64), (1, 129, 3, 100), (1, 150, None, 161)]


def distances(
    x, y, metric, mode="checked", dtype="float32", condensed=False, capacity=1 << 12, device=None, mean=None, parts=2,
    **options,
):  # fmt: skip
    """(out, pairs that were taken anew, or more than ``capacity`` where those of a layer did not fit)."""
    (layers, n, d), m = x.shape, (x if y is None else y).shape[1]
    rows, kernels = (Kernels(f"split_{name}.cu", mode, device=device) for name in ("rows", "gram"))
    with np.errstate(all="ignore"):
        of_x = split(rows, x, metric, dtype=dtype, mean=mean, parts=parts, **options)
        mean = of_x.mean, of_x.mean_square
        of_y = None if y is None else split(rows, y, metric, dtype=dtype, mean=mean, parts=parts, **options)
    out = np.empty((layers, n * (n - 1) // 2) if condensed else (layers, n, m), np.float32)
    count, pairs = np.empty(layers, np.int32), np.empty((layers, capacity, 2), np.int32)
    kernels.split_gram_launch(
        x, y, of_x.memory, None if y is None else of_y.memory, of_x.mean_square, Uninitialised(out),
        Uninitialised(count), Uninitialised(pairs), capacity, CODES[dtype], METRICS.index(metric), layers, n, m, d,
        int(condensed), parts, **options,
    )  # fmt: skip
    return out, count


def data(shape, dtype="float32", seed=0, mean=3.0):
    """((x, x in float64), (y, y in float64)) about a common mean larger than their spread."""
    layers, n, m, d = shape
    random = np.random.default_rng(seed)
    centre = mean * random.standard_normal(d)
    x = stored(random.standard_normal((layers, n, d)) + centre, dtype)
    return x, (None, None) if m is None else stored(random.standard_normal((layers, m, d)) + centre, dtype)


def check(shape, metric, **options):
    (x, exact_x), (y, exact_y) = data(shape, options.get("dtype", "float32"))
    out, count = distances(x, y, metric, **options)
    exact = exact_distances(exact_x, exact_y, metric)
    if y is None:
        upper = np.triu_indices(shape[1], 1)
        if options.get("condensed"):
            exact = exact[:, upper[0], upper[1]]
        else:
            assert np.array_equal(out, out.swapaxes(1, 2))
            assert metric == "dot" or not out.diagonal(0, 1, 2).any()
    if exact.size:
        assert np.abs(out - exact).max() <= ROUNDING * np.abs(exact).max()
    return count


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("metric", PRODUCTS)
def test_against_float64(mode, metric):
    for shape in SHAPES:
        count = check(shape, metric, mode=mode)
        assert shape[3] < 100 or not count.any()  # unrelated rows: nothing to repair


@pytest.mark.parametrize("metric", PRODUCTS)
def test_condensed(metric):
    for n in (1, 2, 130, 257):
        check((2, n, None, 33), metric, mode="plain", condensed=True)
    check((1, 131, None, 40), metric, condensed=True)


@pytest.mark.parametrize("dtype", ("float16", "bfloat16"))
def test_types(dtype):
    for metric in PRODUCTS:
        check((1, 130, 20, 70), metric, dtype=dtype)


@pytest.mark.parametrize("d", (1, 31, 32, 65, 96, 97))
def test_few_columns(d):
    for metric in ("dot", "sqeuclidean"):
        check((1, 130, None, d), metric)


def test_products_of_rows_about_no_mean():
    """As gradients and probes take them: weights of all magnitudes with rows, more columns than rows."""
    random, nothing = np.random.default_rng(4), (np.zeros((1, 700)), np.zeros(1))
    a = (random.standard_normal((1, 130, 700)) * 10.0 ** random.uniform(-6, 2, (1, 130, 700))).astype(np.float32)
    b = random.standard_normal((1, 20, 700)).astype(np.float32) + 3
    out, count = distances(a, b, "dot", "plain", capacity=1, mean=nothing)
    sizes = np.abs(a[0]).astype(np.float64) @ np.abs(b[0]).T
    assert (np.abs(out[0] - a[0].astype(np.float64) @ b[0].T) <= ROUNDING * sizes).all()
    assert not count.any()


@pytest.mark.slow
def test_same_bits_in_every_order():
    (x, _), (y, _) = data((2, 140, 129, 100), seed=1)
    for second in (None, y):
        first, _ = distances(x, second, "cosine")
        for order in ORDERS:
            assert np.array_equal(distances(x, second, "cosine", order=order, seed=2)[0], first)


def test_same_bits_with_two_stages_as_with_three():
    """A100's memory holds two blocks of two stages each; a card without room for two stages is refused."""
    (x, _), _ = data((1, 140, None, 200))
    three, two, small = (Device(shared_limit=size << 10) for size in (227, 163, 64))
    first, _ = distances(x, None, "sqeuclidean", device=three)
    assert np.array_equal(distances(x, None, "sqeuclidean", device=two)[0], first)
    for device in (small, Device(compute_capability=75)):
        with pytest.raises(KernelError):
            distances(x, None, "sqeuclidean", device=device)


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_bits_of_the_card(capability):
    """Products of an A100 and of an H100, to the last bit, promoted after every 16 columns."""
    (x, _), _ = data((1, 40, None, 768), seed=2)
    x -= x.mean(1, keepdims=True)
    out, _ = distances(x, None, "sqeuclidean", "plain", device=Device(compute_capability=capability))
    found = split(Kernels("split_rows.cu", "plain"), x, "sqeuclidean")
    hi, lo = (found.halves[0, :40, :, part].reshape(40, 768) for part in (0, 1))
    products = split_products(hi, lo, capability)
    left, square = -2 * found.scale[0, :40], found.square[0, :40]
    expected = products * left[:, None] * found.scale[0, :40] + (square[:, None] + square)
    upper = np.triu_indices(40, 1)
    assert np.array_equal(out[0][upper], expected[upper])


@pytest.mark.slow
def test_large_mean_and_rogue_dimensions():
    """Where plain float32 loses digits. Bounds: the accuracy table of the scheme, with a margin of two."""
    (x, _), _ = data((1, 150, None, 768), mean=1.0, seed=3)
    x[..., 3], x[..., 500] = x[..., 3] * 30 + 40, x[..., 500] * 60 - 25
    for metric, bound in (("cosine", 1e-6), ("sqeuclidean", 4e-7)):
        exact = exact_distances(x.astype(np.float64), None, metric)
        out, _ = distances(x, None, metric, "plain")
        assert np.abs(out - exact).max() <= bound * exact.max()


@pytest.mark.parametrize("factor", (1e-17, 1e-10, 1e10, 1e17))
def test_any_range_of_values(factor):
    (x, _), _ = data((1, 129, None, 40), seed=5)
    x = (x * np.float32(factor)).astype(np.float32)
    exact = exact_distances(x.astype(np.float64), None, "euclidean")
    assert np.abs(distances(x, None, "euclidean", "plain")[0] - exact).max() < ROUNDING * exact.max()


@pytest.mark.parametrize("metric", ("cosine", "correlation", "sqeuclidean", "euclidean"))
def test_near_rows_are_taken_anew(metric):
    """Rows that differ by a thousandth keep 1e-5 of their distance, in place, mirrored and condensed."""
    (x, _), _ = data((2, 140, None, 100), seed=6)
    random = np.random.default_rng(7)
    x[1, 130:] = x[1, :10] + 1e-3 * random.standard_normal((10, 100)).astype(np.float32)
    exact = exact_distances(x.astype(np.float64), None, metric)
    out, count = distances(x, None, metric)
    assert count.tolist() == [0, 10]
    assert np.array_equal(out, out.swapaxes(1, 2))
    for i in range(10):
        assert abs(out[1, i, 130 + i] / exact[1, i, 130 + i] - 1) < 1e-5
    upper = np.triu_indices(140, 1)
    assert np.array_equal(distances(x, None, metric, condensed=True)[0], out[:, upper[0], upper[1]])
    pair, counts = distances(x[:, :20].copy(), x[:, 120:].copy(), metric)
    assert counts.tolist() == [0, 10]
    assert abs(pair[1, 3, 13] / exact[1, 3, 133] - 1) < 1e-5


def test_duplicates_are_at_distance_zero():
    (x, _), _ = data((1, 140, None, 50), seed=8)
    x[0, 139], x[0, 7] = x[0, 3], 2 * x[0, 4]
    for metric in ("sqeuclidean", "euclidean", "cosine", "correlation"):
        out, _ = distances(x, None, metric)
        assert out[0, 3, 139] == out[0, 139, 3] == 0
        if metric in ("cosine", "correlation"):  # a multiple has the same direction
            assert abs(out[0, 4, 7]) < 1e-12


def test_a_list_that_overflows_says_so():
    (x, _), _ = data((2, 130, None, 40))
    x[0] = np.tile(x[0, :2], (65, 1))
    out, count = distances(x, None, "sqeuclidean", capacity=100)
    assert count.tolist() == [2 * (65 * 64 // 2), 0]
    exact = exact_distances(x.astype(np.float64), None, "sqeuclidean")
    assert np.abs(out[1] - exact[1]).max() <= ROUNDING * exact.max()


@pytest.mark.parametrize("metric", PRODUCTS)
def test_what_is_not_finite_stays_in_its_row(metric):
    (x, exact), _ = data((1, 131, None, 40))
    x[0, 0, 3], x[0, 129, 1] = np.nan, np.inf
    out, _ = distances(x, None, metric)
    good = np.delete(np.arange(131), (0, 129))
    expected = exact_distances(exact, None, metric)[0][np.ix_(good, good)]
    assert np.abs(out[0][np.ix_(good, good)] - expected).max() <= ROUNDING * np.abs(expected).max()
    assert np.isnan(out[0, 0, 1:]).all()
    assert not np.isfinite(out[0, 129, :129]).any()


def test_empty():
    for shape in ((1, 0, None, 4), (1, 0, 5, 4), (0, 3, 3, 4)):
        (x, _), (y, _) = data(shape)
        assert distances(x, y, "dot")[0].size == 0


def test_bad_arguments_are_refused():
    (x, _), _ = data((1, 3, None, 4))
    rows, kernels = Kernels("split_rows.cu", "checked"), Kernels("split_gram.cu", "checked")
    memory, out = split(rows, x, "dot").memory, np.zeros((1, 3, 3), np.float32)
    lists = np.zeros(1, np.int32), np.zeros((1, 4, 2), np.int32)
    for dtype, metric, condensed, y, d in ((1, 0, 0, None, 4), (0, 5, 0, None, 4), (0, 0, 1, x, 4), (0, 0, 0, None, 0)):
        with pytest.raises(KernelError):
            kernels.split_gram_launch(
                x, y, memory, memory, np.zeros(1), out, *lists, 4, dtype, metric, 1, 3, 3, d, condensed, 2
            )
