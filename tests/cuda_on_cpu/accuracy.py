"""Accuracy that a kernel must reach.

Its error may be at most twice that of plain PyTorch in the same type, both against float64.
"""

from __future__ import annotations

import numpy as np

MODES = ("plain", "checked")
ORDERS = ("ascending", "descending", "random")
CODES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 3, "uint8": 4}
METRICS = ("dot", "cosine", "correlation", "sqeuclidean", "euclidean", "manhattan")


def assert_as_exact(result, plain, exact, *, roundings: float = 4.0, size=None) -> None:
    """Compare ``result`` and ``plain`` (PyTorch, same type) with ``exact`` (float64) by their largest errors.

    ``roundings`` units in the last place of the largest value are always allowed: plain may be right by luck. For sums
    whose terms cancel, ``size`` says what is the largest: the sums of absolute terms.
    """
    result, plain, exact = (np.asarray(v) for v in (result, plain, exact))
    assert result.shape == exact.shape
    if exact.size == 0:
        return
    assert np.isfinite(result).all(), f"{(~np.isfinite(result)).sum()} values are not finite"
    floor = roundings * np.finfo(plain.dtype).eps * np.abs(exact if size is None else np.asarray(size)).max()
    worst = np.abs(result.astype(np.float64) - exact).max()
    allowed = 2 * np.abs(plain.astype(np.float64) - exact).max() + floor
    assert worst <= allowed, f"error {worst:.2e}, allowed {allowed:.2e}"


def stored(values: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """(array as the kernel reads it, its values in float64); bfloat16 travels as uint16."""
    if dtype == "bfloat16":
        bits = values.astype(np.float32).view(np.uint32)
        bits = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
        return bits, (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    array = values.astype(dtype)
    return array, array.astype(np.float64)
