"""csrc/cuda/split_gradient.cu, and its products by split_matrix.cu, on the CPU, against float64.

They are executed with the arithmetic of tensor cores.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accuracy import ORDERS, stored
from core_arithmetic import CAPABILITIES, split_products
from faults import faulty_sources
from gpu_executor import Device, KernelError, Kernels
from gradients import Operand, exact_gradient, exact_weights, gradient, points, weights
from split import exact_distances, in_form, provisional_mean

from bertft.ops import reference
from bertft.ops.rows import metric_rows_backward

# Of the sums of absolute terms: what halves, tensor cores and rounding may lose, docs/gpu.md; seen is a tenth of it.
HALVES, CORES, ROUNDED = 2**-21, 2**-19, 2**-22
# layers, n, m or None for y = x, d: one row, tails of tiles, patches and lines, more rows than a tile
SHAPES = [(1, 1, None, 3), (2, 37, None, 33), (1, 130, None, 20), (1, 5, 131, 34), (1, 70, 1, 9)]


def data(shape, seed=0, mean=3.0):
    """x, y or None, and the gradient of their distances, float32; rows about a common mean."""
    layers, n, m, d = shape
    random = np.random.default_rng(seed)
    centre = mean * random.standard_normal(d)
    x = (random.standard_normal((layers, n, d)) + centre).astype(np.float32)
    y = None if m is None else (random.standard_normal((layers, m, d)) + centre).astype(np.float32)
    return x, y, random.standard_normal((layers, n, n if m is None else m)).astype(np.float32)


def distances(x, y, metric):
    """Distances as float32 saves them for the gradient."""
    return exact_distances(x.astype(np.float64), None if y is None else y.astype(np.float64), metric).astype(np.float32)


def bound(w, u, v, metric):
    """Largest errors (L, n, d) that the scheme allows: of the terms' sizes, and of what is small beside the largest."""
    _, size = exact_gradient(w, u, v, metric)
    small = np.abs(w).max(-1, keepdims=True) * np.abs(v).sum(1, keepdims=True)
    small = small + np.abs(w).sum(-1, keepdims=True) * np.abs(v).max(1, keepdims=True)
    return size * (HALVES + CORES + ROUNDED + v.shape[1] / 16 * 2**-24) + small * 2**-37


def rows_of(x, y, metric):
    """Both sides in the metric's form less the mean of x, float64."""
    u = in_form(x.astype(np.float64), metric)
    mean = 0 if metric == "dot" else provisional_mean(u)[:, None]
    return u - mean, (u if y is None else in_form(y.astype(np.float64), metric)) - mean


def check(x, y, g, metric, *, condensed=False, dtype="float32", exact=None, share=1.0, **options):
    wide = (x, y) if exact is None else exact
    u, v = rows_of(*wide, metric)
    dist = distances(*wide, metric) if metric == "euclidean" else None
    if condensed:
        i, j = np.triu_indices(x.shape[1], 1)
        g, dist = (None if t is None else np.ascontiguousarray(t[:, i, j]) for t in (g, dist))
    w = exact_weights(g, dist, metric, x.shape[1], symmetric=y is None, condensed=condensed)
    found = gradient(x, y, g, dist, metric, condensed=condensed, dtype=dtype, **options)
    sides = [(w, u, v)] if y is None else [(w, u, v), (w.swapaxes(1, 2), v, u)]
    for out, side in zip(found, sides, strict=False):
        assert (np.abs(out - exact_gradient(*side, metric)[0]) <= share * bound(*side, metric)).all()
    return found


@pytest.mark.parametrize("metric", ["dot", "cosine", "euclidean"])
def test_against_float64(metric):
    for shape in {"dot": SHAPES[1:2], "cosine": SHAPES[::4], "euclidean": SHAPES[2:4]}[metric]:
        check(*data(shape), metric)


@pytest.mark.slow
def test_against_float64_in_plain_mode():
    for shape, metric in zip(SHAPES, ("euclidean", "cosine", "correlation", "sqeuclidean", "dot"), strict=True):
        check(*data(shape), metric, mode="plain")
        if shape[2] is None:
            check(*data(shape), metric, mode="plain", condensed=True)


def test_condensed():
    check(*data((2, 37, None, 9)), "euclidean", condensed=True)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_types(dtype):
    x, _, g = data((1, 20, None, 9))
    x, exact = stored(x, dtype)
    check(x, None, g, "sqeuclidean", dtype=dtype, exact=(exact.astype(np.float32), None))


