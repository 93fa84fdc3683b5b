"""Tokenised examples in flat arrays, and batches of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import torch
from torch import Tensor

from bertft.data.alignment import Flags, Integers, flattened
from bertft.errors import BertftError
from bertft.models.batching import Encoded, pool_words
from bertft.models.devices import sent_to


@dataclass(frozen=True, slots=True, eq=False)
class Pieces(Sequence[Encoded]):
    """Tokenised examples, one after the other in flat arrays; a sequence of `Encoded`.

    - ``inputs``: (N,) int64 by name, the model's inputs of all N pieces;
    - ``slots``: (N,) int64, the vector of its example that each piece is pooled into, or below 0 (`Encoded`);
    - ``starts``: (S + 1,) int64, the first piece of each example, then N;
    - ``place``: (S,) int64, the position of each example in the input;
    - ``whole``: (S,) bool, whether an example is never cut into windows;
    - ``counts``: (S,) int64, the number of vectors of each example.
    """

    inputs: dict[str, Integers]
    slots: Integers
    starts: Integers
    place: Integers
    whole: Flags
    counts: Integers

    @classmethod
    def of_arrays(
        cls, inputs: dict[str, Integers], slots: Integers, lengths: Integers, start: int, *, whole: bool = False
    ) -> Pieces:
        """Return S examples of these ``lengths`` (S,) in pieces; ``place`` counts from ``start``."""
        starts = starts_of(lengths)
        counts = np.zeros(len(lengths), np.int64)
        if (filled := np.flatnonzero(lengths)).size:
            counts[filled] = np.maximum(np.maximum.reduceat(slots, starts[filled]), -1) + 1
        place = np.arange(start, start + len(lengths))
        return cls(inputs, slots, starts, place, np.full(len(lengths), whole), counts)

    @classmethod
    def of(cls, examples: Sequence[Encoded]) -> Pieces:
        """Return ``examples`` in arrays, with their own ``index``."""
        if isinstance(examples, Pieces):
            return examples
        names = examples[0].inputs if examples else ()
        inputs = {name: flattened(item.inputs[name] for item in examples)[0] for name in names}
        lengths = np.array([len(item) for item in examples], np.int64)
        made = cls.of_arrays(inputs, flattened(item.slots for item in examples)[0], lengths, 0)
        return made.numbered(
            np.array([item.index for item in examples], np.int64),
            np.array([item.whole for item in examples], np.bool_),
        )

    @classmethod
    def join(cls, parts: Sequence[Pieces]) -> Pieces:
        """Return the examples of all ``parts`` (one or more), in order."""
        if len(parts) == 1:
            return parts[0]
        lengths = np.concatenate([part.lengths for part in parts])
        return cls(
            {name: np.concatenate([part.inputs[name] for part in parts]) for name in parts[0].inputs},
            np.concatenate([part.slots for part in parts]),
            starts_of(lengths),
            np.concatenate([part.place for part in parts]),
            np.concatenate([part.whole for part in parts]),
            np.concatenate([part.counts for part in parts]),
        )

    @property
    def lengths(self) -> Integers:
        """(S,) int64, the number of pieces of each example."""
        return np.diff(self.starts)

    def __len__(self) -> int:
        return len(self.place)

    @overload
    def __getitem__(self, row: int) -> Encoded: ...

    @overload
    def __getitem__(self, row: slice) -> list[Encoded]: ...

    def __getitem__(self, row: int | slice) -> Encoded | list[Encoded]:
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        row %= len(self)
        mine = slice(self.starts[row], self.starts[row + 1])
        inputs = {name: values[mine].tolist() for name, values in self.inputs.items()}
        return Encoded(int(self.place[row]), inputs, self.slots[mine].tolist(), whole=bool(self.whole[row]))

    def numbered(self, place: Integers, whole: Flags | None = None) -> Pieces:
        """Return the same examples with other positions (S,) in the input."""
        return Pieces(self.inputs, self.slots, self.starts, place, self.whole if whole is None else whole, self.counts)

    def take(self, rows: Integers) -> Pieces:
        """Return the examples in ``rows``, in that order."""
        lengths = self.lengths[rows]
        starts = starts_of(lengths)
        at = np.repeat(self.starts[:-1][rows] - starts[:-1], lengths) + np.arange(starts[-1])
        inputs = {name: values[at] for name, values in self.inputs.items()}
        return Pieces(inputs, self.slots[at], starts, self.place[rows], self.whole[rows], self.counts[rows])

    def batches(self, batch_tokens: int) -> Iterator[Integers]:
        """Yield the rows of batches of similar length, longest first, as `length_sorted_batches` does."""
        order = np.argsort(-self.lengths, kind="stable")
        widths = self.lengths[order].tolist()
        start = 0
        while start < len(order):
            width = widths[start]
            stop = start + max(1, batch_tokens // width) if width else len(order)
            yield order[start:stop]
            start = stop


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """One batch of S examples, ready for a model: padded inputs, and the pieces behind each vector.

    - ``inputs``: (S, P) int64 by name, padded on the right, with ``attention_mask``;
    - ``pieces`` and ``offsets``: as in `bertft.models.batching.word_pieces`; ``offsets`` is None if every vector is
      that of one piece;
    - ``lengths``: (S,) int64 on the CPU, the number of vectors of each example;
    - ``index``: (S,) int64 on the CPU, the position of each example in the input;
    - ``padded``: whether any input is padding;
    - ``vectors``: T, the sum of the lengths.
    """

    inputs: dict[str, Tensor]
    pieces: Tensor
    offsets: Tensor | None
    lengths: Tensor
    index: Tensor
    padded: bool
    vectors: int

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Prepared:
        """Return the batch with ``change`` applied to the tensors that go to the device."""
        inputs = {name: change(tensor) for name, tensor in self.inputs.items()}
        offsets = None if self.offsets is None else change(self.offsets)
        return Prepared(inputs, change(self.pieces), offsets, self.lengths, self.index, self.padded, self.vectors)


def prepare(pieces: Pieces, rows: Integers, padding: dict[str, int]) -> Prepared:
    """Return one batch of the examples in ``rows``.

    ``padding`` has the value behind the end of each input, by name, 0 by default. Padding is on the right, whichever
    side the tokenizer pads, so that positions count from the start of the text in decoders too.
    """
    lengths, counts = pieces.lengths[rows], pieces.counts[rows]
    place = np.arange(lengths.max())
    inside = place < lengths[:, None]
    at = np.minimum(pieces.starts[:-1][rows][:, None] + place, max(0, len(pieces.slots) - 1))
    inputs = {
        name: torch.from_numpy(np.where(inside, values[at], padding.get(name, 0)))
        for name, values in pieces.inputs.items()
    }
    inputs["attention_mask"] = torch.from_numpy(inside.astype(np.int64))
    slots = pieces.slots[at]
    kept = np.flatnonzero(inside & (slots >= 0))
    total, offsets = int(counts.sum()), None
    if total != len(kept):
        first = starts_of(counts)[:-1]
        owner = (slots + first[:, None]).ravel()[kept]
        sizes = np.bincount(owner, minlength=total)
        offsets = torch.from_numpy(np.cumsum(sizes) - sizes)
    numbers = torch.from_numpy(counts), torch.from_numpy(pieces.place[rows])
    return Prepared(inputs, torch.from_numpy(kept), offsets, *numbers, not inside.all(), total)


def pool(hidden: Tensor, batch: Prepared, out: Tensor) -> None:
    """Write the packed vectors of a batch, from its hidden states (S, P, D), to ``out`` (T, D) on any device."""
    pieces, device = batch.pieces.to(hidden.device), hidden.device
    free = out.device.type != "cpu"  # the host reads the CPU's memory and would not wait for a copy from ``mps``
    if batch.offsets is not None:
        out.copy_(pool_words(hidden, pieces, batch.offsets.to(device)), non_blocking=free)
    elif out.device == device:
        torch.index_select(hidden.reshape(-1, hidden.shape[-1]), 0, pieces, out=out)
    else:
        out.copy_(hidden.reshape(-1, hidden.shape[-1])[pieces], non_blocking=free)


def sent(batches: Iterable[Prepared], device: torch.device) -> Iterator[Prepared]:
    """Yield ``batches`` on ``device``; on a GPU each is copied from pinned memory while the one before it computes.

    The copies run in a stream of their own. The stream that computes waits for a copy, never the host, and a tensor's
    memory is used again only after that stream is done with it.
    """
    if device.type != "cuda":
        yield from (batch.mapped(lambda tensor: sent_to(tensor, device)) for batch in batches)
        return
    copies = torch.cuda.Stream(device)
    ahead: tuple[Prepared, torch.cuda.Event] | None = None

    def used(tensor: Tensor) -> Tensor:
        tensor.record_stream(torch.cuda.current_stream(device))
        return tensor

    def ready(batch: Prepared, copied: torch.cuda.Event) -> Prepared:
        torch.cuda.current_stream(device).wait_event(copied)
        return batch.mapped(used)

    for batch in batches:
        with torch.cuda.stream(copies):
            there = batch.mapped(lambda tensor: sent_to(tensor, device))
            copied = copies.record_event()
        if ahead is not None:
            yield ready(*ahead)
        ahead = there, copied
    if ahead is not None:
        yield ready(*ahead)


def starts_of(lengths: Integers) -> Integers:
    """Return the sums of the first 0, 1, ... S of ``lengths`` (S,), (S + 1,) int64."""
    starts = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts


def slots_of(kept: Flags, lengths: Integers) -> Integers:
    """Return a number for each piece: the kept ones of an example are numbered from 0, the others get -1."""
    running = np.cumsum(kept)
    before = np.concatenate([[0], running])[starts_of(lengths)[:-1]]
    return np.where(kept, running - 1 - np.repeat(before, lengths), -1)


def fitting(pieces: Pieces, limit: int, *, split: bool, name: str) -> Pieces:
    """Return the examples cut into consecutive windows of at most ``limit`` pieces.

    Raises:
        BertftError: for a longer example if it is whole or ``split`` is False, and for a word that fills no window.
            ``name`` is that of the encoder.
    """
    parts, done = [], 0
    for row in np.flatnonzero(pieces.lengths > limit).tolist():
        item = pieces[row]
        if not split or item.whole:
            raise BertftError(
                f"stream: example {item.index} has {len(item)} pieces, expected at most {limit} for {name}"
            )
        parts += [pieces.take(np.arange(done, row)), Pieces.of(_windows(item, limit))]
        done = row + 1
    return Pieces.join([*parts, pieces.take(np.arange(done, len(pieces)))]) if parts else pieces


def _windows(item: Encoded, limit: int) -> list[Encoded]:
    """Cut an example between words into consecutive windows of at most ``limit`` pieces, each with special tokens."""
    slots = item.slots
    head = next(i for i, slot in enumerate(slots) if slot != -1)
    tail = len(slots) - next(i for i, slot in enumerate(reversed(slots)) if slot != -1)
    room = limit - head - (len(slots) - tail)
    parts = []
    start = head
    while start < tail:
        stop = min(start + room, tail)
        while start < stop < tail and slots[stop] == slots[stop - 1]:
            stop -= 1
        if stop == start:
            raise BertftError(f"stream: example {item.index} has a word of more than {room} pieces, the window's room")
        keep = [*range(head), *range(start, stop), *range(tail, len(slots))]
        inputs = {key: [values[i] for i in keep] for key, values in item.inputs.items()}
        first = max(slots[start], 0)
        parts.append(Encoded(item.index, inputs, [slots[i] - first if slots[i] >= 0 else -1 for i in keep]))
        start = stop
    return parts
