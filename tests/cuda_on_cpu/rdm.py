"""rdm_correlation_launch on NumPy arrays, and data for it."""

from __future__ import annotations

import numpy as np
import torch
from accuracy import CODES, METRICS, stored
from gpu_executor import Kernels, Uninitialised

from bertft.ops import reference
from bertft.ops.metrics import COMPARISONS, NORMALISED

PATHS = {"plain": 0, "split": 1, "fast": 2}


def correlate(
    kernels: Kernels,
    x,
    y,
    dtype: str,
    metric: str,
    compare="pearson",
    metric_y=None,
    path="plain",
    bins=1 << 16,
    entries_bytes=1 << 25,
    **options,
) -> tuple[np.ndarray, np.ndarray]:
    """Return out (L, M) float64 and the first bad rows (2, 2), from x (L, N, D) and y (M, N, E) or None as `stored`.

    ``entries_bytes`` bounds the entries in the workspace at once; a tile of one layer takes 64 KB.
    """
    (layers, n, d), other = x.shape, x if y is None else y
    out, bad = np.empty((layers, len(other))), np.zeros((2, 2), np.int64)
    size = np.zeros(1, np.int64)
    numbers = (
        CODES[dtype], PATHS[path], METRICS.index(metric), METRICS.index(metric_y or metric), COMPARISONS.index(compare),
        layers, 0 if y is None else len(y), n, d, other.shape[2], bins,
    )  # fmt: skip
    kernels.rdm_correlation_launch(x, y, out, bad, None, size, entries_bytes, *numbers, **options)
    workspace = np.empty(int(size[0]), np.uint8)
    kernels.rdm_correlation_launch(
        x, y, Uninitialised(out), bad, Uninitialised(workspace), size, entries_bytes, *numbers, **options
    )
    return out, bad


def layers(case: tuple, dtype="float32", seed=0, mean=2.0):
    """((x, x in float64), (y, y in float64)) of layers that resemble one another, with a common mean.

    ``case``: layers of x, of y (None: no y), n, d, e.
    """
    layers_x, layers_y, n, d, e = case
    random = np.random.default_rng(seed)
    base = random.standard_normal((n, max(d, e)))
    make = lambda layers, width: stored(
        base[None, :, :width] + random.standard_normal((layers, n, width)) + mean, dtype
    )
    return make(layers_x, d), (None, None) if layers_y is None else make(layers_y, e)


def plain_torch(x, y, kind: torch.dtype, metric: str, compare="pearson", metric_y=None) -> np.ndarray:
    """Return (L, M) by the textbook formulas in one type, with full matrices compared in float64."""

    def matrices(x, metric):
        x = torch.tensor(x, dtype=kind)
        if metric in ("dot", *NORMALISED):
            u = reference.metric_rows(x, metric)
            d = 1 - u @ u.mT if metric in NORMALISED else u @ u.mT
        else:
            difference = x.unsqueeze(-2) - x.unsqueeze(-3)
            d = difference.abs().sum(-1) if metric == "manhattan" else difference.square().sum(-1)
            d = d.sqrt() if metric == "euclidean" else d
        return reference.condense(d)

    a, b = matrices(x, metric), matrices(x if y is None else y, metric_y or metric)
    return np.array([[float(reference.compare_matrices(r, s, compare)) for s in b] for r in a])


def exact_torch(x, y, metric: str, compare="pearson", metric_y=None) -> np.ndarray:
    """Return (L, M) in float64."""
    inputs = torch.tensor(x), None if y is None else torch.tensor(y)
    return reference.rdm_correlation(*inputs, metric=metric, metric_y=metric_y, compare=compare).numpy()
