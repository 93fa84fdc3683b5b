"""csrc/cuda/split_matrix.cu on the CPU, against float64.

It is executed with the arithmetic of tensor cores.
"""

from __future__ import annotations

import numpy as np
import pytest
from accuracy import MODES, ORDERS, stored
from core_arithmetic import CAPABILITIES, core_products, split_products
from faults import faulty_sources
from gpu_build import CSRC
from gpu_executor import Device, KernelError, Kernels
from matrices import halves, product, rows_summed

# layers, n, k, m: tails of the 128 rows and columns of a tile and of the 32 terms of a stage, fewer terms than the ring
# holds, and more
SHAPES = [(1, 1, 1, 1), (2, 130, 40, 129), (1, 5, 200, 20)]


def of(mode="checked", **options):
    return Kernels("split_matrix.cu", mode, **options)


def drawn(layers, n, k, m, seed=0):
    random = np.random.default_rng(seed)
    return [random.standard_normal(shape).astype(np.float32) for shape in ((layers, n, k), (layers, k, m))]


def turned(a):
    return np.ascontiguousarray(a.swapaxes(-1, -2))


def check(found, a, b, bound=3e-7):
    """Within ``bound`` of the layer's largest sum of absolute products; 3e-7 is float32's own error in such sums."""
    exact, scale = a.astype(np.float64) @ b, np.abs(a).astype(np.float64) @ np.abs(b)
    assert (np.abs(found - exact).max((1, 2)) <= bound * scale.max((1, 2))).all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_against_float64(mode, shape):
    kernels, (a, b) = of(mode), drawn(*shape)
    check(product(kernels, a, b), a, b)
    check(rows_summed(kernels, turned(a), b), a, b)


def test_fast_products_err_as_float16_does():
    """By 2^-11 of each factor at most, 2^-10 of a product; the cores lose little beside that."""
    kernels, (a, b) = of("plain"), drawn(2, 20, 130, 9)
    for found in (product(kernels, a, b, fast=True), rows_summed(kernels, turned(a), b, fast=True)):
        check(found, a, b, bound=2**-10)
        rounded = (np.ldexp(np.ldexp(part, 8).astype(np.float16).astype(np.float64), -8) for part in (a, b))
        check(found, *rounded)


@pytest.mark.parametrize(("fast", "of_loss", "of_gradient"), [(False, 1e-6, 1e-6), (True, 1e-4, 1e-3)])
def test_probe_losses_err_as_their_docstring_says(fast, of_loss, of_gradient):
    """Of one sentence of 30 words, 768 dimensions, rank 16: points and gradient from the kernels, the rest exact."""
    kernels, (h, weight) = of("plain"), drawn(1, 30, 768, 16)
    weight *= np.float32(0.03)
    gold = np.random.default_rng(2).integers(0, 9, (30, 30))
    gold = np.triu(gold, 1) + np.triu(gold, 1).T

    def loss_and_gradient_of(points):
        points = points.astype(np.float64)
        apart = points[:, None] - points[None]
        error = (apart**2).sum(-1) - gold
        return np.abs(error).mean(), 4 / 900 * (np.sign(error)[..., None] * apart).sum(1)

    loss, exact = loss_and_gradient_of(h[0].astype(np.float64) @ weight[0])
    found, slope = loss_and_gradient_of(product(kernels, h, weight, fast=fast)[0])
    assert abs(found - loss) <= of_loss * loss
    exact = h[0].T.astype(np.float64) @ exact
    gradient = rows_summed(kernels, h, slope[None].astype(np.float32), fast=fast)[0]
    assert np.abs(gradient - exact).max() <= of_gradient * np.abs(exact).max()


@pytest.mark.parametrize("fast", [False, True])
def test_same_bits_in_every_order_and_with_two_stages(fast):
    kernels, (a, b) = of(), drawn(1, 130, 70, 9)
    for call, left in ((product, a), (rows_summed, turned(a))):
        first = call(kernels, left, b, fast=fast)
        for order in ORDERS:
            assert np.array_equal(call(kernels, left, b, fast=fast, order=order, seed=3), first)
        assert np.array_equal(call(of(device=Device(shared_limit=163 << 10)), left, b, fast=fast), first)


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_bits_of_the_card(capability):
    """Of a product with itself turned over: 16 terms at a time, in their order, promoted after each."""
    kernels = of("plain", device=Device(compute_capability=capability))
    a = np.random.default_rng(1).standard_normal((1, 40, 200)).astype(np.float32)
    split, largest = halves(kernels, a)
    hi, lo = (np.ascontiguousarray(split[0, :40, :, part].reshape(40, 256)) for part in (0, 1))
    scale = np.float32(2.0 ** (int(largest[0] >> 23) - 127 - 13))
    exact = split_products(hi, lo, capability) * scale * scale
    assert np.array_equal(product(kernels, a, turned(a))[0], exact)
    assert np.array_equal(rows_summed(kernels, turned(a), turned(a))[0], exact)
    total = np.zeros((40, 40), np.float32)
    for first in range(0, 256, 16):
        part = slice(first, first + 16)
        total += core_products(hi[:, None, part], hi[None, :, part], np.zeros_like(total), capability)
    assert np.array_equal(product(kernels, a, turned(a), fast=True)[0], total * scale * scale)


