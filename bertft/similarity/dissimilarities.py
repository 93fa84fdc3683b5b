"""Dissimilarity matrices as arrays, to and from rsatoolbox.

rsatoolbox is optional. It calls squared Euclidean distances divided by the number of channels ``squared euclidean``
(its method ``euclidean``), whereas ``sqeuclidean`` here is not divided, so conversion changes these values by that
factor; no comparison of matrices depends on it. Other measures keep name and values. Both sides order pairs as SciPy's
``pdist``.
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

SQUARED = "squared euclidean"  # rsatoolbox's name


@dataclass(frozen=True)
class Rdms:
    """Condensed dissimilarities of N stimuli in L spaces, such as layers.

    Attributes:
        values: (L, N (N-1) / 2) float64.
        metric: a name of `bertft.ops.metrics`, or one of rsatoolbox that has no name here (``crossnobis``).
        channels: width D of the vectors, if known.
        spaces: description of the spaces, in columns of L entries.
        stimuli: description of the stimuli, in columns of N entries.

    Raises BertftError if the sizes do not fit.
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
        """Return the matrices (L, N, N), symmetric with a diagonal of zeros."""
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
    precision: str = "float32",
) -> Rdms:
    """Return the dissimilarities of x, an array or tensor (L, N, D) of L spaces, or (N, D).

    ``spaces`` defaults to ``{"layer": [0, 1, ...]}``. Values are computed in float64 for float64 input, else in
    ``precision`` (`bertft.ops.pairwise_distance`, which states its errors). Raises BertftError for ``dot``, which is a
    similarity, and for rows that are not finite or have no direction where the metric needs one.
    """
    check_metric(metric, tuple(name for name in METRICS if name != "dot"), op="rdms")
    rows = torch.as_tensor(x)
    rows = rows.unsqueeze(0) if rows.ndim == 2 else rows
    if rows.ndim != 3 or rows.shape[1] < 2 or not rows.dtype.is_floating_point:
        raise BertftError(f"rdms: x must be float of shape (L, N, D), N > 1, found {rows.dtype} of {tuple(rows.shape)}")
    values = pairwise_distance(rows.detach(), metric=metric, condensed=True, precision=precision).double().cpu().numpy()
    given = {"layer": list(range(len(rows)))} if spaces is None else spaces
    return Rdms(values, metric, rows.shape[2], given, stimuli or {})


def compare_rdms(a: Rdms, b: Rdms, compare: str = "pearson") -> np.ndarray:
    """Return the similarity (L, M) of each matrix of ``a`` with each of ``b``, of the same N stimuli in the same order.

    pearson, cosine, spearman, rho_a or kendall, as in `bertft.ops.reference.compare_matrices`. Kendall's tau-b takes
    work and memory of the square of the number of pairs. NaN if all dissimilarities of a matrix are equal. Sums are
    float64 whatever the ``precision`` of the matrices; one that is ``fast`` puts the result off by 3e-3 / N.
    """
    if compare not in COMPARISONS:
        raise BertftError(f"compare_rdms: compare must be one of {', '.join(COMPARISONS)}, found {compare!r}")
    if a.count != b.count:
        raise BertftError(f"compare_rdms: expected matrices of the same stimuli, found {a.count} and {b.count}")
    x, y = torch.as_tensor(a.values), torch.as_tensor(b.values)
    return np.array([[float(compare_matrices(p, q, compare)) for q in y] for p in x])


def to_rsatoolbox(matrices: Rdms) -> Any:
    """Return ``rsatoolbox.rdm.RDMs`` with ``spaces`` as rdm descriptors and ``stimuli`` as pattern descriptors.

    Raises BertftError if rsatoolbox is not installed, or if squared distances lack their ``channels``.
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
    """Return the matrices of an ``rsatoolbox.rdm.RDMs``, with its descriptors as ``spaces`` and ``stimuli``.

    ``channels`` turns rsatoolbox's ``squared euclidean`` into plain squares; without it, values remain divided. Raises
    BertftError for other types, for values that are not finite (patterns missing from a matrix), and if rsatoolbox is
    not installed.
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