def test_same_bits_in_every_order_and_with_two_stages():
    x, _, g = data((1, 40, None, 9))
    first, _ = gradient(x, None, g, None, "sqeuclidean")
    for order in ORDERS[1:]:
        assert np.array_equal(gradient(x, None, g, None, "sqeuclidean", order=order, seed=2)[0], first)
    two = Device(shared_limit=163 << 10)
    assert np.array_equal(gradient(x, None, g, None, "sqeuclidean", device=two)[0], first)


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_bits_of_the_card(capability):
    """Powers of two of rows and columns, halves, products promoted after 16 terms, then one fused multiply-add."""
    x, _, g = data((1, 40, None, 24), seed=1)
    g *= (10.0 ** np.random.default_rng(2).uniform(-3, 3, (1, 40, 1))).astype(np.float32)
    device = Device(compute_capability=capability)
    found, _ = gradient(x, None, g, None, "sqeuclidean", device=device)

    mean = provisional_mean(x.astype(np.float64)).astype(np.float32)
    u = (x.astype(np.float64) - mean[:, None]).astype(np.float32)[0]
    each = 2 * g[0] * (1 - np.eye(40, dtype=np.float32))
    largest = 2 * np.maximum(np.abs(each).max(0), np.abs(each).max(1))
    (w_hi, w_lo, left), (u_hi, u_lo, right) = halves(each + each.T, largest[:, None]), halves(u, np.abs(u).max(0))
    pad = lambda part: np.pad(part, ((0, 0), (0, 8)))
    products = split_products(pad(w_hi), pad(w_lo), capability, right=(pad(u_hi.T), pad(u_lo.T)))
    sums = (each.astype(np.float64).sum(0) + each.astype(np.float64).sum(1)).astype(np.float32)
    less = products * left * right
    expected = (sums[:, None].astype(np.float64) * u - less).astype(np.float32)
    assert np.array_equal(found[0], expected)


def halves(values, largest):
    """High and low parts of float32 values, and the power of two that takes the largest back."""
    power = 13 - (np.frexp(largest)[1] - 1)
    scaled = np.ldexp(values.astype(np.float64), power)
    high = scaled.astype(np.float16)
    return high, (scaled - high).astype(np.float16), np.ldexp(np.float32(1), -power).astype(np.float32)


def rogue(n, d, spread, seed=3):
    """Rows with a large mean in two dimensions, which (``spread``) also vary 30 and 60 times as much."""
    x, _, _ = data((1, n, None, d), seed=seed, mean=1.0)
    x[..., 3] = x[..., 3] * (30 if spread else 1) + 40
    x[..., 11] = x[..., 11] * (60 if spread else 1) - 25
    return x


@pytest.mark.parametrize(
    ("metric", "spread", "bound"), [("cosine", False, 3e-7), ("cosine", True, 7e-7), ("euclidean", True, 3e-7)]
)
def test_large_mean_and_rogue_dimensions(metric, spread, bound):
    """Of x, by autograd in float64. Stated: 1e-6 of the largest (docs/gpu.md); with a margin of two: ``bound``."""
    x, y = rogue(20, 32, spread), rogue(400, 32, spread, seed=4)
    g = np.random.default_rng(5).standard_normal((1, 20, 400)).astype(np.float32)
    leaf = torch.tensor(x, dtype=torch.float64).requires_grad_()
    out = reference.pairwise_distance(leaf, torch.tensor(y, dtype=torch.float64), metric=metric)
    (exact,) = torch.autograd.grad((out * torch.tensor(g)).sum(), leaf)
    found, _ = gradient(x, y, g, out.detach().numpy().astype(np.float32), metric)
    found = metric_rows_backward(torch.tensor(x), torch.tensor(found), metric)
    assert (found - exact).abs().max() <= bound * exact.abs().max()


def test_fast_gradients_err_as_float16_does():
    x, y, g = data((1, 20, 130, 9))
    u, v = rows_of(x, y, "cosine")
    exact, size = exact_gradient(g.astype(np.float64), u, v, "cosine")
    found, _ = gradient(x, y, g, None, "cosine", fast=True)
    error = np.abs(found - exact).max()
    assert 2**-16 * size.max() < error <= 2**-10 * size.max()


def test_any_range_of_values():
    """Rows, columns and layers of all magnitudes: each column keeps its digits, and each row of weights."""
    x, _, g = data((2, 36, None, 12), mean=0.0)
    random = np.random.default_rng(6)
    x *= (10.0 ** random.uniform(-6, 6, 12)).astype(np.float32)
    x[0] *= np.float32(1e-17)
    g *= (10.0 ** random.uniform(-4, 4, (2, 36, 1))).astype(np.float32)
    for factor in (1e-20, 1e20):
        check(x, None, g * np.float32(factor), "dot")


@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean", "cosine"])
def test_equal_rows_have_no_gradient(metric):
    """All rows equal; two rows equal (the root has no slope there); and entries of a row with itself."""
    x, _, g = data((1, 40, None, 10))
    same = np.repeat(x[:, :1], 40, 1)
    found, _ = gradient(same, None, g, np.zeros_like(g), metric)
    assert (np.abs(found) <= (1e-12 if metric == "cosine" else 0)).all()  # a unit row's mean is rounded
    found, _ = gradient(x, None, g * np.eye(40, dtype=np.float32), distances(x, None, metric), metric)
    assert not found.any()
    if metric == "euclidean":
        x[0, 30], one = x[0, 4], np.zeros_like(g)
        one[0, 4, 30] = 1
        assert not gradient(x, None, one, distances(x, None, metric), metric)[0].any()


