"""Bits of the executor's float16 products.

They are those of A100's and H100's tensor cores (runtime/core_arithmetic.cpp).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from core_arithmetic import CAPABILITIES, core_products
from gpu_executor import Device, Kernels

LANES = np.arange(32)
INSTRUCTIONS = Path(__file__).parent / "instructions.cu"


def instruction(kernels: Kernels, a: np.ndarray, b: np.ndarray, c: np.ndarray, name: str = "run_f16") -> np.ndarray:
    """Return c (16, 8) + a (16, 16) b' (8, 16) from fragments in the layout of the PTX manual (`test_instructions`)."""
    group, quad = LANES[:, None] // 4, LANES[:, None] % 4
    v = np.arange(8)
    of_a = np.ascontiguousarray(a[group + 8 * (v // 2 % 2), 2 * quad + v % 2 + 8 * (v // 4)])
    of_b = np.ascontiguousarray(b[group, (2 * quad + v % 2 + 8 * (v // 2))[:, :4]])
    rows, columns = (group + 8 * (v // 2))[:, :4], (2 * quad + v % 2)[:, :4]
    d = np.ascontiguousarray(c[rows, columns])
    kernels.call(name, of_a.view(np.uint32), of_b.view(np.uint32), d)
    out = np.empty_like(c)
    out[rows, columns] = d
    return out


def halves(random: np.random.Generator, shape: tuple[int, ...], spread: int) -> np.ndarray:
    """Of all magnitudes within 2^-spread .. 2^(spread / 2), a tenth of them zero."""
    exponents = random.integers(-spread, spread // 2 + 1, shape)
    values = random.standard_normal(shape) * 2.0**exponents * (random.random(shape) > 0.1)
    return values.clip(-60000, 60000).astype(np.float16)


@pytest.mark.parametrize("mode", ("plain", "checked"))
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_bits(mode, capability):
    """From operands of one magnitude to such as reach float16's subnormal numbers."""
    kernels = Kernels(INSTRUCTIONS, mode, device=Device(compute_capability=capability))
    random = np.random.default_rng(capability)
    for spread in (0, 3, 12, 24):
        for _ in range(8):
            a, b = halves(random, (16, 16), spread), halves(random, (8, 16), spread)
            c = (random.standard_normal((16, 8)) * 2.0 ** random.integers(-30, 6)).astype(np.float32)
            expected = core_products(a[:, None], b[None], c, capability)
            assert np.array_equal(instruction(kernels, a, b, c), expected)
            expected = core_products(a[:, None], b[None], np.zeros_like(c), capability)
            assert np.array_equal(instruction(kernels, a, b, c, "run_f16_first"), expected)


# Fifteen small products beside one of 1. H100 adds 16 at once and keeps two bits below 2^-23: 15 / 4 and 15 / 2 of it
# are cut to 3 and 7. A100 adds 8 at once and keeps one: 2^-25 vanishes, 7 / 2 is cut to 3, and 8 / 2 more make 7.
UNIT = 2.0**-23
CUTS = [(UNIT / 4, {80: 1.0, 90: 1 + 3 * UNIT}), (UNIT / 2, {80: 1 + 7 * UNIT, 90: 1 + 7 * UNIT})]


@pytest.mark.parametrize("sign", (1, -1))
@pytest.mark.parametrize(("small", "expected"), CUTS)
def test_cores_cut_towards_zero(small, expected, sign):
    """By hand; rounded to nearest, the sums would be 1 + 4 and 1 + 8 units."""
    a, b = np.zeros((16, 16), np.float16), np.zeros((8, 16), np.float16)
    a[:, 0], a[:, 1:] = sign, sign * small * 2.0**12
    b[:, 0], b[:, 1:] = 1, 2.0**-12
    for capability in CAPABILITIES:
        kernels = Kernels(INSTRUCTIONS, "plain", device=Device(compute_capability=capability))
        out = instruction(kernels, a, b, np.zeros((16, 8), np.float32))
        assert np.array_equal(out, np.full((16, 8), sign * expected[capability], np.float32))


def test_what_is_not_finite_stays_in_its_row():
    kernels = Kernels(INSTRUCTIONS, "plain")
    a, b = np.ones((16, 16), np.float16), np.ones((8, 16), np.float16)
    a[3, 5], a[4, 0] = np.nan, np.inf
    out = instruction(kernels, a, b, np.zeros((16, 8), np.float32))
    assert np.isnan(out[3]).all()
    assert np.isposinf(out[4]).all()
    assert (np.delete(out, (3, 4), 0) == 16).all()
