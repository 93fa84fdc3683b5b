"""csrc/cuda/cross_moments.cu on the CPU, against float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accuracy import CODES, METRICS, MODES, ORDERS, assert_as_exact, stored
from gpu_executor import KernelError, Kernels, Uninitialised

from bertft.ops import reference

LINEAR = METRICS[:4]
NO_ROW = 0x7F7F7F7F7F7F7F7F
SHAPES = [(1, 3, 2), (9, 33, 5), (40, 7, 32), (530, 4, 3)]  # n, D, E: tails of 8 rows, 32 columns, 512 rows


def prepare(kernels, x, mean, dtype, metric, u_type=np.float32, **options):
    n, d = x.shape
    u, a, p, bad = np.empty((n, d), u_type), np.empty(n), np.empty(n), np.zeros(2, np.int64)
    kernels.prepare_rows_launch(
        x, mean, Uninitialised(u), Uninitialised(a), Uninitialised(p), bad, CODES[dtype], CODES[np.dtype(u_type).name],
        METRICS.index(metric), n, d, **options
    )  # fmt: skip
    return u, a, p, bad


def scratch(kernels, n, width):
    rows = np.zeros(1, np.int32)
    kernels.moment_rows_of_block(rows)
    return Uninitialised(np.empty((-(-n // int(rows[0])), 3, width)))


def moments(kernels, x, y, mean_x, mean_y, dtype, metric_x, metric_y, totals, u_type=np.float32, **options):
    """Add moments to ``totals`` as the binding does, with products by NumPy in the type of u."""
    (n, d), e, code = x.shape, y.shape[1], CODES[np.dtype(u_type).name]
    u, a, p, bad_x = prepare(kernels, x, mean_x, dtype, metric_x, u_type, **options)
    v, b, q, bad_y = prepare(kernels, y, mean_y, dtype, metric_y, u_type, **options)
    assert (bad_x == NO_ROW).all() and (bad_y == NO_ROW).all()
    gram_x, stats_x, cross, stats_xy, gram_y, stats_y = totals
    for product, total in ((u.T @ u, gram_x), (u.T @ v, cross), (v.T @ v, gram_y)):
        kernels.accumulate_launch(np.ascontiguousarray(product), total, code, total.size, **options)
    kernels.space_sums_launch(u, a, p, scratch(kernels, n, d), stats_x, code, n, d, **options)
    kernels.space_sums_launch(v, b, q, scratch(kernels, n, e), stats_y, code, n, e, **options)
    kernels.pair_sums_launch(u, v, a, p, b, q, scratch(kernels, n, max(d, e)), stats_xy, code, n, d, e, **options)


def zeros(d, e):
    return [np.zeros(s) for s in ((d, d), 3 * d + 6, (d, e), 2 * d + 2 * e + 4, (e, e), 3 * e + 6)]


def data(shape, dtype, seed=0):
    n, d, e = shape
    random = np.random.default_rng(seed)
    means = [random.standard_normal(k).astype(np.float32).astype(np.float64) / k**0.5 for k in (d, e)]
    return stored(random.standard_normal((n, d)) + 1, dtype), stored(random.standard_normal((n, e)) - 1, dtype), means


def spaces(x, y, means, metrics, kind):
    """(u, a, p) and (v, b, q) by plain PyTorch in one type."""
    for rows, mean, metric in zip((x, y), means, metrics, strict=True):
        u = reference.metric_rows(torch.tensor(rows, dtype=kind), metric) - torch.tensor(mean, dtype=kind)
        a = (u * u).sum(-1)
        yield u, a, -a / 2 if metric == "sqeuclidean" else u @ torch.tensor(mean, dtype=kind)


def pieces(of_x, of_y):
    """Every sum of the six tensors, one array for each line of the formula."""
    (u, a, p), (v, b, q) = of_x, of_y
    one = torch.ones_like(a)
    weighted = [(u, one), (u, p), (u, a), (v, one), (v, q), (v, b), (u, q), (u, b), (v, p), (v, a)]
    scalars = [(one, one), (a, one), (p, one), (a, a), (a, p), (p, p)]
    scalars += [(one, one), (b, one), (q, one), (b, b), (b, q), (q, q), (a, b), (p, q), (q, a), (p, b)]
    products = [
        u.mT @ u,
        u.mT @ v,
        v.mT @ v,
        *(weight @ rows for rows, weight in weighted),
        *(s @ t for s, t in scalars),
    ]
    return [piece.numpy() for piece in products]


def split(totals):
    """Split the kernels' results into the same pieces."""
    gram_x, stats_x, cross, stats_xy, gram_y, stats_y = totals
    d, e = cross.shape
    vectors = np.split(stats_x, [d, 2 * d, 3 * d]), np.split(stats_y, [e, 2 * e, 3 * e])
    both = np.split(stats_xy, [d, 2 * d, 2 * d + e, 2 * d + 2 * e])
    return [
        gram_x,
        cross,
        gram_y,
        *vectors[0][:3],
        *vectors[1][:3],
        *both[:4],
        *vectors[0][3],
        *vectors[1][3],
        *both[4],
    ]


