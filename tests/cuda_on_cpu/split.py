"""Rows split into two halves, on NumPy arrays.

The kernels are those of csrc/cuda/split_rows.cu.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from accuracy import CODES, METRICS
from gpu_executor import Kernels, Uninitialised

from bertft.ops.metrics import NORMALISED

PRODUCTS = METRICS[:-1]  # their entries follow from products of rows
LINE, TILE = 32, 128


class Split(NamedTuple):
    """Output of ``split_rows_launch`` for layers (L, n, d)."""

    memory: np.ndarray  # as launchers take it; the next four are views into it
    halves: np.ndarray  # (L, padded, lines, 2, 32) float16
    scale: np.ndarray  # (L, padded)
    along: np.ndarray
    square: np.ndarray
    stats: np.ndarray  # (L, n, 2)
    mean: np.ndarray  # (L, d) float64
    mean_square: np.ndarray  # (L,)
    bad: np.ndarray  # (2,)


def split(rows: Kernels, x: np.ndarray, metric: str, *, dtype="float32", mean=None, parts=2, **options) -> Split:
    """``rows``: the kernels of split_rows.cu. ``mean``: (L, d) and (L,) of another side's `Split`.

    ``parts``: 1 leaves the low parts out; ``halves`` are then (L, padded, lines, 1, 64).
    """
    (layers, n, d), code = x.shape, METRICS.index(metric)
    if mean is None:
        mean = np.empty((layers, d)), np.empty(layers)
        rows.split_mean_launch(x, *map(Uninitialised, mean), CODES[dtype], code, layers, n, d, **options)
    size, stats, bad = np.zeros(1, np.int64), np.empty((layers, n, 2), np.float32), np.zeros(2, np.int64)
    rows.split_rows_bytes(size, layers, n, d, parts)
    memory = np.zeros(int(size[0]), np.uint8)
    rows.split_rows_launch(
        x, mean[0], Uninitialised(memory), Uninitialised(stats), bad, CODES[dtype], code, layers, n, d, parts, **options
    )
    return Split(memory, *_parts(memory, layers, n, d, parts), stats, *mean, bad)


def _parts(memory: np.ndarray, layers: int, n: int, d: int, count: int) -> list[np.ndarray]:
    """Halves, scale, along, square: each on a 256-byte boundary, with a gap of 256 to 511 bytes behind it."""
    width = 2 * LINE // count
    padded, lines = -(-n // TILE) * TILE, -(-d // width)
    parts, start = [], 0
    for shape, kind in [((layers, padded, lines, count, width), np.float16)] + [((layers, padded), np.float32)] * 3:
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        parts.append(memory[start : start + size].view(kind).reshape(shape))
        start += (size + 511) // 256 * 256
    assert start == len(memory)
    return parts


def joined(found: Split) -> np.ndarray:
    """(L, padded, columns) float64: the rows that the halves stand for."""
    values = found.halves.astype(np.float64).sum(3)
    return values.reshape(*values.shape[:2], -1) * found.scale.astype(np.float64)[..., None]


def in_form(x: np.ndarray, metric: str) -> np.ndarray:
    """Rows (L, n, d) float64 as the metric takes them."""
    if metric == "correlation":
        x = x - x.mean(-1, keepdims=True)
    return x / np.linalg.norm(x, axis=-1, keepdims=True) if metric in NORMALISED else x


def provisional_mean(rows: np.ndarray) -> np.ndarray:
    """(L, d) of rows in their form: of up to 64 of them, evenly spread."""
    n = rows.shape[1]
    sample = min(n, 64)
    return rows[:, [s * n // sample for s in range(sample)]].mean(1)


def exact_distances(x: np.ndarray, y: np.ndarray | None, metric: str) -> np.ndarray:
    """(L, n, m) float64 of x, y float64: differences are formed before they are squared."""
    u = in_form(x, metric)
    v = u if y is None else in_form(y, metric)
    if metric == "dot":
        return u @ v.swapaxes(-1, -2)
    square = np.stack([((a[:, None] - b) ** 2).sum(-1) for a, b in zip(u, v, strict=True)])
    return {"sqeuclidean": square, "euclidean": np.sqrt(square)}.get(metric, square / 2)


def columns(kernels: Kernels, u: np.ndarray, parts=2, **options) -> tuple[np.ndarray, np.ndarray]:
    """(halves, bits of the largest element) of u (n, d); ``kernels``: those of split_moments.cu."""
    size, ignored = np.zeros(1, np.int64), np.zeros(1, np.int32)
    kernels.split_columns_bytes(size, ignored, *u.shape, parts)
    halves, largest = np.empty(int(size[0]), np.uint8), np.zeros(1, np.uint32)
    kernels.split_columns_launch(u, Uninitialised(halves), largest, *u.shape, parts, **options)
    return halves, largest


def sums(
    kernels: Kernels, u: np.ndarray, v=None, total=None, ranges=8, parts=2, **options
) -> tuple[np.ndarray, np.ndarray]:
    """U'V (d, e), added to ``total``, and the partial sums of up to ``ranges`` ranges as they leave the cores."""
    (n, d), e = u.shape, (u if v is None else v).shape[1]
    partial = np.full((ranges, d, e), np.nan, np.float32)
    total = np.zeros((d, e)) if total is None else total
    first = columns(kernels, u, parts, **options)
    second = (None, None) if v is None else columns(kernels, v, parts, **options)
    kernels.split_moments_launch(
        first[0], second[0], first[1], second[1], Uninitialised(partial), ranges, total, n, d, e, parts, **options
    )
    return total, partial
