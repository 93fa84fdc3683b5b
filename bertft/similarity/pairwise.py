"""RSA of stimuli in memory, any metric and comparison, with bootstrap interval and permutation test.

For a few thousand stimuli: intervals and tests visit all n (n - 1) / 2 pairs. A corpus goes through
`bertft.similarity.CrossMoments`, whose intervals need no pair.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.ops.metrics import METRICS

COMPARISONS = ("pearson", "cosine", "spearman", "rho_a", "kendall")
LARGEST = 10_000  # stimuli whose two n x n matrices intervals and tests will hold


@dataclass(frozen=True)
class Rsa:
    """Similarity of two spaces.

    ``estimate``; ``low`` and ``high``, its 95 % bootstrap interval, or None; ``p_value`` of the permutation test
    against unrelated spaces (one-sided), or None; ``n`` stimuli in ``groups`` groups.
    """

    estimate: float
    low: float | None
    high: float | None
    p_value: float | None
    n: int
    groups: int


def rsa(
    x: Tensor,
    y: Tensor,
    metric: str = "cosine",
    compare: str = "pearson",
    *,
    groups: Sequence[Any] | Tensor | None = None,
    bootstrap: int = 0,
    permutations: int = 0,
    seed: int = 0,
) -> Rsa:
    """Compare the dissimilarity matrices of x (N, D) and y (N, E), rows of the same stimuli.

    Args:
        metric: dot, cosine, correlation, sqeuclidean, euclidean or manhattan (`bertft.ops.metrics`).
        compare: pearson, cosine, spearman, rho_a or kendall (tau-b), on the N (N-1) / 2 pairs i < j.
        groups: (N,) what each stimulus belongs to, its sentence for tokens; groups are resampled and permuted whole.
            Default: every stimulus alone.
        bootstrap: resamples for the 95 % percentile interval, 0 for none. Resampled stimuli carry integer weights, and
            copies of one stimulus never form a pair. Rank comparisons keep the ranks of the full sample. Not for
            kendall.
        permutations: of the groups of y for the Mantel test, 0 for none: p = (1 + #{null >= estimate}) / (K + 1).
            Groups are put in random order and their stimuli read off in it, so that stimuli of one group stay
            neighbours on both sides; exact for groups of one size. Not for kendall.

    Raises BertftError for unknown names, shapes that do not fit, fewer than 3 stimuli, fewer than 2 groups for an
    interval or test, or all dissimilarities equal.
    """
    sizes, order = _check(x, y, metric, compare, groups)
    n = x.shape[0]
    if bootstrap or permutations:
        if compare == "kendall":
            raise BertftError(
                "rsa: compare='kendall' has no interval or test, use 'spearman' or bootstrap=permutations=0"
            )
        if len(sizes) < 2:
            raise BertftError(f"rsa: an interval or test needs at least 2 groups, found {len(sizes)}")
        if n > LARGEST:
            raise BertftError(
                f"rsa: intervals and tests take at most {LARGEST} stimuli, found {n}; sample them, or use CrossMoments"
            )
    from bertft.ops.rdm_correlation import rdm_correlation

    estimate = float(rdm_correlation(x.unsqueeze(0), y.unsqueeze(0), metric=metric, compare=compare))
    if not math.isfinite(estimate):
        raise BertftError(f"rsa: no correlation of {n} stimuli, all dissimilarities of x or of y are equal ({metric})")
    low = high = p_value = None
    if bootstrap or permutations:
        a, b = (_matrix(t[order], metric, compare) for t in (x, y))
        generator = np.random.default_rng(seed)
        if bootstrap:
            drawn = _bootstrap(a, b, compare, sizes, bootstrap, generator)
            low, high = (float(v) for v in np.nanpercentile(drawn, [2.5, 97.5]))
        if permutations:
            p_value = _permutation_test(a, b, compare, sizes, permutations, generator)
    return Rsa(estimate, low, high, p_value, n, len(sizes))


def _check(x: Tensor, y: Tensor, metric: str, compare: str, groups: Any) -> tuple[np.ndarray, Tensor]:
    """Sizes of the groups, in order of first appearance, and the order of stimuli that makes groups contiguous."""
    if metric not in METRICS:
        raise BertftError(f"rsa: metric must be one of {', '.join(METRICS)}, found {metric!r}")
    if compare not in COMPARISONS:
        raise BertftError(f"rsa: compare must be one of {', '.join(COMPARISONS)}, found {compare!r}")
    if x.ndim != 2 or y.ndim != 2 or x.shape[0] != y.shape[0]:
        raise BertftError(f"rsa: expected x (N, D) and y (N, E), found {tuple(x.shape)} and {tuple(y.shape)}")
    n = x.shape[0]
    if n < 3:
        raise BertftError(f"rsa: needs at least 3 stimuli, found {n}")
    names = np.arange(n) if groups is None else np.asarray(groups)
    if names.shape != (n,):
        raise BertftError(f"rsa: groups must name the group of each of {n} stimuli, found shape {names.shape}")
    _, first, ids, sizes = np.unique(names, return_index=True, return_inverse=True, return_counts=True)
    rank = np.argsort(np.argsort(first))  # groups in order of first appearance
    ids = rank[ids]
    return sizes[np.argsort(first)], torch.from_numpy(np.argsort(ids, kind="stable"))


def _matrix(x: Tensor, metric: str, compare: str) -> np.ndarray:
    """Dissimilarities or their ranks (N, N) float64 with a zero diagonal, less their mean unless compared by cosine."""
    from scipy.spatial.distance import squareform
    from scipy.stats import rankdata

    from bertft.ops.pairwise_distance import pairwise_distance

    pairs = pairwise_distance(x.double(), metric=metric, condensed=True).cpu().numpy()
    if compare in ("spearman", "rho_a"):
        pairs = rankdata(pairs)
    return squareform(pairs if compare == "cosine" else pairs - pairs.mean(), checks=False)


def _bootstrap(
    a: np.ndarray, b: np.ndarray, compare: str, sizes: np.ndarray, resamples: int, generator: np.random.Generator
) -> np.ndarray:
    """Correlations (B,) under resampled groups, from sums over pairs of groups: w' M w for each sum's matrix M."""
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])

    def blocks(matrix: np.ndarray) -> np.ndarray:
        return np.add.reduceat(np.add.reduceat(matrix, starts, axis=0), starts, axis=1)

    groups = len(sizes)
    weights = generator.multinomial(groups, np.full(groups, 1 / groups), size=resamples).astype(np.float64)

    def total(block: np.ndarray) -> np.ndarray:
        return ((weights @ block) * weights).sum(1)

    counts = np.outer(sizes, sizes).astype(np.float64)
    counts[np.diag_indices(groups)] -= sizes
    pairs = total(counts)
    k, l_, kk, ll, kl = (total(blocks(m)) / pairs for m in (a, b, a * a, b * b, a * b))
    with np.errstate(invalid="ignore", divide="ignore"):
        if compare == "cosine":
            return kl / np.sqrt(kk * ll)
        if compare == "rho_a":  # ranks are those of the full sample, so its number of pairs sets the scale
            return 12 * (kl - k * l_) / ((len(a) * (len(a) - 1) / 2) ** 2 - 1)
        return (kl - k * l_) / np.sqrt((kk - k * k) * (ll - l_ * l_))


def _permutation_test(
    a: np.ndarray, b: np.ndarray, compare: str, sizes: np.ndarray, permutations: int, generator: np.random.Generator
) -> float:
    """One-sided p value: only sum K L changes when the items of one (centred) matrix are permuted."""
    x, y = torch.from_numpy(a).float(), torch.from_numpy(b).float()
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    observed = float(torch.linalg.vecdot(x, y).double().sum())
    above = 0
    for _ in range(permutations):
        order = np.concatenate([np.arange(starts[g], starts[g] + sizes[g]) for g in generator.permutation(len(sizes))])
        items = torch.from_numpy(order)
        shuffled = y.index_select(0, items).index_select(1, items)
        above += float(torch.linalg.vecdot(x, shuffled).double().sum()) >= observed
    return (1 + above) / (permutations + 1)