def check(kernels, shape, dtype, metric_x, metric_y, u_type=np.float32, **options):
    (x, exact_x), (y, exact_y), means = data(shape, dtype)
    results = zeros(*shape[1:])
    half = shape[0] // 2  # in two chunks
    for part in (slice(half), slice(half, None)):
        chunk = [np.ascontiguousarray(v[part]) for v in (x, y)]
        moments(kernels, *chunk, *means, dtype, metric_x, metric_y, results, u_type, **options)
    inputs = exact_x, exact_y, means, (metric_x, metric_y)
    exact = list(spaces(*inputs, torch.float64))
    plain = pieces(*spaces(*inputs, torch.float64 if u_type is np.float64 else torch.float32))
    sizes = pieces(*([v.abs() for v in space] for space in exact))
    # in double the yardstick is off too, by the roundings of a sum: over the rows, and over D in a and p
    roundings = 4 if u_type is np.float32 else shape[0] + 2 * max(shape[1:])
    for result, in_type, wanted, size in zip(split(results), plain, pieces(*exact), sizes, strict=True):
        assert_as_exact(result, in_type, wanted, roundings=roundings, size=size)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("order", ORDERS)
def test_sums(mode, order):
    kernels = Kernels("cross_moments.cu", mode)
    for k, shape in enumerate(SHAPES):
        check(kernels, shape, "float32", LINEAR[k], LINEAR[(k + 1) % 4], order=order)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_types(mode, dtype):
    kernels = Kernels("cross_moments.cu", mode)
    for metric in LINEAR:
        check(kernels, (18, 9, 33), dtype, metric, metric, np.float64)
        check(kernels, (18, 9, 33), dtype, metric, metric)


@pytest.mark.parametrize("metric", LINEAR)
def test_rows(metric):
    """Check that u is as exact as plain PyTorch in float32 makes it, and that a and p are those of the rounded u."""
    (x, exact_x), _, (mean, _) = data((20, 65, 1), "float32")
    u, a, p, _ = prepare(Kernels("cross_moments.cu", "checked"), x, mean, "float32", metric)
    exact, _ = reference.prepared_rows(torch.tensor(exact_x), torch.tensor(mean), metric)
    plain = reference.metric_rows(torch.tensor(x), metric) - torch.tensor(mean).float()
    assert_as_exact(u, plain, exact, roundings=1)
    u, size = u.astype(np.float64), 65 * np.finfo(np.float64).eps  # sums of 65 terms in two orders
    assert (np.abs(a - (u * u).sum(1)) <= size * (u * u).sum(1)).all()
    if metric == "sqeuclidean":
        assert np.array_equal(p, -a / 2)
    else:
        assert (np.abs(p - u @ mean) <= size * (np.abs(u) @ np.abs(mean))).all()


def test_bad_rows_are_found_and_nothing_is_done_for_none():
    kernels = Kernels("cross_moments.cu", "checked")
    (x, _), (y, _), means = data((9, 5, 4), "float32")
    x[3], x[6], x[7, 1] = 0.5, 0, np.inf
    for metric, no_direction in (("dot", NO_ROW), ("sqeuclidean", NO_ROW), ("cosine", 6), ("correlation", 3)):
        for order in ORDERS:
            assert prepare(kernels, x, means[0], "float32", metric, order=order)[3].tolist() == [7, no_direction]
    totals = zeros(5, 4)
    moments(kernels, x[:0], y[:0], *means, "float32", "cosine", "dot", totals)
    assert not any(total.any() for total in totals)
    with pytest.raises(KernelError):
        prepare(kernels, x, means[0], "float32", "manhattan")
