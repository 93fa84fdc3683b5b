"""csrc/cuda/rdm_correlation.cu, executed on the CPU, against float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accuracy import CODES, METRICS, MODES, ORDERS, assert_as_exact, stored
from gpu_executor import Device, KernelError, Kernels, Uninitialised

from bertft.ops import reference
from bertft.ops.metrics import NORMALISED
from bertft.ops.rdm_correlation import COMPARISONS

PATHS = {"plain": 0, "tf32": 1, "bf16": 2}
# Of the 2,415 pairs of 70 stimuli one in ten shares its bin of 60,480 and has a rank that is up to half a place off:
# sqrt(241) 0.5 (P / 4) / (P^3 / 12) = 4e-6 for a side, by the sum of random signs; here four times that for both.
RANKS = 2e-5
NO_ROW = 0x7F7F7F7F7F7F7F7F
# layers of x, of y (None: x with itself), n, d, e: tails of 64 rows and of 16 (bf16: 32) columns, one pair
CASES = [(2, 3, 2, 5, 7), (3, None, 65, 18, 18), (1, 2, 20, 33, 4), (5, None, 9, 16, 16)]


def correlate(kernels, x, y, dtype, metric, compare="pearson", metric_y=None, path="plain", bins=1 << 16, **options):
    """(out (L, M), first bad rows (2, 2))"""
    (layers, n, d), other = x.shape, x if y is None else y
    out, bad = np.empty((layers, len(other))), np.zeros((2, 2), np.int64)
    size = np.zeros(1, np.int64)
    numbers = (
        CODES[dtype], PATHS[path], METRICS.index(metric), METRICS.index(metric_y or metric), COMPARISONS.index(compare),
        layers, 0 if y is None else len(y), n, d, other.shape[2], bins,
    )  # fmt: skip
    kernels.rdm_correlation_launch(x, y, out, bad, None, size, *numbers, **options)
    workspace = np.empty(int(size[0]), np.uint8)
    kernels.rdm_correlation_launch(x, y, Uninitialised(out), bad, Uninitialised(workspace), size, *numbers, **options)
    return out, bad


def data(case, dtype="float32", seed=0, mean=2.0):
    """Layers that resemble one another, with a common mean."""
    layers_x, layers_y, n, d, e = case
    random = np.random.default_rng(seed)
    base = random.standard_normal((n, max(d, e)))
    make = lambda layers, width: stored(
        base[None, :, :width] + random.standard_normal((layers, n, width)) + mean, dtype
    )
    return make(layers_x, d), (None, None) if layers_y is None else make(layers_y, e)


def plain(x, y, metric, compare, metric_y, dtype):
    """Full matrices in the type of the input, compared by torch."""

    def matrices(x, metric):
        x = torch.tensor(x, dtype=torch.float64 if dtype == "float64" else torch.float32)
        if metric in ("dot", *NORMALISED):
            u = reference.metric_rows(x, metric)
            d = u @ u.mT
            d = 1 - d if metric in NORMALISED else d
        else:
            d = torch.cdist(x, x, p=1.0 if metric == "manhattan" else 2.0)
            d = d * d if metric == "sqeuclidean" else d
        return reference.condense(d)

    a, b = matrices(x, metric), matrices(x if y is None else y, metric_y or metric)
    return np.array([[float(reference.compare_matrices(r, s, compare)) for s in b] for r in a])


def check(kernels, case, dtype="float32", metric="cosine", compare="pearson", metric_y=None, **options):
    (x, exact_x), (y, exact_y) = data(case, dtype)
    out, bad = correlate(kernels, x, y, dtype, metric, compare, metric_y, **options)
    assert (bad[: 1 if y is None else 2] == NO_ROW).all()
    inputs = (torch.tensor(exact_x), None if y is None else torch.tensor(exact_y))
    exact = reference.rdm_correlation(*inputs, metric=metric, metric_y=metric_y, compare=compare).numpy()
    if case[2] == 2:  # one pair: no correlation
        assert compare == "cosine" or not np.isfinite(out).any()
        return
    expected = plain(exact_x, exact_y, metric, compare, metric_y, dtype)
    if dtype == "float64":
        np.testing.assert_allclose(out, exact, atol=1e-12)
    elif options.get("path") == "bf16":
        np.testing.assert_allclose(out, exact, atol=3e-3)
    else:  # to float32, in which entries are computed
        assert_as_exact(out.astype(np.float32), expected.astype(np.float32), exact)
    if y is None:
        assert np.array_equal(out, out.T)
        assert compare != "pearson" or (np.diagonal(out) == 1).all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("path", ["plain", "tf32"])
def test_pearson_of_cosines(mode, order, path):
    for case in CASES:
        check(Kernels("rdm_correlation.cu", mode), case, path=path, order=order)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("path", ["plain", "tf32"])
def test_metrics(mode, metric, path):
    kernels = Kernels("rdm_correlation.cu", mode)
    for case in CASES[:3]:
        check(kernels, case, metric=metric, path=path)
    check(kernels, CASES[2], metric=metric, metric_y="sqeuclidean", path=path)
    check(kernels, CASES[2], metric=metric, metric_y="manhattan", compare="cosine", path=path)
    check(kernels, CASES[1], metric=metric, compare="cosine", path=path)


@pytest.mark.parametrize("mode", MODES)
def test_bfloat16_path(mode):
    for case in CASES:
        check(Kernels("rdm_correlation.cu", mode), case, path="bf16", dtype="bfloat16")
    check(Kernels("rdm_correlation.cu", mode), CASES[1], path="bf16", metric="sqeuclidean", order="random")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_types(mode, dtype):
    kernels = Kernels("rdm_correlation.cu", mode)
    for metric in ("correlation", "euclidean", "manhattan"):
        check(kernels, CASES[1], dtype=dtype, metric=metric)
        check(kernels, CASES[2], dtype=dtype, metric=metric, order="descending")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("order", ORDERS)
def test_ranks(mode, order):
    kernels = Kernels("rdm_correlation.cu", mode)
    (x, exact_x), (y, exact_y) = data((2, 1, 70, 12, 9))
    inputs = torch.tensor(exact_x), torch.tensor(exact_y)
    for compare in ("spearman", "rho_a"):
        exact = reference.rdm_correlation(*inputs, compare=compare).numpy()
        errors = []
        for bins in (64, 4096, 1 << 16):
            out, _ = correlate(kernels, x, y, "float32", "cosine", compare, bins=bins, order=order)
            errors.append(np.abs(out - exact).max())
        # 38 pairs a bin; several in some; now and then 2
        assert errors[0] < 2e-4 and errors[1] < 5e-5 and errors[2] < RANKS, errors
        opposite, _ = correlate(kernels, x, y, "float32", "cosine", compare, metric_y="dot", order=order)
        exact = reference.rdm_correlation(*inputs, compare=compare, metric_y="dot").numpy()
        np.testing.assert_allclose(opposite, exact, atol=RANKS)


def test_ties_get_their_mid_rank():
    random = np.random.default_rng(5)
    x = random.integers(0, 3, (2, 40, 2)).astype(np.float32)  # few values, many ties
    for metric in ("sqeuclidean", "manhattan", "dot"):
        out, _ = correlate(Kernels("rdm_correlation.cu", "checked"), x, None, "float32", metric, "spearman")
        exact = reference.rdm_correlation(torch.tensor(x).double(), metric=metric, compare="spearman").numpy()
        np.testing.assert_allclose(out, exact, atol=2e-6)


@pytest.mark.parametrize("limit", [60, 47, 38])
def test_layers_that_do_not_fit_are_compared_in_groups(limit):
    """64 x 32, 64 x 16 pairs a tile, then 64 x 16 in groups of layers, as less shared memory is to be had."""
    ample = Kernels("rdm_correlation.cu", "plain")
    scarce = Kernels("rdm_correlation.cu", "checked", device=Device(shared_limit=limit << 10))
    for case in ((5, None, 70, 8, 8), (4, 3, 20, 9, 5)):
        (x, _), (y, _) = data(case)
        for compare in ("pearson", "spearman"):
            whole, groups = (correlate(kernels, x, y, "float32", "cosine", compare)[0] for kernels in (ample, scarce))
            np.testing.assert_allclose(groups, whole, atol=1e-7)


def test_large_mean_and_rogue_dimensions():
    """Vectors as encoders make them: a common mean and two huge dimensions."""
    (x, _), _ = data((3, None, 80, 24, 24), mean=10.0, seed=7)
    x[..., 3] *= 30
    x[..., 11] -= 200
    exact = reference.rdm_correlation(torch.tensor(x).double()).numpy()
    for path in ("plain", "tf32"):
        out, _ = correlate(Kernels("rdm_correlation.cu", "plain"), x, None, "float32", "cosine", path=path)
        np.testing.assert_allclose(out, exact, atol=2e-6)


def test_same_input_same_bits():
    kernels = Kernels("rdm_correlation.cu", "plain")
    (x, _), (y, _) = data((3, 2, 130, 20, 9))
    for compare in ("pearson", "spearman"):
        first, _ = correlate(kernels, x, y, "float32", "cosine", compare)
        for order in ORDERS:
            assert np.array_equal(first, correlate(kernels, x, y, "float32", "cosine", compare, order=order, seed=4)[0])


def test_empty_and_single():
    kernels = Kernels("rdm_correlation.cu", "checked")
    for shape in ((2, 0, 4), (2, 1, 4), (2, 3, 0)):
        out, _ = correlate(kernels, np.ones(shape, np.float32), None, "float32", "sqeuclidean")
        assert np.isnan(out).all()  # no two pairs that differ
    assert correlate(kernels, np.ones((0, 3, 4), np.float32), None, "float32", "dot")[0].shape == (0, 0)


def test_bad_rows_are_found():
    kernels = Kernels("rdm_correlation.cu", "checked")
    x = np.random.default_rng(0).standard_normal((2, 9, 5)).astype(np.float32)
    y = x.copy()
    y[1, 4], y[1, 6, 2] = 0, np.nan
    _, bad = correlate(kernels, x, y, "float32", "cosine")
    assert bad.tolist() == [[NO_ROW, NO_ROW], [9 + 6, 9 + 4]]


def test_bad_arguments_are_refused():
    kernels, x = Kernels("rdm_correlation.cu", "plain"), np.ones((1, 3, 2), np.float32)
    with pytest.raises(KernelError):
        correlate(kernels, x, None, "float32", "cosine", "kendall")
    with pytest.raises(KernelError):
        correlate(kernels, x, None, "float32", "cosine", bins=0)
    older = Kernels("rdm_correlation.cu", "plain", device=Device(compute_capability=75))
    assert correlate(older, x, None, "float32", "dot")[0].shape == (1, 1)
    with pytest.raises(KernelError):  # these tensor cores came with 8.0
        correlate(older, x, None, "float32", "dot", path="tf32")
    with pytest.raises(KernelError):  # no room even for two layers
        correlate(Kernels("rdm_correlation.cu", "plain", device=Device(shared_limit=14 << 10)), x, x, "float32", "dot")
