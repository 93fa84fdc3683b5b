"""Training of probes on a GPU without waiting for it.

Word vectors are split into halves once, dev batches are kept on the device; losses are read once an epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.ops import probe_steps
from bertft.ops.probe_steps import Plan, SplitWords
from bertft.probes.structural.columns import Columns
from bertft.probes.vectors import Vectors, WordVectors, Workspace, sent

ROWS = 128  # words of a tile
COLUMNS = 128  # dimensions, rounded up to which a word is stored


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
        lengths = torch.tensor([int(self.starts[i + 1] - self.starts[i]) for i in sentences])
        return SplitWords(halves, largest, len(rows)), _plan(lengths, device)


def _plan(lengths: Tensor, device: torch.device) -> Plan:
    """Return the plan of sentences with its tiles on ``device``."""
    planned = probe_steps.plan(lengths)
    return Plan(sent(planned.tiles, device), planned.counts)


def split_once(vectors: Vectors, rank: int) -> SplitVectors | None:
    """Return the vectors as halves, or None where that saves nothing or leaves less than a quarter of the memory."""
    # 4 bytes a number, once for each layer's part and once for all
    size = 8 * int(vectors.lengths.sum()) * vectors.layers * vectors.width
    return SplitVectors(vectors) if isinstance(vectors, WordVectors) and _serve(vectors, rank, size) else None


def _serve(vectors: WordVectors, rank: int, size: int) -> bool:
    """Return whether halves of ``size`` bytes make steps faster, and leave a quarter of the memory."""
    stored = vectors.vectors
    if not len(stored) or not probe_steps.serve(stored.transpose(0, 1), rank):
        return False
    free, total = torch.cuda.mem_get_info(stored.device)
    return free - size >= total // 4


Targets = tuple[Tensor, Tensor, Tensor]  # packed distances (sum n^2,), depths (T,), lengths (S,) on the CPU


@dataclass
class KeptBatch:
    """A batch of sentences on a GPU: words of all layers, split; the plan; packed distances and depths."""

    words: SplitWords
    plan: Plan
    distances: Tensor
    depths: Tensor
    sentences: int

    def losses(self, weights: Tensor, kinds: Sequence[int], chosen: Sequence[int], columns: Columns) -> Tensor:
        """Return the losses (L', 2) of a group's ``weights`` as `Columns` takes them; 0 for a kind not in ``kinds``."""
        halves, largest, words = self.words
        if len(chosen) < len(largest):
            index = columns.index(chosen, halves.device)
            shape = (len(chosen), *halves.shape[1:])
            taken = columns.workspace.take("halves", *shape, dtype=torch.float16, device=halves.device)
            halves = torch.index_select(halves, 0, index, out=taken)
            largest = largest.index_select(0, index)
        return probe_steps.loss(
            SplitWords(halves, largest, words),
            weights,
            self.distances if 0 in kinds else None,
            self.depths if 1 in kinds else None,
            self.plan,
            weights.shape[2] // len(kinds) if 0 in kinds else 0,
        )


def keep_batches(
    vectors: Vectors, batches: Sequence[Sequence[int]], targets: Callable[[Sequence[int]], Targets], rank: int
) -> list[KeptBatch] | None:
    """Return the sentences of each batch, kept on the GPU that holds ``vectors``; None where `split_once` returns None.

    Every epoch reads the same batches, so nothing is sent or planned again. ``targets(sentences)`` returns distances
    and depths on the GPU.
    """
    padded = sum(-(-int(vectors.lengths[list(batch)].sum()) // ROWS) * ROWS for batch in batches)
    size = 4 * padded * vectors.layers * (-(-vectors.width // COLUMNS) * COLUMNS)
    if not isinstance(vectors, WordVectors) or not _serve(vectors, rank, size):
        return None
    kept = []
    for batch in batches:
        distances, depths, lengths = targets(batch)
        if len(depths):  # sentences without a word have no loss
            words = probe_steps.split_words(vectors.batch(batch))
            plan = _plan(lengths, vectors.vectors.device)
            kept.append(KeptBatch(words, plan, distances, depths.float(), len(batch)))
    return kept


def kept_losses(
    batches: Sequence[KeptBatch],
    weights: Tensor,
    groups: Sequence[tuple[Sequence[int], Sequence[int]]],
    columns: Columns,
) -> Tensor:
    """Return the losses (2 * L,) float64, on the GPU, of all probes of ``groups``, summed over sentences.

    ``weights`` (2 * L, D, R) are those of the schedule. A probe of no group has the loss 0. Nothing is sent to the GPU
    or read from it.
    """
    totals = torch.zeros(2, columns.layers, dtype=torch.float64, device=weights.device)
    for kinds, chosen in groups:
        own = columns.take(weights, kinds, chosen)
        index = columns.index(chosen, weights.device)
        for batch in batches:
            losses = batch.losses(own, kinds, chosen, columns).double() * batch.sentences
            for kind in kinds:
                totals[kind].index_add_(0, index, losses[:, kind])
    return totals.flatten()


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
