"""csrc/cuda/rdm_correlation.cu on the CPU.

The reference is float64.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accuracy import METRICS, MODES, ORDERS, assert_as_exact
from binned_ranks import product_bound
from gpu_executor import Device, KernelError, Kernels
from rdm import correlate, exact_torch, layers, plain_torch

NO_ROW = 0x7F7F7F7F7F7F7F7F
# layers of x, of y (None: x with itself), n, d, e: tails of the 128 tile and of 8 (split rows: 32) columns, one pair
CASES = [(2, 3, 2, 5, 7), (3, None, 130, 18, 18), (1, 2, 20, 33, 4), (5, None, 9, 16, 16)]
SLOW = pytest.mark.slow
PATHS = ["plain", "split"]


def check(kernels, case, dtype="float32", metric="cosine", compare="pearson", metric_y=None, mean=2.0, **options):
    """At most twice the error of plain PyTorch in the type that sums run in."""
    (x, exact_x), (y, exact_y) = layers(case, dtype, mean=mean)
    out, bad = correlate(kernels, x, y, dtype, metric, compare, metric_y, **options)
    assert (bad[: 1 if y is None else 2] == NO_ROW).all()
    if case[2] == 2:  # one pair: no correlation
        assert compare == "cosine" or not np.isfinite(out).any()
        return
    exact = exact_torch(exact_x, exact_y, metric, compare, metric_y)
    name = "float64" if dtype == "float64" else "float32"
    plain = plain_torch(exact_x, exact_y, getattr(torch, name), metric, compare, metric_y)
    if name == "float64":  # what is exact to float64 is itself off by the roundings of the longest sum
        assert_as_exact(out, plain, exact, roundings=case[2] * (case[2] - 1) / 2 + case[3])
    else:
        assert_as_exact(out.astype(np.float32), plain.astype(np.float32), exact)
    if y is None:
        assert np.array_equal(out, out.T)
        assert compare != "pearson" or (np.diagonal(out) == 1).all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("path", PATHS)
def test_pearson_of_cosines(mode, order, path):
    for case in CASES:
        check(Kernels("rdm_correlation.cu", mode), case, path=path, order=order)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("path", PATHS)
def test_metrics(mode, metric, path):
    kernels = Kernels("rdm_correlation.cu", mode)
    if path == "split" and metric == "manhattan":
        with pytest.raises(KernelError):  # no entry of it is a product
            check(kernels, CASES[1], metric=metric, path=path)
        return
    for case in CASES[:3]:
        check(kernels, case, metric=metric, path=path)
    check(kernels, CASES[2], metric=metric, metric_y="sqeuclidean", path=path)
    check(
        kernels,
        CASES[2],
        metric=metric,
        metric_y="manhattan" if path == "plain" else "euclidean",
        compare="cosine",
        path=path,
    )
    check(kernels, CASES[1], metric=metric, compare="cosine", path=path)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_types(mode, dtype):
    kernels = Kernels("rdm_correlation.cu", mode)
    for metric in ("correlation", "euclidean", "manhattan"):
        check(kernels, CASES[1], dtype=dtype, metric=metric)
        check(kernels, CASES[2], dtype=dtype, metric=metric, order="descending")
        if dtype != "float64" and metric != "manhattan":
            check(kernels, CASES[2], dtype=dtype, metric=metric, path="split")


@pytest.mark.parametrize("limit", [25, 19, 9])
def test_layers_that_do_not_fit_are_compared_in_groups(limit):
    """Three, two, one layer of each side at once, as less shared memory is to be had."""
    scarce = Kernels("rdm_correlation.cu", "checked", device=Device(shared_limit=limit << 10))
    for case in ((5, None, 70, 8, 8), (4, 3, 20, 9, 5)):
        check(scarce, case)


@SLOW
@pytest.mark.parametrize("path", PATHS)
def test_tiles_that_do_not_fit_go_in_groups(path):
    """Six tiles of three layers: all at once, four and two, one at a time."""
    kernels, case = Kernels("rdm_correlation.cu", "plain"), (2, 1, 300, 40, 33)
    (x, _), (y, _) = layers(case)
    whole, _ = correlate(kernels, x, y, "float32", "cosine", path=path)
    for tiles in (4, 1):
        check(kernels, case, path=path, entries_bytes=tiles * 3 << 16)
        groups, _ = correlate(kernels, x, y, "float32", "cosine", path=path, entries_bytes=tiles * 3 << 16)
        assert np.abs(groups - whole).max() <= 2 * product_bound(np.float32)


@pytest.mark.parametrize(
    "metric", ["cosine", *(pytest.param(f"{m}euclidean", marks=pytest.mark.slow) for m in ("sq", ""))]
)
def test_split_rows_keep_the_digits_of_a_correlation(metric):
    """Where two dimensions dominate; the accuracy table of the scheme has 2e-9 at 2,000 stimuli."""
    (x, _), _ = layers((3, None, 150, 100, 100), mean=10.0, seed=3)
    x[..., 3], x[..., 71] = x[..., 3] * 30 + 40, x[..., 71] * 60 - 25
    out, _ = correlate(Kernels("rdm_correlation.cu", "plain"), x, None, "float32", metric, path="split")
    assert np.abs(out - exact_torch(x.astype(np.float64), None, metric)).max() < 3e-8


@pytest.mark.parametrize("path", PATHS)
def test_large_mean_and_rogue_dimensions(path):
    """Vectors as encoders make them: a common mean and two huge dimensions. Plain PyTorch loses digits there.

    Bound: |error of the entries| / |entries| of each side, about their mean. An entry u_i.u_j + p_i + p_j of D terms is
    off by 2^-24 times D + 8 (D additions; u_i, u_j, p_i, p_j, two additions, the shift and its own sum rounded), of the
    magnitude |u_i| |u_j| + |p_i| + |p_j|. Products: 17 more (binned_ranks.product_bound).
    """
    (x, _), _ = layers((3, None, 80, 24, 24), mean=10.0, seed=7)
    x[..., 3] *= 30
    x[..., 11] -= 200
    exact = exact_torch(x.astype(np.float64), None, "cosine")
    out, _ = correlate(Kernels("rdm_correlation.cu", "checked"), x, None, "float32", "cosine", path=path)
    sides = np.array([entry_error(layer.astype(np.float64)) for layer in x])
    assert (np.abs(out - exact) <= sides[:, None] + sides + product_bound(np.float32)).all()
    plain = plain_torch(x.astype(np.float64), None, torch.float32, "cosine")
    assert np.abs(out - exact).max() < 0.5 * np.abs(plain - exact).max()


def entry_error(x):
    """Of one layer (N, D) with cosine, as in the test above."""
    u = x / np.linalg.norm(x, axis=1, keepdims=True)
    m = u[[s * len(u) // 64 for s in range(64)]].mean(0)
    u, (i, j) = u - m, np.triu_indices(len(u), 1)
    size, p, values = np.linalg.norm(u, axis=1), np.abs(u @ m), (u @ u.T + u @ m + (u @ m)[:, None])[i, j]
    error = 2.0**-24 * (x.shape[1] + 8) * (size[i] * size[j] + p[i] + p[j])
    return np.linalg.norm(error) / np.linalg.norm(values - values.mean())


def test_same_input_same_bits():
    kernels = Kernels("rdm_correlation.cu", "checked")
    (x, _), (y, _) = layers((3, 2, 80, 6, 5))
    for compare in ("pearson", "spearman"):
        first, _ = correlate(kernels, x, y, "float32", "cosine", compare)
        for order in ORDERS:
            assert np.array_equal(first, correlate(kernels, x, y, "float32", "cosine", compare, order=order, seed=4)[0])


def test_empty_and_single():
    kernels = Kernels("rdm_correlation.cu", "checked")
    for shape in ((2, 0, 4), (2, 1, 4), (2, 3, 0)):
        out, _ = correlate(kernels, np.ones(shape, np.float32), None, "float32", "sqeuclidean")
        assert np.isnan(out).all()  # no two pairs that differ
    for stimuli, compare in ((0, "spearman"), (1, "spearman"), (1, "rho_a"), (2, "rho_a")):
        x = np.arange(3.0 * stimuli, dtype=np.float32).reshape(1, stimuli, 3)
        assert np.isnan(correlate(kernels, x, None, "float32", "sqeuclidean", compare, bins=65)[0]).all()
    assert correlate(kernels, np.ones((0, 3, 4), np.float32), None, "float32", "dot")[0].shape == (0, 0)


def test_bad_rows_are_found():
    kernels = Kernels("rdm_correlation.cu", "checked")
    x = np.random.default_rng(0).standard_normal((2, 9, 5)).astype(np.float32)
    y = x.copy()
    y[1, 4], y[1, 6, 2] = 0, np.nan
    _, bad = correlate(kernels, x, y, "float32", "cosine")
    assert bad.tolist() == [[NO_ROW, NO_ROW], [9 + 6, 9 + 4]]


def test_bad_arguments_are_refused():
    kernels, x = Kernels("rdm_correlation.cu", "checked"), np.ones((1, 3, 2), np.float32)
    with pytest.raises(KernelError):
        correlate(kernels, x, None, "float32", "cosine", "kendall")
    with pytest.raises(KernelError):
        correlate(kernels, x, None, "float32", "cosine", bins=0)
    older = Kernels("rdm_correlation.cu", "checked", device=Device(compute_capability=75))
    assert correlate(older, x, None, "float32", "dot")[0].shape == (1, 1)
    with pytest.raises(KernelError):  # these tensor cores came with 8.0
        correlate(older, x, None, "float32", "dot", path="split")
    with pytest.raises(KernelError):  # no room even for two layers
        correlate(Kernels("rdm_correlation.cu", "checked", device=Device(shared_limit=7 << 10)), x, x, "float32", "dot")
