"""Local RSA: similarity of two spaces from each stimulus.

The local RSA of stimulus i is the Pearson correlation of its row of one dissimilarity matrix with its row of the other,
over all other stimuli. It follows from the final sums in d^2 work. The stimuli must be among those summed up, so they
come from a second pass or from a `Reservoir`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.ops import reference
from bertft.ops.moments.formulas import local_pearson
from bertft.runs.intervals import clustered_mean
from bertft.similarity.moments import CrossMoments

BLOCK = 4096  # rows at a time


def local_rsa(moments: CrossMoments, x: Tensor, y: Tensor) -> Tensor:
    """Return the local RSA (L, R) float64 of stimuli x (L, R, D), y (L, R, E), vectors behind the diagonal ``moments``.

    The metrics are those of the moments, and the sign is that of dissimilarities. NaN where a stimulus is equally far
    from all others.
    """
    if moments.pairs != "diagonal":
        raise BertftError("local_rsa: needs CrossMoments with pairs='diagonal', found pairs='all'")
    if len(moments) < 3:
        raise BertftError(f"local_rsa: needs at least 3 stimuli in the sums, found {len(moments)}")
    expected = [(moments.layers_x, x.shape[1], width) for width in moments.widths]
    if [tuple(x.shape), tuple(y.shape)] != expected:
        raise BertftError(f"local_rsa: expected x and y of shapes {expected}, found {tuple(x.shape)}, {tuple(y.shape)}")
    # dot is a similarity, the other metrics are dissimilarities
    sign = 1.0 if (moments.metric_x == "dot") == (moments.metric_y == "dot") else -1.0
    layers = []
    for k in range(moments.layers_x):
        mean_x, mean_y = moments.means(k, k)
        sums = moments.moments(k, k)
        parts = []
        for a, b in zip(x[k].cpu().split(BLOCK), y[k].cpu().split(BLOCK), strict=True):
            rows = (
                reference.prepared_rows(a, mean_x, moments.metric_x),
                reference.prepared_rows(b, mean_y, moments.metric_y),
            )
            parts.append(local_pearson(*rows[0], *rows[1], sums))
        layers.append(sign * torch.cat(parts))
    return torch.stack(layers)


@dataclass(frozen=True)
class LabelMean:
    """Mean of the ``n`` stimuli with ``label`` in ``layer``, with its 95 % interval; None for a single sentence."""

    label: Any
    layer: int
    value: float
    low: float | None
    high: float | None
    n: int


def mean_by_label(values: Tensor, labels: Sequence[Any], groups: Tensor) -> list[LabelMean]:
    """Return means of values (L, R) by label (R,), most frequent first, with intervals clustered by sentence.

    ``groups`` (R,) are the sentences. The standard error is that of a ratio of sums over sentences, the interval
    Student's t.
    """
    names = np.asarray(labels)
    if names.shape != (values.shape[1],) or len(groups) != values.shape[1]:
        raise BertftError(f"mean_by_label: expected a label and a group for each of {values.shape[1]} stimuli")
    kinds, counts = np.unique(names, return_counts=True)
    table = []
    for kind in kinds[np.argsort(-counts, kind="stable")]:
        chosen = torch.from_numpy(np.flatnonzero(names == kind))
        for layer, row in enumerate(values[:, chosen]):
            mean, low, high = clustered_mean(row, groups[chosen])
            table.append(LabelMean(kind.item() if hasattr(kind, "item") else kind, layer, mean, low, high, len(chosen)))
    return table
