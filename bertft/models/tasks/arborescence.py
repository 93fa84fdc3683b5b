"""Maximum spanning arborescences with a single root: the decoder of the dependency parser."""

from __future__ import annotations

import numpy as np

from bertft.errors import BertftError


def decode_tree(scores: np.ndarray) -> np.ndarray:
    """Heads of the best tree in which exactly one word hangs from the root.

    ``scores`` (n, n + 1): ``scores[i, j]`` is the log score of word i + 1 having head j, 0 the root; entries for a
    word as its own head are ignored, all others must be finite. Returns heads (n,) int64 that maximise the sum of
    scores. Chu-Liu-Edmonds, O(n^3), run only where the best heads taken alone are no such tree.
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

    # Every tree has a root; a price on each that no gain elsewhere can outweigh leaves the trees with one.
    finite = scores[np.isfinite(scores)]
    scores[:, 0] -= (finite.max() - finite.min() + 1.0) * (n + 1)
    matrix = np.full((n + 1, n + 1), -np.inf)
    matrix[1:] = scores
    return _arborescence(matrix)[1:]


def _arborescence(scores: np.ndarray) -> np.ndarray:
    """Heads (m,) of the best tree over nodes 0 (the root) to m - 1, from ``scores[node, head]``, -inf for no arc.

    Chu and Liu 1965, Edmonds 1967: where the best heads taken alone close a cycle, the cycle becomes one node, at the
    price of the arc that is given up for the one that enters it; the smaller graph is solved in the same way.
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
    """The nodes of one cycle, or None where every node leads to node 0."""
    seen = np.zeros(len(heads), dtype=np.int64)  # the walk that came by, from 1
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
    """Whether ``heads`` (n,), 0 for the root, is a tree with exactly one word under the root."""
    n = len(heads)
    if int((heads == 0).sum()) != 1:
        return False
    # Pointer doubling: after log2(n + 1) squarings every word of a tree points at the root.
    above = np.concatenate([[0], heads])
    for _ in range(int(n).bit_length()):
        above = above[above]
    return not above.any()
