"""RSA of stimuli in memory, with interval and test.

The interval is by bootstrap, the test by permutation.

Any metric and comparison, for some thousand stimuli: all n (n - 1) / 2 pairs are visited in tiles, and only the
permutation test holds them in memory. `bertft.similarity.CrossMoments` handles corpora; its intervals need no pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.ops import reference
from bertft.ops.metrics import COMPARISONS, METRICS, RANKS
from bertft.ops.moments.formulas import PairSums, compare_sums
from bertft.ops.pairwise_distance import pairwise_distance
from bertft.ops.rdm.correlation import rdm_correlation
from bertft.ops.rdm.routes import Route
from bertft.ops.rows import as_tensor
from bertft.runs.intervals import ENDS, bootstrap_weights

LARGEST = 10_000  # most stimuli of the permutation test, which holds two n x n matrices
EXACT = 1024  # most stimuli whose resampled ranks are exact
GRID = 16_384  # points of the table of ranks beyond that
TILE = 256  # rows of a strip of dissimilarities


@dataclass(frozen=True)
class Rsa:
    """Similarity of two spaces.

    Attributes:
        estimate: the correlation.
        low: lower end of the 95 % bootstrap interval, or None.
        high: its upper end, or None.
        p_value: of the one-sided permutation test against unrelated spaces, or None.
        n: number of stimuli.
        groups: number of groups.
        route: how the estimate was computed; for kendall with the number of ``pairs`` drawn and the standard ``error``
            of that, for binned ranks with their ``error``.
        resamples: (bootstrap,) values of the bootstrap. Comparisons with the same groups and seed share their
            resamples, so that differences are paired.
    """

    estimate: float
    low: float | None
    high: float | None
    p_value: float | None
    n: int
    groups: int
    route: Route
    resamples: np.ndarray | None = field(default=None, repr=False, compare=False)


def rsa(
    x: Tensor | np.ndarray,
    y: Tensor | np.ndarray,
    metric: str = "cosine",
    compare: str = "pearson",
    *,
    groups: Sequence[Any] | Tensor | None = None,
    bootstrap: int = 0,
    permutations: int = 0,
    seed: int = 0,
    precision: str = "float32",
) -> Rsa:
    """Compare the dissimilarity matrices of x (N, D) and y (N, E), rows of the same stimuli.

    All comparisons ignore these maps of either space: under cosine and dot rotation, reflection and isotropic scale;
    under sqeuclidean and euclidean these and translation; under manhattan translation and isotropic scale; under
    correlation isotropic scale, and a number added to all dimensions of a stimulus.

    Args:
        x: (N, D) vectors of the first space.
        y: (N, E) vectors of the second.
        metric: dot, cosine, correlation, sqeuclidean, euclidean or manhattan (`bertft.ops.metrics`).
        compare: pearson, cosine, spearman, rho_a or kendall (tau-b), on the N (N-1) / 2 pairs i < j.
        groups: (N,) the group of each stimulus, such as the sentence of a token. Groups are resampled and permuted
            whole. By default every stimulus is its own group.
        bootstrap: resamples for the 95 % percentile interval, 0 for none. Resampled stimuli carry integer weights;
            copies of one stimulus never form a pair. The mean of the resamples is moved onto the estimate. Rank
            comparisons keep the ranks of the full sample (beyond 1,024 stimuli, those read off a million of its
            pairs). Kendall draws 30,000 of 200,000 pairs for each of at most 100 resamples.
        permutations: of the groups of y for the Mantel test, 0 for none: p = (1 + #{null >= estimate}) / (K + 1).
            Groups swap places only with groups of the same size, so that stimuli of one group stay together on both
            sides and the test is exact; a group of unique size does not move. Not for kendall.
        seed: of bootstrap and permutations.
        precision: of the estimate (`bertft.ops.rdm_correlation`, which states its errors); that of the interval and the
            test, which vary by more, is float32.

    Raises:
        BertftError: Names are unknown, shapes do not fit, there are fewer than 3 stimuli, fewer than 2 groups for an
            interval or test, no two groups of one size for a test, or all dissimilarities are equal.
    """
    x, y = as_tensor(x), as_tensor(y)
    sizes, order = _check(x, y, metric, compare, groups)
    _check_tests(compare, sizes, bootstrap, permutations)
    estimate, route = _estimate(x, y, metric, compare, precision)
    low = high = p_value = drawn = None
    generator = np.random.default_rng(seed)
    if bootstrap:
        drawn = _centred(_resampled(x[order], y[order], metric, compare, sizes, bootstrap, generator), estimate)
        low, high = (float(v) for v in np.nanpercentile(drawn, ENDS))
    if permutations:
        a, b = (matrix(t[order], metric, compare) for t in (x, y))
        p_value = _permutation_test(a, b, compare, sizes, permutations, generator)
    return Rsa(estimate, low, high, p_value, len(x), len(sizes), route, drawn)


def _estimate(x: Tensor, y: Tensor, metric: str, compare: str, precision: str) -> tuple[float, Route]:
    how: dict[str, Any] = {"metric": metric, "compare": compare, "precision": precision, "return_route": True}
    found = rdm_correlation(x.unsqueeze(0), y.unsqueeze(0), **how)
    assert isinstance(found, tuple)
    if not math.isfinite(float(found[0])):
        raise BertftError(
            f"rsa: no correlation of {len(x)} stimuli, all dissimilarities of x or of y are equal ({metric})"
        )
    return float(found[0]), found[1]


def _check_tests(compare: str, sizes: np.ndarray, bootstrap: int, permutations: int) -> None:
    """Raise BertftError if an interval or test is impossible for groups of these sizes."""
    n = int(sizes.sum())
    for name, count in (("bootstrap", bootstrap), ("permutations", permutations)):
        if count < 0:
            raise BertftError(f"rsa: {name} must be at least 0, found {count}")
    if permutations and compare == "kendall":
        raise BertftError("rsa: compare='kendall' has no permutation test, use 'spearman' or permutations=0")
    if (bootstrap or permutations) and len(sizes) < 2:
        raise BertftError(f"rsa: an interval or test needs at least 2 groups, found {len(sizes)}")
    if permutations and len(set(sizes.tolist())) == len(sizes):
        raise BertftError(
            f"rsa: the test permutes groups of equal size, but the sizes of the {len(sizes)} groups all differ; "
            "give more groups, or groups of equal size"
        )
    if permutations and n > LARGEST:
        raise BertftError(f"rsa: the permutation test takes at most {LARGEST} stimuli, found {n}; sample them")


def _resampled(
    x: Tensor, y: Tensor, metric: str, compare: str, sizes: np.ndarray, resamples: int, generator: np.random.Generator
) -> np.ndarray:
    """Return the comparison (B,) under resampled groups."""
    if compare == "kendall":
        return _bootstrap_kendall(x, y, metric, sizes, min(resamples, 100), generator)
    return _bootstrap(block_sums(x, y, metric, compare, sizes), compare, sizes, resamples, generator)


def _centred(drawn: np.ndarray, estimate: float) -> np.ndarray:
    """Return resampled values (B,) moved so that their mean is the estimate.

    A group that is drawn twice forms pairs with itself. Pairs of one group therefore weigh up to twice as much in a
    resample as in the sample, which biases the resamples and not the estimate.
    """
    return np.clip(drawn - np.nanmean(drawn) + estimate, -1.0, 1.0)


def _check(x: Tensor, y: Tensor, metric: str, compare: str, groups: Any) -> tuple[np.ndarray, Tensor]:
    """Return the groups' sizes by first appearance, and the order of stimuli that makes groups contiguous."""
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


def matrix(x: Tensor, metric: str, compare: str) -> np.ndarray:
    """Return dissimilarities or their ranks (N, N) float64 with a zero diagonal, centred unless compared by cosine."""
    from scipy.spatial.distance import squareform

    entries = pairwise_distance(x.double(), metric=metric, condensed=True).cpu()
    pairs = (reference.average_ranks(entries) if compare in RANKS else entries).numpy()
    return squareform(pairs if compare == "cosine" else pairs - pairs.mean(), checks=False)


def block_sums(x: Tensor, y: Tensor, metric: str, compare: str, sizes: np.ndarray) -> list[np.ndarray]:
    """Return five sums (G, G) float64 of K, L, K K, L L and K L over the ordered pairs of stimuli of each two groups.

    K and L are the dissimilarities or their ranks, less a constant unless compared by cosine. Stimuli are ordered by
    group. Takes memory for a strip of TILE rows, and the result.
    """
    n, starts = len(x), np.concatenate([[0], np.cumsum(sizes)[:-1]])
    forms = [_form(t, metric, compare) for t in (x, y)]
    sums = [np.zeros((len(sizes), len(sizes))) for _ in range(5)]
    bounds = [0, *(int(b) for b in np.flatnonzero(np.diff(np.concatenate([starts, [n]]).astype(int) // TILE)) + 1)]
    for first, last in zip(bounds, [*bounds[1:], len(sizes)], strict=True):
        if first == last:
            continue
        begin, end = int(starts[first]), int(starts[last]) if last < len(sizes) else n
        rows = np.arange(end - begin)
        strip = []
        for t, form in zip((x, y), forms, strict=True):
            values = form(pairwise_distance(t[begin:end], t, metric=metric).double().cpu().numpy())
            values[rows, rows + begin] = 0.0
            strip.append(values)
        k, l_ = strip
        for total, values in zip(sums, (k, l_, k * k, l_ * l_, k * l_), strict=True):
            columns = np.add.reduceat(values, starts, axis=1)
            total[first:last] += np.add.reduceat(columns, starts[first:last] - begin, axis=0)
    return sums


def _form(x: Tensor, metric: str, compare: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return the map from dissimilarities to the centred numbers to compare: themselves, or their ranks."""
    if compare == "cosine":
        return lambda values: values
    n = len(x)
    pairs = n * (n - 1) // 2
    if n <= EXACT:
        drawn = pairwise_distance(x, metric=metric, condensed=True).double().cpu().numpy()
    else:
        generator = torch.Generator().manual_seed(0)
        i = torch.randint(0, n, (1_000_000,), generator=generator)
        j = (i + torch.randint(1, n, (1_000_000,), generator=generator)) % n
        drawn = reference.paired_distance(x, i, j, metric).cpu().numpy()
    if compare not in RANKS:
        mean = drawn.mean()
        return lambda values: values - mean
    values, counts = np.unique(drawn, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2) * (pairs / len(drawn))
    if len(values) > GRID and n > EXACT:  # ranks are almost linear between grid points
        kept = np.unique(np.linspace(0, len(values) - 1, GRID).astype(int))
        values, ranks = values[kept], ranks[kept]
    return lambda entries: np.interp(entries, values, ranks) - (pairs + 1) / 2


def _bootstrap(
    blocks: list[np.ndarray],
    compare: str,
    sizes: np.ndarray,
    resamples: int,
    generator: np.random.Generator,
) -> np.ndarray:
    """Return correlations (B,) under resampled groups, from sums w' M w over pairs of groups (`block_sums`)."""
    groups = len(sizes)
    weights = bootstrap_weights(groups, resamples, generator).astype(np.float64)

    def total(block: np.ndarray) -> np.ndarray:
        return ((weights @ block) * weights).sum(1)

    counts = np.outer(sizes, sizes).astype(np.float64)
    counts[np.diag_indices(groups)] -= sizes
    sums = PairSums(*(torch.from_numpy(total(block)) for block in _in_order(counts, blocks)))
    drawn = compare_sums(sums, compare="cosine" if compare == "cosine" else "pearson").numpy()
    return drawn * _share_of_ties(sizes, blocks) if compare == "rho_a" else drawn


def _in_order(counts: np.ndarray, blocks: list[np.ndarray]) -> list[np.ndarray]:
    """Return the blocks in the order of `PairSums`."""
    k, l_, kk, ll, kl = blocks
    return [counts, k, l_, kk, kl, ll]


def _share_of_ties(sizes: np.ndarray, blocks: list[np.ndarray]) -> float:
    """Return rho_a over Spearman's rho in the sample, 1 without ties: ranks with ties have less variance.

    The ranks in a resample are those of the sample, whose variance there follows the resample and not its number of
    pairs. So rho_a is resampled as a correlation times this constant.
    """
    pairs = float(sizes.sum() * (sizes.sum() - 1))
    k, l_, kk, ll, _ = (float(block.sum()) for block in blocks)
    variances = (kk - k * k / pairs) / pairs, (ll - l_ * l_ / pairs) / pairs
    return 12 * math.sqrt(variances[0] * variances[1]) / ((pairs / 2) ** 2 - 1)


def _bootstrap_kendall(
    x: Tensor, y: Tensor, metric: str, sizes: np.ndarray, resamples: int, generator: np.random.Generator
) -> np.ndarray:
    """Return Kendall's tau-b (B,) under resampled groups.

    The weight of a pair of stimuli is the product of how often its two groups were drawn.
    """
    from scipy.stats import kendalltau

    n, group = len(x), np.repeat(np.arange(len(sizes)), sizes)
    i = torch.from_numpy(generator.integers(0, n, 200_000))
    j = (i + torch.from_numpy(generator.integers(1, n, 200_000))) % n
    a, b = (reference.paired_distance(t, i, j, metric) for t in (x.cpu(), y.cpu()))
    found = []
    for weights in bootstrap_weights(len(sizes), resamples, generator):
        of_pair = (weights[group[i]] * weights[group[j]]).astype(np.float64)
        pairs = generator.choice(len(of_pair), 30_000, p=of_pair / of_pair.sum())
        found.append(kendalltau(a[pairs].numpy(), b[pairs].numpy()).statistic)
    return np.asarray(found)


def _permutation_test(
    a: np.ndarray, b: np.ndarray, compare: str, sizes: np.ndarray, permutations: int, generator: np.random.Generator
) -> float:
    """Return the one-sided p value; only sum K L changes when the items of one centred matrix are permuted."""
    x, y = torch.from_numpy(a).float(), torch.from_numpy(b).float()
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    alike = [np.flatnonzero(sizes == size) for size in np.unique(sizes)]
    observed = float(torch.linalg.vecdot(x, y).double().sum())
    above = 0
    for _ in range(permutations):
        groups = np.arange(len(sizes))
        for members in alike:
            groups[members] = generator.permutation(members)
        order = np.concatenate([np.arange(starts[g], starts[g] + sizes[g]) for g in groups])
        items = torch.from_numpy(order)
        shuffled = y.index_select(0, items).index_select(1, items)
        above += float(torch.linalg.vecdot(x, shuffled).double().sum()) >= observed
    return (1 + above) / (permutations + 1)
