"""Scores of structural probes (Hewitt and Manning 2019).

DSpr, NSpr, UUAS and root accuracy are ratios of sums over sentences. Everything is computed once for each sentence, for
all layers together and in groups of sentences of one length. A bootstrap over sentences then only weights the results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.ops.reference import pairwise_distance
from bertft.runs.intervals import ENDS, Score, bootstrap_weights, centred_resamples

MEASURES = ("dspr", "nspr", "uuas", "root_accuracy")
SHORTEST, LONGEST = 5, 50  # words of the sentences whose correlations are averaged
BLOCK = 1 << 22  # most entries of a block of distance matrices


@dataclass(frozen=True)
class SentenceScores:
    """Scores of S sentences in L layers, float64.

    ``lengths`` (S,) are the words of each sentence. ``dspr`` and ``nspr`` (L, S) are NaN outside 5..50 words. ``edges``
    (L, S) counts the correct edges among ``gold_edges`` (S,). ``root`` (L, S) is 1 if the root is correct.
    """

    lengths: np.ndarray
    dspr: np.ndarray
    nspr: np.ndarray
    edges: np.ndarray
    gold_edges: np.ndarray
    root: np.ndarray


def average_ranks(values: Tensor) -> Tensor:
    """Return the ranks 1..n along the last dimension, float64; ties have the mean of their ranks."""
    n = values.shape[-1]
    ordered, order = values.sort(dim=-1, stable=True)
    position = torch.arange(n).expand(values.shape)
    starts = torch.ones(values.shape, dtype=torch.bool)
    starts[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    first = torch.where(starts, position, 0).cummax(-1).values
    ends = torch.ones_like(starts)
    ends[..., :-1] = starts[..., 1:]
    last = torch.where(ends, position, n - 1).flip(-1).cummin(-1).values.flip(-1)
    ranks = (first + last).to(torch.float64) / 2 + 1
    return torch.empty_like(ranks).scatter_(-1, order, ranks)


def spearman(x: Tensor, y: Tensor) -> Tensor:
    """Return the Spearman correlation along the last dimension, with average ranks; 0 if either side is constant."""
    a, b = average_ranks(x), average_ranks(y)
    a, b = a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True)
    scale = ((a * a).sum(-1) * (b * b).sum(-1)).sqrt()
    return torch.where(scale > 0, (a * b).sum(-1) / scale.clamp(min=1e-300), 0.0)


def spanning_trees(distances: Tensor) -> Tensor:
    """Return the minimum spanning trees of symmetric matrices (B, n, n) as adjacency matrices (B, n, n), bool.

    Of edges (i, j), i < j, with equal distances, the first in row order is taken, as in a stable sort of all edges. So
    the tree is unique. An edge of distance 0 is like any other.
    """
    b, n, _ = distances.shape
    adjacency = torch.zeros(b, n, n, dtype=torch.bool)
    if n < 2:
        return adjacency
    i, j = torch.triu_indices(n, n, 1)
    order = distances[:, i, j].argsort(dim=1, stable=True)
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(len(i)).expand_as(order))
    far = len(i)
    key = torch.full((b, n, n), far)
    key[:, i, j] = rank
    key[:, j, i] = rank
    every = torch.arange(b)
    outside = torch.ones(b, n, dtype=torch.bool)  # Prim's algorithm from word 0, on all matrices at once
    outside[:, 0] = False
    best, parent = key[:, 0].clone(), torch.zeros(b, n, dtype=torch.long)
    for _ in range(n - 1):
        word = torch.where(outside, best, far + 1).argmin(1)
        outside[every, word] = False
        adjacency[every, word, parent[every, word]] = True
        closer = key[every, word] < best
        best = torch.where(closer, key[every, word], best)
        parent = torch.where(closer, word.unsqueeze(1), parent)
    return adjacency | adjacency.mT


def _by_size(sizes: np.ndarray, layers: int, rank: int = 1) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each size and the numbers of its sentences, in blocks whose matrices have at most `BLOCK` entries."""
    for size in np.unique(sizes):
        members = np.flatnonzero(sizes == size)
        step = max(1, BLOCK // max(1, layers * int(size) * max(int(size), rank)))
        for start in range(0, len(members), step):
            yield int(size), members[start : start + step]


def score_sentences(
    points: Tensor,
    depths: Tensor,
    gold: Sequence[np.ndarray],
    gold_depths: Sequence[np.ndarray],
    skip: Sequence[np.ndarray],
) -> SentenceScores:
    """Return the scores of every sentence in every layer.

    As in the published evaluation, both spanning trees leave out punctuation. The gold root is the word of depth 0
    whatever its tag. The predicted root is the shallowest word that is not punctuation, or the shallowest of all if
    every word is. So every sentence counts, and one whose root is punctuation beside other words counts as wrong.

    Args:
        points: (L, T, R) words projected by the distance probes, B'h, sentence by sentence.
        depths: (L, T) depths predicted by the depth probes, |B'h|^2.
        gold: (n * n,) tree distances of each sentence.
        gold_depths: (n,) tree depths of each sentence.
        skip: (n,) punctuation mask of each sentence.
    """
    layers = points.shape[0]
    lengths = np.array([len(d) for d in gold_depths])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    kept = [np.flatnonzero(~mask) for mask in skip]
    nothing, edges = np.full((layers, len(gold)), np.nan), np.zeros((layers, len(gold)))
    sizes = np.array([max(0, len(k) - 1) for k in kept], dtype=np.float64)
    scores = SentenceScores(lengths, nothing.copy(), nothing.copy(), edges, sizes, nothing.copy())
    for n, members in _by_size(lengths, layers, points.shape[2]):
        rows = torch.from_numpy(starts[members, None] + np.arange(n))  # (G, n)
        # By differences, not by inner products as the kernel does: equal distances must stay ties.
        predicted = pairwise_distance(points[:, rows].double(), metric="sqeuclidean")  # (L, G, n, n)
        height = depths[:, rows].double()
        tree = torch.from_numpy(np.stack([gold[i] for i in members]).astype(np.int64)).view(-1, n, n)
        depth = torch.from_numpy(np.stack([gold_depths[i] for i in members]).astype(np.int64))
        if SHORTEST <= n <= LONGEST:
            scores.dspr[:, members] = spearman(predicted, tree).mean(-1)
            scores.nspr[:, members] = spearman(height, depth)
        _score_trees(scores, members, kept, predicted, height, (tree, depth))
    return scores


def _score_trees(
    scores: SentenceScores,
    members: np.ndarray,
    kept: Sequence[np.ndarray],
    predicted: Tensor,
    height: Tensor,
    gold: tuple[Tensor, Tensor],
) -> None:
    """Set ``edges`` and ``root`` of the sentences ``members``, all of n words, in ``scores``.

    ``kept`` are the numbers of the words of each sentence that are not punctuation. ``predicted`` (L, G, n, n) are
    squared distances, ``height`` (L, G, n) depths; ``gold`` are tree distances (G, n, n) and depths (G, n).
    """
    layers, _, n = height.shape
    tree, depth = gold
    for k, inner in _by_size(np.array([len(kept[i]) for i in members]), layers):
        group, some = torch.from_numpy(inner), members[inner]
        candidates = [kept[i] if k else np.arange(n) for i in some]
        words = torch.from_numpy(np.stack(candidates))  # (G', k or n)
        shallowest = height[:, group[:, None], words].argmin(2, keepdim=True)  # (L, G', 1)
        found = words.expand(layers, -1, -1).gather(2, shallowest).squeeze(2)
        scores.root[:, some] = (found == depth[group].argmin(1)).double()
        if k > 1:
            across, down = words[:, None, :], words[:, :, None]
            drawn = spanning_trees(predicted[:, group[:, None, None], down, across].reshape(-1, k, k))
            wanted = spanning_trees(tree[group[:, None, None], down, across])
            hits = drawn.view(layers, -1, k, k) & wanted
            scores.edges[:, some] = hits.sum((2, 3)).double() / 2


def _by_length(values: np.ndarray, lengths: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean over lengths of the mean over sentences of a length, (L, B).

    ``values`` are (L, S), ``weights`` (B, S).
    """
    counted = (lengths >= SHORTEST) & (lengths <= LONGEST)
    kinds, which = np.unique(lengths[counted], return_inverse=True)
    table = np.zeros((int(counted.sum()), len(kinds)))
    table[np.arange(len(which)), which] = 1
    weights = weights[:, counted]
    counts = weights @ table  # (B, K)
    present = counts > 0
    result = []
    for row in values[:, counted]:
        sums = (weights * row) @ table
        means = np.divide(sums, counts, out=np.zeros_like(sums), where=present)
        result.append(means.sum(1) / np.maximum(present.sum(1), 1))
    return np.stack(result)


def estimates(scores: SentenceScores, weights: np.ndarray, measures: Sequence[str] = MEASURES) -> dict[str, np.ndarray]:
    """Return each measure (L, B) under sentence weights (B, S); weights of 1 give the published scores."""
    of_measure: dict[str, Callable[[], np.ndarray]] = {
        "dspr": lambda: _by_length(scores.dspr, scores.lengths, weights),
        "nspr": lambda: _by_length(scores.nspr, scores.lengths, weights),
        "uuas": lambda: (scores.edges @ weights.T) / np.maximum(scores.gold_edges @ weights.T, 1),
        "root_accuracy": lambda: (scores.root @ weights.T) / np.maximum(weights.sum(1), 1),
    }
    return {name: of_measure[name]() for name in measures}


def summarise(scores: SentenceScores, *, resamples: int = 1000, seed: int = 0) -> list[dict[str, Score]]:
    """Return each layer's ``dspr``, ``nspr``, ``uuas`` and ``root_accuracy`` with 95 % bootstrap intervals.

    Raises:
        BertftError: if fewer than 2 sentences count for a measure.
    """
    sentences = len(scores.lengths)
    measured = {
        "dspr": int(((scores.lengths >= SHORTEST) & (scores.lengths <= LONGEST)).sum()),
        "uuas": int((scores.gold_edges > 0).sum()),
        "root_accuracy": sentences,
    }
    measured["nspr"] = measured["dspr"]
    if sentences < 2 or min(measured.values()) < 2:
        raise BertftError(
            f"structural probes: need at least 2 sentences of {SHORTEST} to {LONGEST} words with words that are not "
            f"punctuation, found {min(measured.values())} of {sentences}"
        )
    drawn = resampled(scores, resamples=resamples, seed=seed)
    low, high = ({name: np.percentile(values[:, 1:], q, axis=1) for name, values in drawn.items()} for q in ENDS)
    return [
        {
            name: Score(float(drawn[name][k, 0]), float(low[name][k]), float(high[name][k]), measured[name])
            for name in drawn
        }
        for k in range(scores.dspr.shape[0])
    ]


def resampled(scores: SentenceScores, *, resamples: int = 1000, seed: int = 0) -> dict[str, np.ndarray]:
    """Return each measure (L, B + 1): that of the sample, then those of B bootstrap resamples of the sentences.

    Equal sentences, ``resamples`` and ``seed`` give equal resamples, so scores of two encoders can be paired. DSpr and
    NSpr are means over lengths, of which many have few sentences. A resample keeps the lengths of the sample: sentence
    s moves the mean by (times drawn - 1) times its share (`_shares`).
    """
    sentences = len(scores.lengths)
    value = estimates(scores, np.ones((1, sentences)))
    draws = bootstrap_weights(sentences, resamples, np.random.default_rng(seed)).astype(float)
    drawn = estimates(scores, draws, ("uuas", "root_accuracy"))
    for name in ("dspr", "nspr"):
        drawn[name] = value[name] + _shares(getattr(scores, name), scores.lengths) @ (draws - 1).T
    lowest = {"dspr": -1.0, "nspr": -1.0}
    return {name: centred_resamples(value[name], drawn[name], lowest.get(name, 0.0)) for name in MEASURES}


def _shares(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return each sentence's residual as a share of the mean over lengths, (L, S): r / (sentences of its length x K).

    ``values`` are (L, S), K the number of lengths. With n sentences of a length and their mean m, r is x - m, times
    sqrt(n / (n - 1)), so that r^2 estimates the variance. A length with a single sentence has no variance of its own:
    its m is the mean of the two neighbouring lengths, and r is divided by the root of 1 + var(m) / var(x). All shares
    are stretched from a normal distribution to Student's t with the degrees of freedom that so few sentences leave
    (Satterthwaite 1946, with one variance for all lengths).
    """
    from scipy.special import stdtrit

    counted = np.flatnonzero((lengths >= SHORTEST) & (lengths <= LONGEST))
    shares = np.zeros(values.shape)
    if not len(counted):
        return shares
    kinds, which, counts = np.unique(lengths[counted], return_inverse=True, return_counts=True)
    table = np.eye(len(kinds))[which]
    own = values[:, counted]
    means = own @ table / counts
    scale = np.sqrt(counts / np.maximum(counts - 1, 1))
    centre = means.copy()
    for k in np.flatnonzero(counts == 1):
        beside = [j for j in (k - 1, k + 1) if 0 <= j < len(kinds)]
        if beside:
            centre[:, k] = means[:, beside].mean(1)
            scale[k] = 1 / np.sqrt(1 + (1 / counts[beside]).sum() / len(beside) ** 2)
    freedom = (1 / counts).sum() ** 2 / (1 / counts**2 / np.maximum(counts - 1, 1)).sum()
    stretch = stdtrit(freedom, 0.975) / stdtrit(np.inf, 0.975)
    shares[:, counted] = (own - centre[:, which]) * (stretch * scale / counts / len(kinds))[which]
    return shares
