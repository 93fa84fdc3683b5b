"""Maximum spanning arborescences with a single root."""

from __future__ import annotations

import numpy as np

from bertft.errors import BertftError


def decode_tree(scores: np.ndarray) -> np.ndarray:
    """Return the heads of the best tree with exactly one word under the root.

    Runs Chu-Liu-Edmonds, O(n^3), only if each word's best head does not already give such a tree.

    Args:
        scores: (n, n + 1). ``scores[i, j]`` is the log score of head j for word i + 1, where 0 is the root. Entries of
            a word as its own head are ignored; all others must be finite.

    Returns:
        Heads (n,) int64 that maximise the sum of scores.
    """
    n = len(scores)
    if scores.shape != (n, n + 1):
        raise BertftError(f"decode_tree: expected scores of shape (n, n + 1), found {scores.shape}")
    words = np.arange(n)
    scores = np.array(scores, dtype=np.float64)
    scores[words, words + 1] = -np.inf
    greedy = scores.argmax(1)
    if is_single_root_tree(greedy):
        return greedy

    # Penalise every root by more than any gain elsewhere, so that the best tree has one.
    finite = scores[np.isfinite(scores)]
    scores[:, 0] -= (finite.max() - finite.min() + 1.0) * (n + 1)
    matrix = np.full((n + 1, n + 1), -np.inf)
    matrix[1:] = scores
    return _arborescence(matrix)[1:]


def _arborescence(scores: np.ndarray) -> np.ndarray:
    """Return heads (m,) of the best tree over m nodes, node 0 the root, from ``scores[node, head]`` (-inf: no arc).

    Chu and Liu 1965, Edmonds 1967: if the best heads form a cycle, contract the cycle to one node and solve the smaller
    graph recursively. Entering the cycle costs the arc that the entering arc replaces.
    """
    heads = scores.argmax(1)
    heads[0] = 0
    cycle = _cycle(heads)
    if cycle is None:
        return heads
    outside = np.setdiff1d(np.arange(len(scores)), cycle)
    k = len(outside)
    gain = scores[np.ix_(cycle, outside)] - scores[cycle, heads[cycle]][:, None]
    enter, leave = gain.argmax(0), cycle[scores[np.ix_(outside, cycle)].argmax(1)]
    smaller = np.full((k + 1, k + 1), -np.inf)  # the cycle is the last node
    smaller[:k, :k] = scores[np.ix_(outside, outside)]
    smaller[k, :k] = gain.max(0)
    smaller[:k, k] = scores[outside, leave]
    found = _arborescence(smaller)
    heads[outside] = np.where(found[:k] == k, leave, outside[np.minimum(found[:k], k - 1)])
    heads[cycle[enter[found[k]]]] = outside[found[k]]
    heads[0] = 0
    return heads


def _cycle(heads: np.ndarray) -> np.ndarray | None:
    """Return the nodes of one cycle, or None if every node leads to node 0."""
    seen = np.zeros(len(heads), dtype=np.int64)  # the number, from 1, of the walk that visited the node
    seen[0] = -1
    for start in range(1, len(heads)):
        node = start
        while seen[node] == 0:
            seen[node] = start
            node = int(heads[node])
        if seen[node] == start:
            nodes = [node]
            while (node := int(heads[node])) != nodes[0]:
                nodes.append(node)
            return np.array(nodes)
    return None


def is_single_root_tree(heads: np.ndarray) -> bool:
    """Return whether ``heads`` (n,), 0 for the root, is a tree with exactly one word under the root."""
    n = len(heads)
    if int((heads == 0).sum()) != 1:
        return False
    # Pointer doubling: after log2(n + 1) squarings every word of a tree points at the root.
    above = np.concatenate([[0], heads])
    for _ in range(int(n).bit_length()):
        above = above[above]
    return not above.any()
