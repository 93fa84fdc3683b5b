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

    from ufal.chu_liu_edmonds import chu_liu_edmonds

    scores[words, words + 1] = np.nan
    # Every tree has a root; a price on each that no gain elsewhere can outweigh leaves the trees with one.
    low, high = np.nanmin(scores), np.nanmax(scores)
    scores[:, 0] -= (high - low + 1.0) * (n + 1)
    matrix = np.full((n + 1, n + 1), np.nan)
    matrix[1:] = scores
    heads, _ = chu_liu_edmonds(matrix)
    return np.asarray(heads[1:], dtype=np.int64)


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
