"""Products of matrices split into two halves, on NumPy arrays.

The kernels are those of csrc/cuda/split_matrix.cu.
"""

from __future__ import annotations

import numpy as np
from accuracy import CODES
from gpu_executor import Kernels, Uninitialised


def halves(kernels: Kernels, u: np.ndarray, *, dtype="float32", **options) -> tuple[np.ndarray, np.ndarray]:
    """Return the halves (L, P, C, 2, 32) of u (L, n, d), and the bits of the largest element of each layer."""
    layers, n, d = u.shape
    size, ignored = np.zeros(1, np.int64), np.zeros(1, np.int32)
    kernels.split_matrix_bytes(size, ignored, n, d)
    found, largest = np.empty((layers, int(size[0]) // 2), np.float16), np.zeros(layers, np.uint32)
    kernels.split_matrix_launch(u, Uninitialised(found), largest, CODES[dtype], layers, n, d, **options)
    return found.reshape(layers, -(-n // 128) * 128, -(-d // 128) * 4, 2, 32), largest


def product(kernels: Kernels, a: np.ndarray, b: np.ndarray, fast=False, **options) -> np.ndarray:
    """Return a b (L, n, m) of a (L, n, k) and b (L, k, m)."""
    (layers, n, depth), m = a.shape, b.shape[2]
    out = np.empty((layers, n, m), np.float32)
    split = *halves(kernels, a, **options), *halves(kernels, b, **options)
    kernels.split_product_launch(*split, Uninitialised(out), layers, n, depth, m, int(fast), **options)
    return out


def rows_summed(kernels: Kernels, u: np.ndarray, v: np.ndarray, ranges=8, fast=False, **options) -> np.ndarray:
    """Return u'v (L, d, e) of u (L, n, d) and v (L, n, e); up to ``ranges`` ranges of 1,024 rows at a time."""
    (layers, n, d), e = u.shape, v.shape[2]
    partial, total = np.empty((ranges, layers, d, e), np.float32), np.empty((layers, d, e))
    out = np.empty((layers, d, e), np.float32)
    split = *halves(kernels, u, **options), *halves(kernels, v, **options)
    kernels.split_sum_launch(
        *split, Uninitialised(partial), ranges, Uninitialised(total), Uninitialised(out), layers, n, d, e, int(fast),
        **options,
    )  # fmt: skip
    return out
