"""Random sample of whole sentences from a stream."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.models.devices import sent_to

Integers: TypeAlias = npt.NDArray[np.int64]

START = 8192  # stimuli allocated at first


class Reservoir:
    """A random sample of whole sentences with their vectors in several spaces, at most ``capacity`` stimuli.

    Each sentence has a priority that depends on (seed, id) alone, and those of lowest priority are kept, at least two.
    The sample therefore depends neither on the order of the stream nor on its batches. A sentence may come in parts.

    The vectors of a space are in one tensor, in which new sentences reuse the rows of discarded ones. Separate tensors
    per sentence would be allocated among the encoder's activations and fragment the memory when those are freed.
    """

    def __init__(self, capacity: int = 5000, seed: int = 0) -> None:
        if capacity < 1:
            raise BertftError(f"Reservoir: capacity must be positive, found {capacity}")
        self.capacity, self.seed = capacity, seed
        self.stimuli = 0  # in the sample now
        self._limit = math.inf  # the lowest priority that was rejected
        self._heap: list[tuple[float, int]] = []  # (-priority, id), so that the highest priority leaves first
        self._counts: dict[int, int] = {}  # stimuli of each sentence kept
        self._room: list[Tensor] = []  # (rows, L, D) of each space
        self._owner = np.empty(0, dtype=np.int64)  # (rows,) the sentence of each row, -1 if it is free
        self._place = np.empty(0, dtype=np.int64)  # (rows,) the number of its stimulus in the sentence
        self._used = 0  # rows ever used; they come first

    def offer(self, ids: Tensor, lengths: Tensor, *spaces: Tensor) -> None:
        """Offer sentences: ids (S,), lengths (S,), and packed spaces (L, T, D) with T the sum of the lengths.

        Vectors that are kept are copied to the sample, which is on the device of the first ones. Never waits for it.
        """
        drawn, sizes = _priorities(self.seed, ids.numpy()), lengths.numpy()
        likely = np.flatnonzero((drawn < self._limit) & (sizes > 0))
        if not len(likely):
            return
        starts = np.cumsum(sizes) - sizes
        chosen: list[tuple[int, int, int, int]] = []  # sentence, its stimuli before, first row of the spaces, rows
        left: list[int] = []  # sentences that make room
        for at in likely.tolist():
            identity, size = int(ids[at]), int(sizes[at])
            if drawn[at] < self._limit:
                before = self._counts.get(identity, 0)
                left += self._count(identity, size, float(drawn[at]))
                chosen.append((identity, before, int(starts[at]), size))
        if left:
            self._owner[np.isin(self._owner, left)] = -1
        kept = np.array([entry for entry in chosen if entry[0] in self._counts], np.int64).reshape(-1, 4)
        if len(kept):
            owners, earlier, firsts, counts = kept.T
            self._keep(owners, earlier, firsts, counts, spaces)

    def _count(self, identity: int, length: int, priority: float) -> list[int]:
        """Make room for a sentence's stimuli; return the sentences discarded, which may include itself."""
        discarded = []
        if identity not in self._counts:
            heapq.heappush(self._heap, (-priority, identity))
        self._counts[identity] = self._counts.get(identity, 0) + length
        self.stimuli += length
        while len(self._heap) > 2 and self.stimuli > self.capacity:
            highest, leaving = heapq.heappop(self._heap)
            self._limit = -highest
            self.stimuli -= self._counts.pop(leaving)
            discarded.append(leaving)
        return discarded

    def _keep(
        self, owners: Integers, before: Integers, starts: Integers, sizes: Integers, spaces: Sequence[Tensor]
    ) -> None:
        """Copy rows ``starts[i]``.. of (L, T, D) of each space, ``sizes[i]`` many, into free rows for ``owners[i]``.

        Those are its stimuli from number ``before[i]`` on.
        """
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        taken = self._free(len(within), spaces)
        self._owner[taken] = np.repeat(owners, sizes)
        self._place[taken] = np.repeat(before, sizes) + within
        rows = np.stack([taken, np.repeat(starts, sizes) + within])
        for room, space in zip(self._room, spaces, strict=True):
            of = sent_to(torch.from_numpy(rows[1]), space.device)
            to = sent_to(torch.from_numpy(rows[0]), room.device)
            room.index_copy_(0, to, space.index_select(1, of).transpose(0, 1).to(room.device))

    def _free(self, count: int, spaces: Sequence[Tensor]) -> Integers:
        """Return the numbers of ``count`` free rows: those never used, else any; make new ones if need be."""
        rows = len(self._owner)
        if self._used + count <= rows:
            taken = np.arange(self._used, self._used + count)
        else:
            taken = np.flatnonzero(self._owner < 0)[:count]
        if len(taken) < count:
            self._room = self._room or [space[:, :0].transpose(0, 1).to(self._home(spaces)) for space in spaces]
            self._enlarge(max(2 * rows, min(self.capacity, START), rows + count - len(taken)))
            taken = np.flatnonzero(self._owner < 0)[:count]
        self._used = max(self._used, int(taken[-1]) + 1)
        return taken

    def _home(self, spaces: Sequence[Tensor]) -> torch.device:
        """Return the device of the sample: that of the spaces, or the CPU if it takes over an eighth of a GPU."""
        device = spaces[0].device
        if device.type != "cuda":
            return torch.device("cpu")
        size = self.capacity * sum(space.shape[0] * space.shape[2] * space.element_size() for space in spaces)
        fits = size <= torch.cuda.get_device_properties(device).total_memory // 8
        return device if fits else torch.device("cpu")

    def _enlarge(self, rows: int) -> None:
        for j, old in enumerate(self._room):
            self._room[j] = old.new_zeros((rows, *old.shape[1:]))
            self._room[j][: len(old)] = old
        self._owner = np.pad(self._owner, (0, rows - len(self._owner)), constant_values=-1)
        self._place = np.pad(self._place, (0, rows - len(self._place)))

    def _rows(self) -> Tensor:
        """Return the rows in use, in order of sentence and stimulus."""
        rows = np.flatnonzero(self._owner >= 0)
        return torch.from_numpy(rows[np.lexsort((self._place[rows], self._owner[rows]))])

    @property
    def ids(self) -> list[int]:
        """The sentences kept, ascending, in the order of `contents`."""
        return sorted(self._counts)

    @property
    def counts(self) -> list[int]:
        """The number of stimuli of each of `ids`."""
        return [self._counts[key] for key in self.ids]

    def state(self) -> tuple[dict[str, Tensor], float | None]:
        """Return the tensors of the sample on the CPU, without copies of those there, and the limit of priorities.

        The spaces (rows, L, D) are named by number, up to the last row ever used. ``sentence`` (rows,) int64 is the
        sentence of each row, -1 if it is free, and ``place`` (rows,) int64 the number of its stimulus in the sentence.
        """
        tensors = {str(j): space[: self._used].cpu() for j, space in enumerate(self._room)}
        if tensors:
            tensors["sentence"] = torch.from_numpy(self._owner[: self._used])
            tensors["place"] = torch.from_numpy(self._place[: self._used])
        return tensors, None if math.isinf(self._limit) else self._limit

    def restore(self, tensors: Mapping[str, Tensor], limit: float | None) -> Reservoir:
        """Resume from the `state` of a reservoir of the same capacity and seed."""
        if tensors:
            self._room = [tensors[str(j)] for j in range(len(tensors) - 2)]
            self._owner, self._place = tensors["sentence"].numpy(), tensors["place"].numpy()
            self._used = len(self._owner)
            self._enlarge(max(min(self.capacity, START), self._used))
            ids, counts = np.unique(self._owner[self._owner >= 0], return_counts=True)
            self._counts = dict(zip(ids.tolist(), counts.tolist(), strict=True))
            drawn = _priorities(self.seed, ids).tolist()
            self._heap = [(-priority, key) for priority, key in zip(drawn, ids.tolist(), strict=True)]
            heapq.heapify(self._heap)
            self.stimuli = int(counts.sum())
        self._limit = math.inf if limit is None else limit
        return self

    def listing(self) -> list[tuple[float, int, int]]:
        """Return (priority, sentence, stimuli) of each sentence kept."""
        return [(-negative, key, self._counts[key]) for negative, key in self._heap]

    def best_of(self, listing: list[tuple[float, int, int]]) -> set[int]:
        """Return the sentences of a ``listing`` that this reservoir would keep."""
        chosen: set[int] = set()
        stimuli = 0
        for _, key, length in sorted(listing):
            stimuli += length
            if stimuli > self.capacity and len(chosen) >= 2:
                break
            chosen.add(key)
        return chosen

    def only(self, ids: set[int]) -> dict[int, list[Tensor]]:
        """Return the spaces (n, L, D) of each kept sentence of ``ids``, for `of_parts`."""
        rows = zip(self.ids, self._rows().split(self.counts), strict=True)
        return {key: [space[mine.to(space.device)].cpu() for space in self._room] for key, mine in rows if key in ids}

    def of_parts(self, *tables: Mapping[int, Sequence[Tensor]]) -> Reservoir:
        """Return a reservoir of this capacity and seed that has been offered the sentences of all ``tables``.

        The sample of a whole stream follows from the samples of its parts, however it was divided.
        """
        whole = Reservoir(self.capacity, self.seed)
        for table in tables:
            for key, vectors in table.items():
                spaces = [space.transpose(0, 1) for space in vectors]
                whole.offer(torch.tensor([key]), torch.tensor([len(vectors[0])]), *spaces)
        return whole

    def contents(self) -> tuple[Tensor, list[Tensor]]:
        """Return the sentence of each stimulus (R,) int64, numbered from 0 in order of id, and the spaces (L, R, D)."""
        if not self._counts:
            raise BertftError("Reservoir: needs at least 2 sentences, found 0")
        groups = torch.repeat_interleave(torch.arange(len(self._counts)), torch.tensor(self.counts))
        rows = self._rows()
        return groups, [space[rows.to(space.device)].transpose(0, 1).contiguous().cpu() for space in self._room]


def _priorities(seed: int, ids: np.ndarray) -> np.ndarray:
    """Return uniform numbers in [0, 1) from (seed, id), by the finaliser of splitmix64, which mixes all bits."""
    with np.errstate(over="ignore"):
        z = ids.astype(np.uint64) + np.uint64(seed % 2**32 + 1) * np.uint64(0x9E3779B97F4A7C15)
        for _ in range(2):  # twice, so that neighbouring seeds do not give shifted sequences
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) / 2**53
