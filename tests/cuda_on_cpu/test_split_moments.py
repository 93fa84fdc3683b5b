"""csrc/cuda/split_moments.cu on the CPU, against float64.

It is executed with the arithmetic of tensor cores.
"""

from __future__ import annotations

import numpy as np
import pytest
from accuracy import MODES, ORDERS
from core_arithmetic import CAPABILITIES, split_products
from gpu_executor import Device, KernelError, Kernels
from split import columns, sums

# n, d, e (None: u with itself): tails of the 32 rows of a stage, of a range of 1,024, of the 128 columns of a tile
SHAPES = [(1, 1, None), (40, 130, 70), (33, 20, 150), (1100, 20, 33), (70, 150, None)]


def rows(n, d, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def check(found, u, v=None):
    """Within 2e-7 of the sum of absolute products, the largest of them: float32's own error in sums of this length."""
    a, b = (m.astype(np.float64) for m in (u, u if v is None else v))
    assert np.abs(found - a.T @ b).max() <= 2e-7 * (np.abs(a).T @ np.abs(b)).max()


@pytest.mark.parametrize("mode", MODES)
def test_against_float64(mode):
    kernels = Kernels("split_moments.cu", mode)
    for n, d, e in SHAPES:
        u, v = rows(n, d), None if e is None else rows(n, e, seed=1)
        found, _ = sums(kernels, u, v)
        check(found, u, v)
        assert e is not None or np.array_equal(found, found.T)


def test_sums_are_added_to_what_is_there():
    kernels, (u, v) = Kernels("split_moments.cu", "checked"), (rows(33, 40), rows(33, 9, seed=1))
    before = np.random.default_rng(2).standard_normal((40, 9))
    assert np.array_equal(sums(kernels, u, v, before.copy())[0], before + sums(kernels, u, v)[0])
    own = np.random.default_rng(3).standard_normal((40, 40))
    assert np.array_equal(sums(kernels, u, None, own.copy())[0], own + sums(kernels, u)[0])


def test_same_bits_in_every_order():
    kernels, (u, v) = Kernels("split_moments.cu", "checked"), (rows(70, 140), rows(70, 20, seed=1))
    for second in (None, v):
        first, _ = sums(kernels, u, second)
        for order in ORDERS:
            assert np.array_equal(sums(kernels, u, second, order=order, seed=3)[0], first)


def test_same_bits_with_two_stages_as_with_three():
    u = rows(300, 20)
    three, two = (Kernels("split_moments.cu", "checked", device=Device(shared_limit=s << 10)) for s in (227, 163))
    assert np.array_equal(sums(three, u)[0], sums(two, u)[0])


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_bits_of_the_card(capability):
    """Rows are summed 16 at a time, in their order, promoted after each: what an A100 or an H100 leaves."""
    kernels = Kernels("split_moments.cu", "plain", device=Device(compute_capability=capability))
    u = rows(200, 40)
    _, partial = sums(kernels, u)
    halves = columns(kernels, u)[0].view(np.float16).reshape(256, 4, 2, 32)
    hi, lo = (np.ascontiguousarray(halves[:, :, part].reshape(256, 128)[:, :40].T) for part in (0, 1))
    assert np.array_equal(np.triu(partial[0]), np.triu(split_products(hi, lo, capability)))


@pytest.mark.parametrize("factor", (1e-30, 1e-10, 1e10, 1e15))
def test_any_range_of_values(factor):
    u = (rows(50, 30) * np.float32(factor)).astype(np.float32)
    u[:, 3] *= 1e-3
    check(sums(Kernels("split_moments.cu", "plain"), u)[0], u)


@pytest.mark.slow
def test_many_rows_with_a_large_mean():
    """What truncation inside the cores would spoil: products that all have one sign."""
    kernels, u = Kernels("split_moments.cu", "plain"), rows(3000, 8) * np.float32(0.1) + 1
    found, _ = sums(kernels, u)
    check(found, u)
    for ranges in (2, 1):  # at a time: the order of the doubles is the same, the groups are not
        assert np.allclose(sums(kernels, u, ranges=ranges)[0], found, rtol=1e-14)


def test_zeros_and_what_is_not_finite():
    kernels = Kernels("split_moments.cu", "checked")
    assert not sums(kernels, np.zeros((40, 9), np.float32))[0].any()
    for value in (np.nan, np.inf):
        u = rows(40, 9)
        u[3, 4] = value
        assert not np.isfinite(sums(kernels, u)[0][4]).any()


def test_bad_arguments_are_refused():
    kernels, u = Kernels("split_moments.cu", "checked"), rows(4, 4)
    halves, largest = columns(kernels, u)
    for n, d, e in ((-1, 4, 4), (4, 0, 4), (4, 4, 0)):
        with pytest.raises(KernelError):
            kernels.split_moments_launch(
                halves, halves, largest, largest, np.zeros(16, np.float32), 1, np.zeros((4, 4)), n, d, e, 2
            )
    total = np.ones((4, 4))
    kernels.split_moments_launch(halves, None, largest, None, np.zeros(16, np.float32), 1, total, 0, 4, 4, 2)
    assert (total == 1).all()
