"""csrc/cuda/pairwise_distance.cu on the CPU.

The reference is float64.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accuracy import CODES, METRICS, MODES, ORDERS, assert_as_exact, stored
from gpu_executor import KernelError, Kernels, Uninitialised

from bertft.ops import reference
from bertft.ops.metrics import METRICS as CODE_ORDER
from bertft.ops.metrics import NORMALISED

NO_ROW = 0x7F7F7F7F7F7F7F7F
# (batch, n, m or None for y = x, d): one row, tails of the 128 (double 64) tile and of the 8-column stage, empty sides
SHAPES = [(1, 1, None, 3), (2, 5, None, 9), (1, 65, None, 16), (1, 130, None, 7), (1, 3, 67, 8), (2, 17, 4, 1)]
EMPTY = [(1, 0, None, 4), (1, 0, 5, 4), (1, 5, 0, 4), (0, 3, 3, 4)]


def compute_type(dtype: str) -> type:
    return np.float64 if dtype == "float64" else np.float32


def statistics(kernels, x, dtype, metric, **options):
    """(rows, 2) mean and inverse norm, and the first row without a direction; every row here is finite."""
    if metric not in NORMALISED:
        return None, NO_ROW
    rows, d = int(np.prod(x.shape[:-1])), x.shape[-1]
    stats, bad = np.empty((rows, 2), compute_type(dtype)), np.zeros(2, np.int64)
    kernels.row_statistics_launch(x, Uninitialised(stats), bad, CODES[dtype], METRICS.index(metric), rows, d, **options)
    assert bad[0] == NO_ROW
    return stats, int(bad[1])


def forward(kernels, x, y, dtype, metric, condensed=False, **options):
    (batch, n, d), m = x.shape, (x if y is None else y).shape[1]
    out = np.empty((batch, n * (n - 1) // 2) if condensed else (batch, n, m), compute_type(dtype))
    stats_x, zero = statistics(kernels, x, dtype, metric, **options)
    stats_y = None if y is None else statistics(kernels, y, dtype, metric, **options)[0]
    assert zero == NO_ROW
    kernels.pairwise_distance_launch(
        x, y, stats_x, stats_y, Uninitialised(out), None, 0, CODES[dtype], METRICS.index(metric), batch, n, m, d,
        int(condensed), **options
    )  # fmt: skip
    return out


def gradient(kernels, x, y, g, dist, dtype, metric, condensed=False, transposed=False, **options):
    (batch, n, d), m = x.shape, (x if y is None else y).shape[1]
    grad = np.empty((batch, n, d), compute_type(dtype))
    stats_x, _ = statistics(kernels, x, dtype, metric, **options)
    stats_y = None if y is None else statistics(kernels, y, dtype, metric, **options)[0]
    kernels.pairwise_gradient_launch(
        x, y, stats_x, stats_y, g, dist if metric == "euclidean" else None, Uninitialised(grad), CODES[dtype],
        METRICS.index(metric), batch, n, m, d, int(condensed), int(transposed), **options
    )  # fmt: skip
    return grad


def plain(x, y, metric, condensed):
    """Return the distances by the textbook formulas in the type of x, differentiable."""
    z = x if y is None else y
    if metric in ("dot", *NORMALISED):
        u, v = reference.metric_rows(x, metric), reference.metric_rows(z, metric)
        d = u @ v.mT
        d = 1 - d if metric in NORMALISED else d
    else:
        difference = x[..., :, None, :] - z[..., None, :, :]
        d = difference.abs().sum(-1) if metric == "manhattan" else difference.square().sum(-1)
        if metric == "euclidean":
            d = torch.where(d > 0, d, torch.ones_like(d)).sqrt() * (d > 0)  # a root without an infinite slope at 0
    return reference.condense(d) if condensed else d


def data(shape, dtype, seed=0):
    batch, n, m, d = shape
    random = np.random.default_rng(seed)
    x = stored(random.standard_normal((batch, n, d)) + 0.5, dtype)
    y = (None, None) if m is None else stored(random.standard_normal((batch, m, d)) - 0.5, dtype)
    return x, y


def torches(dtype, *arrays):
    kind = torch.float64 if dtype == "float64" else torch.float32
    return [None if a is None else torch.tensor(a, dtype=kind) for a in arrays]


def test_metric_codes_are_those_of_the_ops():
    assert CODE_ORDER == METRICS


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("metric", METRICS)
def test_forward(mode, order, metric):
    kernels = Kernels("pairwise_distance.cu", mode)
    for shape in SHAPES:
        (x, exact_x), (y, exact_y) = data(shape, "float32")
        for condensed in (False, True) if y is None else (False,):
            if metric in NORMALISED and shape[3] == 1:
                continue  # one number has no direction but its sign, and less its mean none at all
            out = forward(kernels, x, y, "float32", metric, condensed, order=order)
            exact = reference.pairwise_distance(
                *torches("float64", exact_x, exact_y), metric=metric, condensed=condensed
            ).numpy()
            assert_as_exact(out, plain(*torches("float32", exact_x, exact_y), metric, condensed), exact)
            if y is None and not condensed:
                assert np.array_equal(out, out.transpose(0, 2, 1))
                assert metric == "dot" or not np.diagonal(out, axis1=1, axis2=2).any()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_types(mode, dtype):
    kernels = Kernels("pairwise_distance.cu", mode)
    for metric in METRICS:
        for shape in [(1, 66, None, 10), (2, 9, 5, 17)]:
            (x, exact_x), (y, exact_y) = data(shape, dtype)
            out = forward(kernels, x, y, dtype, metric)
            exact = reference.pairwise_distance(*torches("float64", exact_x, exact_y), metric=metric).numpy()
            assert_as_exact(out, plain(*torches(dtype, exact_x, exact_y), metric, False), exact)
            g = np.random.default_rng(1).standard_normal(out.shape).astype(out.dtype)
            compare_gradients(kernels, dtype, metric, x, exact_x, y, exact_y, out, g, False)


def compare_gradients(kernels, dtype, metric, x, exact_x, y, exact_y, out, g, condensed, **options):
    """Gradients with respect to the rows in their metric's form: normalised, centred."""

    def autograd(kind):
        inputs = [t for t in torches(kind, exact_x, exact_y) if t is not None]
        if metric in NORMALISED:
            inputs = [reference.metric_rows(t, metric) for t in inputs]
        inputs = [t.detach().requires_grad_() for t in inputs]
        a, b = (*inputs, None)[:2]
        if metric in NORMALISED:
            d = 1 - a @ (a if b is None else b).mT
            d = d if b is not None else d * (1 - torch.eye(d.shape[-1], dtype=d.dtype))
            d = reference.condense(d) if condensed else d
        elif kind == "float64":
            d = reference.pairwise_distance(a, b, metric=metric, condensed=condensed)
        else:
            d = plain(a, b, metric, condensed)
        return torch.autograd.grad(d, inputs, torch.tensor(g, dtype=d.dtype))

    exact, expected = autograd("float64"), autograd(dtype)
    grad = gradient(kernels, x, y, g, out, dtype, metric, condensed, **options)
    assert_as_exact(grad, expected[0], exact[0])
    if y is not None:
        grad = gradient(kernels, y, x, g, out, dtype, metric, transposed=True, **options)
        assert_as_exact(grad, expected[1], exact[1])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("metric", METRICS)
