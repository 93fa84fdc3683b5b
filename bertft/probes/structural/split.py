"""Training of probes on a GPU without waiting for it.

Word vectors are split into halves once; losses are read once an epoch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.ops import probe_steps
from bertft.ops.probe_steps import Plan, SplitWords
from bertft.probes.vectors import Vectors, WordVectors, Workspace, sent

ROWS = 128  # words of a tile


class SplitVectors:
    """Vectors of the words of all sentences, split once."""

    def __init__(self, vectors: WordVectors) -> None:
        self.starts = vectors.starts
        parts = [probe_steps.split_words(vectors.vectors[:, layer][None]) for layer in range(vectors.layers)]
        self.halves = torch.cat([part.halves for part in parts])
        self.largest = torch.cat([part.largest for part in parts])

    def batch(self, sentences: Sequence[int], layers: Sequence[int], workspace: Workspace) -> tuple[SplitWords, Plan]:
        """Return the words of ``sentences`` in ``layers``, valid until the next batch, and the sentences' plan."""
        device, padded = self.halves.device, self.halves.shape[1]
        rows = np.concatenate([np.arange(self.starts[i], self.starts[i + 1]) for i in sentences])
        filled = np.concatenate([rows, np.zeros(-len(rows) % ROWS, dtype=np.int64)])  # any words fill the last tile
        chosen = np.asarray(layers)
        numbers = sent(torch.from_numpy((filled + chosen[:, None] * padded).ravel()), device)
        shape = (len(chosen), len(filled), *self.halves.shape[2:])
        halves = workspace.take("halves", *shape, dtype=torch.float16, device=device)
        torch.index_select(self.halves.flatten(0, 1), 0, numbers, out=halves.flatten(0, 1))
        largest = self.largest
        if len(chosen) < len(largest):
            largest = largest.index_select(0, sent(torch.from_numpy(chosen), device))
        planned = probe_steps.plan(torch.tensor([int(self.starts[i + 1] - self.starts[i]) for i in sentences]))
        return SplitWords(halves, largest, len(rows)), Plan(sent(planned.tiles, device), planned.counts)


def split_once(vectors: Vectors, rank: int) -> SplitVectors | None:
    """Return the vectors as halves, or None where that saves nothing or leaves less than a quarter of the memory."""
    if not isinstance(vectors, WordVectors) or not len(vectors.vectors):
        return None
    stored = vectors.vectors
    if not probe_steps.serve(stored.transpose(0, 1), rank):
        return None
    free, total = torch.cuda.mem_get_info(stored.device)
    # 4 bytes a number, once for each layer's part and once for all
    return SplitVectors(vectors) if free - 8 * stored.numel() >= total // 4 else None


class Watch:
    """The losses of an epoch on a GPU, which are read once, at its end. Those on the CPU are checked at each step."""

    def __init__(self) -> None:
        self.total: Tensor | None = None

    def add(self, loss: Tensor) -> None:
        """Take the losses of a step."""
        if loss.is_cuda:
            self.total = loss.sum() if self.total is None else self.total + loss.sum()

    def check(self) -> None:
        """Raise BertftError if a loss since the last check was not finite."""
        total, self.total = self.total, None
        if total is not None:
            check_finite("training", total)


def check_finite(name: str, total: Tensor) -> None:
    """Raise BertftError if the sum of losses of an epoch is not finite."""
    if not math.isfinite(total.item()):
        raise BertftError(f"structural probes: a {name} loss of this epoch is not finite, though every word vector is")
