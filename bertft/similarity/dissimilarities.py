"""Dissimilarity matrices as NumPy arrays, to and from rsatoolbox (an optional package, imported where it is needed).

rsatoolbox calls squared Euclidean distances divided by the number of channels ``squared euclidean`` (its method
``euclidean``). Here ``sqeuclidean`` is divided by nothing, so these values change by that factor on the way; no
comparison of matrices notices it. Other measures keep name and values. Both sides order pairs as SciPy's ``pdist``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from bertft.errors import BertftError
from bertft.ops.metrics import COMPARISONS, METRICS, check_metric
from bertft.ops.pairwise_distance import pairwise_distance
from bertft.ops.reference import compare_matrices

SQUARED = "squared euclidean"  # rsatoolbox's word


@dataclass(frozen=True)
class Rdms:
    """Condensed dissimilarities ``values`` (L, N (N-1) / 2) float64 of N stimuli in L spaces, such as layers.

    ``metric`` is a name of `bertft.ops.metrics`, or rsatoolbox's own where it has no name here (``crossnobis``).
    ``channels`` is the width D behind them, where it is known. ``spaces`` describes each space (columns of L entries),
    ``stimuli`` each stimulus (columns of N). Raises BertftError where the sizes do not go together.
    """

    values: np.ndarray
    metric: str
    channels: int | None = None
    spaces: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    stimuli: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = np.shape(self.values)
        if len(shape) != 2 or shape[0] < 1 or self.count * (self.count - 1) // 2 != shape[1] or self.count < 2:
            raise BertftError(f"rdms: expected condensed values (L, N (N-1) / 2), found shape {shape}")
        for what, columns, size in (("spaces", self.spaces, len(self.values)), ("stimuli", self.stimuli, self.count)):
            for name, entries in columns.items():
                if len(entries) != size:
                    raise BertftError(f"rdms: {what} {name!r} must have {size} entries, found {len(entries)}")

    @property
    def count(self) -> int:
        """N, the number of stimuli."""
        return (1 + math.isqrt(1 + 8 * np.shape(self.values)[-1])) // 2

    def square(self) -> np.ndarray:
        """(L, N, N), symmetric with a diagonal of zeros."""
        n = self.count
        out = np.zeros((len(self.values), n, n))
        i, j = np.triu_indices(n, 1)
        out[:, i, j] = out[:, j, i] = self.values
        return out


def rdms(
    x: Any,
    metric: str = "cosine",
    *,
    spaces: Mapping[str, Sequence[Any]] | None = None,
    stimuli: Mapping[str, Sequence[Any]] | None = None,
) -> Rdms:
    """Dissimilarities of x, an array or tensor (L, N, D), one matrix a space, or (N, D).

    ``spaces`` defaults to ``{"layer": [0, 1, ...]}``. Values are float64 for float64 input, else rounded to float32 on
    the way. Raises BertftError for ``dot``, which is a similarity, and for rows that are not finite or have no
    direction where the metric needs one.
    """
    check_metric(metric, tuple(name for name in METRICS if name != "dot"), op="rdms")
    rows = torch.as_tensor(x)
    rows = rows.unsqueeze(0) if rows.ndim == 2 else rows
    if rows.ndim != 3 or rows.shape[1] < 2 or not rows.dtype.is_floating_point:
        raise BertftError(f"rdms: x must be float of shape (L, N, D), N > 1, found {rows.dtype} of {tuple(rows.shape)}")
    values = pairwise_distance(rows.detach(), metric=metric, condensed=True).double().cpu().numpy()
    given = {"layer": list(range(len(rows)))} if spaces is None else spaces
    return Rdms(values, metric, rows.shape[2], given, stimuli or {})


def compare_rdms(a: Rdms, b: Rdms, compare: str = "pearson") -> np.ndarray:
    """Similarity (L, M) of each matrix of ``a`` with each of ``b``, of the same N stimuli in the same order.

    pearson, cosine, spearman, rho_a or kendall (tau-b, at work and memory of the square of the number of pairs) as
    `bertft.ops.reference.compare_matrices` defines them. NaN where all dissimilarities of a matrix are equal.
    """
    if compare not in COMPARISONS:
        raise BertftError(f"compare_rdms: compare must be one of {', '.join(COMPARISONS)}, found {compare!r}")
    if a.count != b.count:
        raise BertftError(f"compare_rdms: expected matrices of the same stimuli, found {a.count} and {b.count}")
    x, y = torch.as_tensor(a.values), torch.as_tensor(b.values)
    return np.array([[float(compare_matrices(p, q, compare)) for q in y] for p in x])


def to_rsatoolbox(matrices: Rdms) -> Any:
    """``rsatoolbox.rdm.RDMs`` with ``spaces`` as its rdm descriptors and ``stimuli`` as its pattern descriptors.

    Raises BertftError where rsatoolbox is not installed, or squared distances come without their ``channels``.
    """
    values, measure = np.array(matrices.values, dtype=np.float64), matrices.metric
    if measure == "sqeuclidean":
        if not matrices.channels:
            raise BertftError("to_rsatoolbox: sqeuclidean needs the number of channels, which rsatoolbox divides by")
        values, measure = values / matrices.channels, SQUARED
    return _rsatoolbox("to_rsatoolbox").rdm.RDMs(
        values,
        dissimilarity_measure=measure,
        rdm_descriptors={name: list(entries) for name, entries in matrices.spaces.items()},
        pattern_descriptors={name: list(entries) for name, entries in matrices.stimuli.items()},
    )


def from_rsatoolbox(matrices: Any, *, channels: int | None = None) -> Rdms:
    """The matrices of an ``rsatoolbox.rdm.RDMs``, its descriptors as ``spaces`` and ``stimuli``.

    ``channels`` makes rsatoolbox's ``squared euclidean`` plain squares again; without it the values stay divided.
    Raises BertftError for anything else, for values that are not finite (patterns that one of the matrices lacks), and
    where rsatoolbox is not installed.
    """
    kind = _rsatoolbox("from_rsatoolbox").rdm.RDMs
    if not isinstance(matrices, kind):
        raise BertftError(f"from_rsatoolbox: expected rsatoolbox.rdm.RDMs, found {type(matrices).__name__}")
    if channels is not None and channels < 1:
        raise BertftError(f"from_rsatoolbox: channels must be positive, found {channels}")
    values = np.array(matrices.dissimilarities, dtype=np.float64)
    if bad := int((~np.isfinite(values)).sum()):
        raise BertftError(f"from_rsatoolbox: {bad} of {values.size} dissimilarities are not finite")
    metric = str(matrices.dissimilarity_measure)
    if metric == SQUARED:
        values, metric = values * (channels or 1), "sqeuclidean"
    spaces, stimuli = (
        {name: list(entries) for name, entries in columns.items() if name != "index"}
        for columns in (matrices.rdm_descriptors, matrices.pattern_descriptors)
    )
    return Rdms(values, metric, channels, spaces, stimuli)


def _rsatoolbox(asked: str) -> Any:
    try:
        import rsatoolbox
        import rsatoolbox.rdm
    except ImportError as error:
        raise BertftError(f"{asked}: needs the package rsatoolbox, pip install rsatoolbox ({error})") from None
    return rsatoolbox