def test_gradient(mode, order, metric):
    kernels = Kernels("pairwise_distance.cu", mode)
    for shape in [(2, 5, None, 9), (1, 18, None, 65), (1, 67, None, 4), (2, 17, 66, 3), (1, 1, 3, 5)]:
        (x, exact_x), (y, exact_y) = data(shape, "float32", seed=2)
        for condensed in (False, True) if y is None else (False,):
            out = forward(kernels, x, y, "float32", metric, condensed)
            g = np.random.default_rng(3).standard_normal(out.shape).astype(np.float32)
            compare_gradients(kernels, "float32", metric, x, exact_x, y, exact_y, out, g, condensed, order=order)


@pytest.mark.parametrize("metric", METRICS)
def test_empty(metric):
    kernels = Kernels("pairwise_distance.cu", "checked")
    for shape in EMPTY:
        (x, _), (y, _) = data(shape, "float32")
        out = forward(kernels, x, y, "float32", metric)
        grad = gradient(kernels, x, y, np.zeros_like(out), out, "float32", metric)
        assert not grad.any()  # with nobody to be distant from, nothing moves
    x = np.ones((1, 1, 3), np.float32)
    assert forward(kernels, x, None, "float32", metric="sqeuclidean", condensed=True).shape == (1, 0)
    flat = np.empty((1, 4, 0), np.float32)
    assert not forward(kernels, flat, None, "float32", "manhattan").any()


def test_duplicates_are_at_distance_zero_and_have_no_gradient():
    kernels = Kernels("pairwise_distance.cu", "checked")
    x = np.repeat(np.float32([[[1e3, -2e3, 3.3]]]), 4, axis=1)
    for metric in ("sqeuclidean", "euclidean", "manhattan"):
        out = forward(kernels, x, None, "float32", metric)
        assert not out.any()
        assert not gradient(kernels, x, None, np.ones_like(out), out, "float32", metric).any()


@pytest.mark.parametrize("mode", MODES)
def test_first_bad_rows_are_found(mode):
    kernels = Kernels("pairwise_distance.cu", mode)
    x = np.random.default_rng(0).standard_normal((2, 9, 5)).astype(np.float32)
    assert statistics(kernels, x, "float32", "cosine")[1] == NO_ROW
    x[1, 4] = 0.1  # constant: a direction, but none once centred
    x[1, 7] = 0
    for order in ORDERS:
        assert statistics(kernels, x, "float32", "cosine", order=order)[1] == 9 + 7
        assert statistics(kernels, x, "float32", "correlation", order=order)[1] == 9 + 4
    x[0, 3, 2], x[1, 8, 0] = np.inf, np.nan
    for metric in ("correlation", "manhattan"):  # which needs no statistics, only the check
        bad = np.zeros(2, np.int64)
        kernels.row_statistics_launch(x, None, bad, CODES["float32"], METRICS.index(metric), 18, 5)
        assert bad.tolist() == [3, 9 + 4 if metric == "correlation" else NO_ROW]


def test_only_layers_with_a_long_list_are_computed():
    kernels, x = Kernels("pairwise_distance.cu", "checked"), data((3, 70, None, 9), "float32")[0][0]
    whole = forward(kernels, x, None, "float32", "sqeuclidean")
    out = np.full_like(whole, 7)
    kernels.pairwise_distance_launch(
        x, None, None, None, out, np.array([4, 5, 6], np.int32), 4, 0, METRICS.index("sqeuclidean"), 3, 70, 70, 9, 0
    )
    assert (out[0] == 7).all()
    assert np.array_equal(out[1:], whole[1:])


def test_bad_arguments_are_refused():
    kernels = Kernels("pairwise_distance.cu", "checked")
    x, out = np.ones((1, 2, 2), np.float32), np.ones((1, 2, 2), np.float32)
    for dtype, metric, condensed in ((9, 0, 0), (0, 6, 0), (0, -1, 0), (0, 1, 0), (0, 0, 1)):
        with pytest.raises(KernelError):
            kernels.pairwise_distance_launch(x, x, None, None, out, None, 0, dtype, metric, 1, 2, 2, 2, condensed)
