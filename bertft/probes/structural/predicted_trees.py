"""Dependency trees predicted by structural probes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from bertft.data.examples import Sentence
from bertft.ops.reference import pairwise_distance
from bertft.probes.structural.scores import spanning_trees
from bertft.runs.files import write_text_atomically


def predicted_heads(points: Tensor, depths: Tensor) -> list[int]:
    """Return the 1-based heads of the words of one sentence, 0 for the root.

    The tree is the minimum spanning tree of the squared distances between ``points`` (n, R), punctuation included. The
    root is the word with the least of ``depths`` (n,). Distances have no direction, so all edges lead away from it.
    """
    n = len(points)
    edges = spanning_trees(pairwise_distance(points.double()[None], metric="sqeuclidean"))[0]
    heads = [0] * n
    order = [int(depths.argmin())]
    seen = set(order)
    for word in order:
        for other in torch.nonzero(edges[word]).flatten().tolist():
            if other not in seen:
                seen.add(other)
                heads[other] = word + 1
                order.append(other)
    return heads


def write_trees(path: Path, sentences: Sequence[Sentence], points: Tensor, depths: Tensor, *, layer: int) -> None:
    """Write the predicted trees of all sentences as CoNLL-U, from packed points (T, R) and depths (T,) of one layer.

    The relation is ``root`` or ``dep``, because a probe predicts none. MISC has the gold head as ``GoldHead``.
    """
    lines = ["# generator = bertft structural probe", f"# layer = {layer}"]
    start = 0
    for s in sentences:
        stop = start + len(s.words)
        heads = predicted_heads(points[start:stop], depths[start:stop])
        lines += [f"# sent_id = {s.id}", f"# text = {' '.join(s.words)}"]
        for i, word in enumerate(s.words):
            relation = "dep" if heads[i] else "root"
            cells = (i + 1, word, "_", s.upos[i], s.xpos[i], "_", heads[i], relation, "_", f"GoldHead={s.heads[i]}")
            lines.append("\t".join(map(str, cells)))
        lines.append("")
        start = stop
    write_text_atomically(path, "\n".join(lines) + "\n")