@pytest.mark.slow
def test_layers_and_ranges_of_rows_are_added_in_one_order():
    """Of 1,030 rows, two ranges, at once or one at a time; layers with powers of two of their own."""
    kernels, random = of("plain"), np.random.default_rng(4)
    u, v = ((random.standard_normal((2, 1030, d)) + 1).astype(np.float32) for d in (9, 5))
    u[0] *= np.float32(1e6)
    found = rows_summed(kernels, u, v)
    check(found, turned(u), v)
    assert np.array_equal(rows_summed(kernels, u, v, ranges=1), found)
    assert np.array_equal(rows_summed(kernels, u[1:], v[1:]), found[1:])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_types_are_split_without_loss(dtype):
    kernels, (a, _) = of(), drawn(1, 40, 30, 1)
    a, exact = stored(a, dtype)
    split, largest = halves(kernels, a, dtype=dtype)
    again, same = halves(kernels, exact.astype(np.float32))
    assert np.array_equal(split, again) and np.array_equal(largest, same)
    joined = np.ldexp(split.astype(np.float64).sum(3).reshape(1, 128, 128), int(largest[0] >> 23) - 127 - 13)
    assert np.array_equal(joined[:, :40, :30], exact) and not joined[:, 40:].any() and not joined[:, :, 30:].any()


@pytest.mark.parametrize("factor", [1e-30, 1e-15, 1e15])
def test_any_range_of_values(factor):
    kernels, (a, b) = of("plain"), drawn(1, 6, 50, 40)
    a *= np.float32(factor)
    check(product(kernels, a, b), a, b)
    check(rows_summed(kernels, turned(a), b), a, b)


def test_zeros_and_what_is_not_finite():
    kernels, (a, b) = of(), drawn(1, 6, 50, 40)
    assert not product(kernels, np.zeros_like(a), b).any()
    for value in (np.nan, np.inf):
        a[0, 2, 7] = value
        assert not np.isfinite(product(kernels, a, b)[0, 2]).any()
        assert not np.isfinite(rows_summed(kernels, turned(a), b)[0, 2]).any()


def test_bad_arguments_are_refused():
    kernels, (a, b) = of(), drawn(1, 2, 3, 4)
    split, out = (*halves(kernels, a), *halves(kernels, b)), np.ones(12, np.float32)
    for layers, n, k, m in ((-1, 2, 3, 4), (1, -2, 3, 4), (1, 2, 0, 4), (1, 2, 3, 0)):
        with pytest.raises(KernelError):
            kernels.split_product_launch(*split, out, layers, n, k, m, 0)
    for layers, n, d, e, most in ((-1, 2, 3, 4, 1), (1, 0, 3, 4, 1), (1, 2, 0, 4, 1), (1, 2, 3, 0, 1), (1, 2, 3, 4, 0)):
        with pytest.raises(KernelError):
            kernels.split_sum_launch(*split, out, most, np.zeros(12), out, layers, n, d, e, 0)
    kernels.split_product_launch(*split, out, 1, 0, 3, 4, 0)
    assert (out == 1).all()
    with pytest.raises(KernelError):  # float64
        kernels.split_matrix_launch(a.astype(np.float64), split[0], split[1], 1, 1, 2, 3)


# what is wrong: file, text as it is, text with the fault
FAULTS = {
    "columns of the first tile only": ("split_matrix.cu", "rows_b * lines_b + bj * kOfTile", "rows_b * lines_b"),
    "the matrix of another layer": ("split_matrix.cu", "row = blockIdx.z * padded + begin", "row = begin"),
    "terms too few": ("split_matrix.cu", "place[2] = (depth + kDepth - 1) / kDepth", "place[2] = depth / kDepth"),
    "the power of two of another layer": ("split_matrix.cu", "q * 32 + lane : layer]", "q * 32 + lane : 0]"),
    "a range of rows too long": (
        "split_matrix.cu", "min(static_cast<long long>(kRows), padded", "min(kRows + 32ll, padded"
    ),
    "eight terms twice": ("split_across.cuh", "turned(t % 16, t / 32", "turned(t % 8, t / 32"),
    "pieces added instead of exchanged": ("split_matrix.cu", "^ (2 * k << 3)", "+ (2 * k << 3)"),
    "high parts for low ones": ("split_across.cuh", "stage + (first ^ (4 << 3)) + part", "stage + first + part"),
    "rows of a warp one apart": ("split_across.cuh", "(to ^ (e % 2 * 4 << 3))", "to"),
    "the first range of rows is lost": ("split_matrix.cu", "begins ? 0.0 : total[at]", "0.0"),
}  # fmt: skip


def notices(source) -> bool:
    kernels, random = Kernels(source, "plain"), np.random.default_rng(0)
    a, b = (random.standard_normal(shape).astype(np.float32) for shape in ((2, 20, 1060), (2, 1060, 130)))
    b[1] *= 1e3
    try:
        check(product(kernels, a, b), a, b)
        check(rows_summed(kernels, turned(a), b, ranges=1), a, b)
    except (AssertionError, KernelError):
        return True
    return False


@pytest.mark.planted
@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_noticed(name, tmp_path):
    assert notices(faulty_sources(tmp_path, *FAULTS[name]) / "split_matrix.cu")


@pytest.mark.slow
def test_nothing_is_noticed_without_a_fault():
    assert not notices(CSRC / "cuda" / "split_matrix.cu")
