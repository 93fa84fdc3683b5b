"""Gradients of distances over halves, on NumPy arrays.

The kernels are those of csrc/cuda/split_gradient.cu, their products those of csrc/cuda/split_matrix.cu.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from accuracy import CODES, METRICS
from gpu_executor import Kernels, Uninitialised
from split import in_form, provisional_mean


class Operand(NamedTuple):
    """Halves (L, padded, lines, 2, 32), bits of the largest elements, and the sums of rows or the rows themselves."""

    halves: np.ndarray
    largest: np.ndarray
    of_rows: np.ndarray


def weights(kernels, g, dist, metric, n, m, *, symmetric, condensed=False, **options) -> tuple[Operand, Operand | None]:
    """Return the weights of pairs by rows, and those turned over, unless ``symmetric``: of x with itself."""
    layers, sizes = len(g), np.zeros(4, np.int64)
    kernels.split_weights_bytes(sizes, n, m)
    sides = [
        Operand(
            np.empty((layers, -(-rows // 128) * 128, -(-columns // 128) * 4, 2, 32), np.float16),
            np.empty((layers, rows), np.uint32),
            np.empty((layers, rows), np.float32),
        )
        for rows, columns in ((n, m), (m, n))
    ]
    assert [side.halves.nbytes // layers for side in sides] == list(sizes[:2])
    partial = [Uninitialised(np.empty((layers, int(size) // 8))) for size in sizes[2:]]
    given = [None if symmetric and side is sides[1] else Uninitialised(part) for side in sides for part in side]
    kernels.split_weights_launch(
        g, dist, *given, *partial, METRICS.index(metric), layers, n, m, int(symmetric), int(condensed), **options
    )
    return sides[0], None if symmetric else sides[1]


def points(kernels, x, mean, metric, *, dtype="float32", **options) -> Operand:
    """Return x (L, n, d) in the metric's form less ``mean`` (L, d), as the right operand; ``of_rows``: the rows."""
    layers, n, d = x.shape
    found = Operand(
        np.empty((layers, -(-n // 128) * 128, -(-d // 128) * 4, 2, 32), np.float16),
        np.empty((layers, d), np.uint32),
        np.empty((layers, n, d), np.float32),
    )
    halves, largest, rows = map(Uninitialised, found)
    ignored = Uninitialised(np.empty((layers, n), np.float32))
    kernels.split_points_launch(
        x, mean, rows, ignored, halves, largest, CODES[dtype], METRICS.index(metric), layers, n, d, **options
    )
    return found


def gradient(
    x, y, g, dist, metric, *, mode="checked", condensed=False, fast=False, dtype="float32", device=None, files=None,
    **options,
):  # fmt: skip
    """Return the gradients of the rows of x (L, n, d) and y (L, m, d), or None, in the metric's form.

    g and dist: gradient of the distances, and the distances (``euclidean``). ``files``: of other kernels than those of
    csrc/cuda, by name.
    """
    names = ("split_gradient.cu", "split_matrix.cu")
    kernels, products = (Kernels((files or {}).get(name, name), mode, device=device) for name in names)
    exact = _float64(x, dtype)
    mean = np.zeros((len(x), x.shape[2]))
    if metric != "dot":
        mean = provisional_mean(in_form(exact, metric)).astype(np.float32).astype(np.float64)
    sides = [x] if y is None else [x, y]
    rows = [points(kernels, side, mean, metric, dtype=dtype, **options) for side in sides]
    left, right = weights(
        kernels, g, dist if metric == "euclidean" else None, metric, x.shape[1], sides[-1].shape[1],
        symmetric=y is None, condensed=condensed, **options,
    )  # fmt: skip
    first = differences(products, left, rows[0], rows[-1], metric, fast=fast, **options)
    second = None if y is None else differences(products, right, rows[1], rows[0], metric, fast=fast, **options)
    return first, second


def differences(kernels, left: Operand, own: Operand, others: Operand, metric, *, fast=False, **options) -> np.ndarray:
    """Return the gradient (L, n, d) of the rows ``own`` from weights and the rows of the other side."""
    (layers, n, d), depth = own.of_rows.shape, others.of_rows.shape[1]
    out = np.empty((layers, n, d), np.float32)
    terms = (None, None) if metric == "dot" else (left.of_rows, own.of_rows)
    kernels.split_gradient_launch(
        left.halves, left.largest, others.halves, others.largest, *terms, Uninitialised(out), layers, n, depth, d,
        int(fast), **options,
    )  # fmt: skip
    return out


def _float64(x: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "bfloat16":
        return (x.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return x.astype(np.float64)


def exact_weights(g, dist, metric, n, *, symmetric, condensed=False) -> np.ndarray:
    """Return the weights (L, n, m) float64: slopes of the distances; of x with itself those of both entries."""
    g = g.astype(np.float64)
    if metric == "sqeuclidean":
        g = 2 * g
    elif metric == "euclidean":
        g = np.divide(g, dist, out=np.zeros_like(g), where=dist > 0)
    if condensed:
        square = np.zeros((len(g), n, n))
        square[(slice(None), *np.triu_indices(n, 1))] = g
        g = square
    if not symmetric:
        return g
    w = g + g.swapaxes(1, 2)
    return w if metric == "dot" else w * (1 - np.eye(n))


def exact_gradient(w, u, v, metric) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradient (L, n, d) of rows u by differences, float64, and the sums of the sizes of what it adds."""
    size = np.abs(w) @ np.abs(v)
    if metric == "dot":
        return w @ v, size
    return w.sum(-1, keepdims=True) * u - w @ v, size + np.abs(w.sum(-1, keepdims=True) * u)