def test_what_is_not_finite_stays_in_its_rows():
    x, _, g = data((1, 40, None, 10))
    g[0, 3, 7] = np.nan
    found, _ = gradient(x, None, g, None, "sqeuclidean")
    assert (np.isnan(found[0]).all(1) == np.isin(np.arange(40), (3, 7))).all()
    assert np.isfinite(found[0][[0, 20]]).all()


def test_halves_and_sums_of_both_sides():
    """Joined again they are the weights and the rows, to 22 bits of each; zeros beyond."""
    _, y, g = data((2, 37, 130, 33))
    kernels = Kernels("split_gradient.cu", "plain")
    sides = weights(kernels, g, None, "cosine", 37, 130, symmetric=False)
    for side, exact in zip(sides, (g, g.swapaxes(1, 2)), strict=True):
        expect_joined(side, exact, axis=2)
        assert np.abs(side.of_rows - exact.astype(np.float64).sum(2)).max() <= 2**-24 * np.abs(side.of_rows).max()
    mean = provisional_mean(y.astype(np.float64))
    found = points(kernels, y, mean, "euclidean")
    assert np.array_equal(found.of_rows, (y.astype(np.float64) - mean[:, None]).astype(np.float32))
    expect_joined(found, found.of_rows, axis=1)


def expect_joined(side: Operand, exact, axis):
    values = side.halves.astype(np.float64).sum(3).reshape(*side.halves.shape[:2], -1)
    _, n, m = exact.shape
    assert np.array_equal(side.largest, np.abs(exact).max(axis).view(np.uint32))
    joined = np.ldexp(values[:, :n, :m], np.expand_dims((side.largest >> 23).astype(int) - 127 - 13, axis))
    assert (np.abs(joined - exact) <= 2**-22 * np.abs(exact) + 2**-38 * np.abs(exact).max(axis, keepdims=True)).all()
    assert not values[:, n:].any() and not values[:, :, m:].any()


def test_bad_arguments_are_refused():
    x, _, g = data((1, 4, None, 3))
    kernels, products = Kernels("split_gradient.cu", "plain"), Kernels("split_matrix.cu", "plain")
    for metric, dist, symmetric, condensed in (("manhattan", None, 1, 0), ("dot", g, 1, 0), ("dot", None, 0, 1)):
        with pytest.raises(KernelError):
            weights(kernels, g, dist, metric, 4, 4, symmetric=bool(symmetric), condensed=bool(condensed))
    with pytest.raises(KernelError):
        points(kernels, x.astype(np.float64), np.zeros((1, 3)), "dot", dtype="float64")
    part = np.zeros(1, np.uint32)
    with pytest.raises(KernelError):  # sums of rows, but not the rows
        products.split_gradient_launch(part, part, part, part, x, None, x, 1, 4, 4, 3, 0)


# what is wrong: file, text as it is, text with the fault
FAULTS = {
    "weights are read before all have come": (
        "split_gradient.cu", "    __syncthreads();\n    const int sides", "    const int sides"
    ),
    "the power of two of another row": (
        "split_gradient.cu", "(layer) * rows + i] : 0u", "(layer) * rows] : 0u"
    ),
    "a row too many": ("split_gradient.cu", "row < n && column < m", "row <= n && column < m"),
    "sums stay in the core": (
        "split_tile.cuh",
        "bertft_mma_m16n8k16_f16_first(inside[m], a_lo[m], b_hi);",
        "{ for (int e = 0; e < 4; ++e) inside[m][e] = v[m][2 * pair + side][e], v[m][2 * pair + side][e] = 0;"
        " bertft_mma_m16n8k16_f16(inside[m], a_lo[m], b_hi); }",
    ),
    "half a warp looks for the largest": (
        "split_gradient.cu", "__shfl_xor_sync(kAllLanes, most, o)", "__shfl_xor_sync(0xffffu, most, o)"
    ),
}  # fmt: skip


def notices(files) -> bool:
    """Rows, columns and weights of all magnitudes; then long sums, which drift unless they leave the cores."""
    options = {"files": files, "mode": "plain"}
    try:
        x, _, g = data((1, 40, None, 36), mean=0.0)
        x *= (10.0 ** np.random.default_rng(0).uniform(-6, 6, 36)).astype(np.float32)
        g *= (10.0 ** np.random.default_rng(1).uniform(-6, 6, (1, 40, 1))).astype(np.float32)
        check(x, None, g, "sqeuclidean", **options)
        assert not gradient(x, None, g * np.eye(40, dtype=np.float32), None, "sqeuclidean", **options)[0].any()
        x, y, g = rogue(20, 16, True), rogue(768, 16, True, seed=4), data((1, 20, 768, 16))[2]
        check(x, y, g, "sqeuclidean", share=0.1, **options)
    except (AssertionError, KernelError):
        return True
    return False


@pytest.mark.planted
@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_noticed(name, tmp_path):
    folder, file = faulty_sources(tmp_path, *FAULTS[name]), FAULTS[name][0]
    main = "split_matrix.cu" if file.endswith("h") else file
    assert notices({main: folder / main})


@pytest.mark.slow
def test_nothing_is_noticed_without_a_fault():
    assert not notices({})
