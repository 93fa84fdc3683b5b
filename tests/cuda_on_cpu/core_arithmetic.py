"""Tensor-core products of float16, emulated in NumPy.

The executor must compute these products of A100 and H100.

The parameters are those of ``runtime/core_arithmetic.cpp``, which names their source; the formula is written anew here,
for arrays, so that a slip in one of the two shows.
"""

from __future__ import annotations

import numpy as np

CAPABILITIES = (80, 90)
BLOCK = {80: 8, 90: 16}  # products that are added at once
EXTRA = {80: 1, 90: 2}  # fraction bits beyond float32's 23
NOTHING = -(1 << 20)  # the exponent of zero


def core_products(a: np.ndarray, b: np.ndarray, c: np.ndarray, capability: int) -> np.ndarray:
    """``c + (a * b).sum(-1)`` of 16 columns as one instruction leaves it: a, b (..., 16) float16, c (...) float32."""
    for first in range(0, 16, BLOCK[capability]):
        part = slice(first, first + BLOCK[capability])
        c = _block(a[..., part], b[..., part], c, EXTRA[capability])
    return c


def split_products(
    hi: np.ndarray, lo: np.ndarray, capability: int, *, promoted: bool = True, right: tuple | None = None
) -> np.ndarray:
    """Products (n, m) of rows that are sums of two halves (n, K) float16: lo.hi + hi.lo + hi.hi, 16 columns at a time.

    ``right``: both halves (m, K) of the other rows, or None for the same. ``promoted``: after 16 columns the three
    products are added outside the core, rounded to nearest.
    """
    right_hi, right_lo = right or (hi, lo)
    total = np.zeros((len(hi), len(right_hi)), np.float32)
    for first in range(0, hi.shape[1], 16):
        part = slice(first, first + 16)
        inside = np.zeros_like(total) if promoted else total
        for a, b in ((lo, right_hi), (hi, right_lo), (hi, right_hi)):
            inside = core_products(a[:, None, part], b[None, :, part], inside, capability)
        total = total + inside if promoted else inside
    return total


def high_products(hi: np.ndarray, capability: int) -> np.ndarray:
    """Products (n, n) of rows of halves (n, K): 64 columns inside the core, their sums outside, rounded to nearest."""
    total = np.zeros((len(hi), len(hi)), np.float32)
    for chunk in range(0, hi.shape[1], 64):
        inside = np.zeros_like(total)
        for first in range(chunk, min(chunk + 64, hi.shape[1]), 16):
            part = slice(first, first + 16)
            inside = core_products(hi[:, None, part], hi[None, :, part], inside, capability)
        total = total + inside
    return total


def _block(a: np.ndarray, b: np.ndarray, c: np.ndarray, extra: int) -> np.ndarray:
    x, y, start = _scaled(a, 10, -14), _scaled(b, 10, -14), _scaled(c, 23, -126)
    products, exponents = x[0] * y[0], x[1] + y[1]
    exponents = np.where(products == 0, NOTHING, exponents)
    largest = np.maximum(exponents.max(-1), start[1])
    total = _shifted(products << (3 + extra), largest[..., None] - exponents).sum(-1)
    total += _shifted(start[0] << extra, largest - start[1])
    return _cut(total, np.where(total == 0, 0, largest - 23 - extra))


def _scaled(values: np.ndarray, fraction: int, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Integers and exponents: values = integer * 2^(exponent - fraction)."""
    values = np.asarray(values, np.float64)
    exponents = np.maximum(np.frexp(values)[1].astype(np.int64) - 1, least)
    integers = np.ldexp(values, fraction - exponents).astype(np.int64)
    return integers, np.where(values == 0, NOTHING, exponents)


def _shifted(integers: np.ndarray, places: np.ndarray) -> np.ndarray:
    return np.sign(integers) * (np.abs(integers) >> np.minimum(places, 62))


def _cut(integers: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    """Return integer * 2^exponent, cut to its 24 leading bits."""
    surplus = np.maximum(np.frexp(integers.astype(np.float64))[1].astype(np.int64) - 24, 0)
    return np.ldexp(_shifted(integers, surplus).astype(np.float64), exponents + surplus).astype(np.float32)
