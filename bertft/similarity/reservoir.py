"""A random sample of whole sentences, kept while a stream of any length goes by."""

from __future__ import annotations

import heapq
import math

import numpy as np
import torch
from torch import Tensor

from bertft.errors import BertftError


class Reservoir:
    """A random sample of whole sentences with their vectors in several spaces, at most ``capacity`` stimuli.

    Each sentence has a priority drawn from (seed, id) alone, and the lowest ones stay (two at least), so that the
    sample depends neither on the order of the stream nor on how it is cut into batches. A sentence may come in parts.
    """

    def __init__(self, capacity: int = 5000, seed: int = 0) -> None:
        if capacity < 1:
            raise BertftError(f"Reservoir: capacity must be positive, found {capacity}")
        self.capacity, self.seed = capacity, seed
        self.stimuli = 0  # kept now
        self._limit = math.inf  # the lowest priority that was turned away
        self._heap: list[tuple[float, int]] = []  # (-priority, id), so that the highest priority leaves first
        self._parts: dict[int, list[tuple[Tensor, ...]]] = {}

    def offer(self, ids: Tensor, lengths: Tensor, *spaces: Tensor) -> None:
        """Offer sentences: ids (S,) and lengths (S,), spaces (L, T, D) packed, T the sum of the lengths.

        What is kept is copied to the CPU.
        """
        stop = 0
        drawn = _priorities(self.seed, ids.numpy()).tolist()
        for identity, length, priority in zip(ids.tolist(), lengths.tolist(), drawn, strict=True):
            start, stop = stop, stop + length
            if not length or priority >= self._limit:
                continue
            if identity not in self._parts:
                heapq.heappush(self._heap, (-priority, identity))
                self._parts[identity] = []
            kept = tuple(space[:, start:stop].to("cpu", copy=True).contiguous() for space in spaces)
            self._parts[identity].append(kept)
            self.stimuli += length
            self._prune()

    def _prune(self) -> None:
        while len(self._heap) > 2 and self.stimuli > self.capacity:
            highest, leaving = heapq.heappop(self._heap)
            self._limit = -highest
            self.stimuli -= _length(self._parts.pop(leaving))

    @property
    def ids(self) -> list[int]:
        """The sentences kept, ascending: the order of ``contents``."""
        return sorted(self._parts)

    @property
    def counts(self) -> list[int]:
        """How many stimuli each of ``ids`` has."""
        return [_length(self._parts[key]) for key in self.ids]

    def state(self) -> tuple[dict[str, Tensor], float | None]:
        """What is kept, each part by ``id.part.space`` (the very tensors), and the limit of priorities."""
        tensors = {
            f"{key}.{i}.{j}": space
            for key, parts in self._parts.items()
            for i, part in enumerate(parts)
            for j, space in enumerate(part)
        }
        return tensors, None if math.isinf(self._limit) else self._limit

    def restore(self, tensors: dict[str, Tensor], limit: float | None) -> Reservoir:
        """Go on from the ``state`` of a reservoir of the same capacity and seed."""
        parts: dict[int, dict[int, dict[int, Tensor]]] = {}
        for name, tensor in tensors.items():
            key, i, j = map(int, name.split("."))
            parts.setdefault(key, {}).setdefault(i, {})[j] = tensor
        self._fill({
            key: [tuple(spaces[j] for j in sorted(spaces)) for _, spaces in sorted(rows.items())]
            for key, rows in parts.items()
        })  # fmt: skip
        self._limit = math.inf if limit is None else limit
        return self

    def listing(self) -> list[tuple[float, int, int]]:
        """(priority, sentence, stimuli) of each sentence kept."""
        return [(-negative, key, _length(self._parts[key])) for negative, key in self._heap]

    def best_of(self, listing: list[tuple[float, int, int]]) -> set[int]:
        """Which sentences of a ``listing`` this reservoir would keep."""
        chosen: set[int] = set()
        stimuli = 0
        for _, key, length in sorted(listing):
            stimuli += length
            if stimuli > self.capacity and len(chosen) >= 2:
                break
            chosen.add(key)
        return chosen

    def only(self, ids: set[int]) -> dict[int, list[tuple[Tensor, ...]]]:
        """The parts of those of ``ids`` that are kept; ``of_parts`` makes a reservoir of them."""
        return {key: parts for key, parts in self._parts.items() if key in ids}

    def of_parts(self, *tables: dict[int, list[tuple[Tensor, ...]]]) -> Reservoir:
        """A reservoir of this capacity and seed with the sentences of all ``tables``, as if it had been offered them.

        The sample of a whole stream follows from the samples of its parts, whatever the division.
        """
        whole = Reservoir(self.capacity, self.seed)
        whole._fill({key: parts for table in tables for key, parts in table.items()})
        whole._prune()
        return whole

    def _fill(self, parts: dict[int, list[tuple[Tensor, ...]]]) -> None:
        self._parts = parts
        priorities = _priorities(self.seed, np.fromiter(parts, dtype=np.int64, count=len(parts))).tolist()
        self._heap = [(-priority, key) for priority, key in zip(priorities, parts, strict=True)]
        heapq.heapify(self._heap)
        self.stimuli = sum(map(_length, parts.values()))

    def contents(self) -> tuple[Tensor, list[Tensor]]:
        """Sentence of each kept stimulus (R,) int64, 0.. in order of id, and the spaces (L, R, D)."""
        if not self._parts:
            raise BertftError("Reservoir: needs at least 2 sentences, found 0")
        parts = [(i, part) for i, key in enumerate(sorted(self._parts)) for part in self._parts[key]]
        groups = torch.cat([torch.full((part[0].shape[1],), i) for i, part in parts])
        return groups, [torch.cat(space, dim=1) for space in zip(*(part for _, part in parts), strict=True)]


def _length(parts: list[tuple[Tensor, ...]]) -> int:
    return sum(part[0].shape[1] for part in parts)


def _priorities(seed: int, ids: np.ndarray) -> np.ndarray:
    """Uniform numbers in [0, 1) from (seed, id): the finaliser of splitmix64, which mixes all bits."""
    with np.errstate(over="ignore"):
        z = ids.astype(np.uint64) + np.uint64(seed % 2**32 + 1) * np.uint64(0x9E3779B97F4A7C15)
        for _ in range(2):  # twice, so that neighbouring seeds do not give shifted sequences
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) / 2**53
