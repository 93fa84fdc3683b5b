"""The trees a structural probe sees: heads from its distances and depths, and CoNLL-U files of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from bertft.data.examples import Sentence
from bertft.ops.reference import pairwise_distance
from bertft.probes.structural.scores import spanning_trees
from bertft.runs.rows import write_text_atomically


def predicted_heads(points: Tensor, depths: Tensor) -> list[int]:
    """1-based heads of one sentence's words, 0 for the root.

    The minimum spanning tree of the probe's distances between ``points`` (n, R), hung from the word of the least of
    ``depths`` (n,). Distance probes know no direction: all edges lead away from that root. Punctuation is kept here.
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

    The relation is ``root`` or ``dep``, for a probe names none; the gold head is kept as ``GoldHead`` in MISC.
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
