"""Resumable pass of encoders through a text.

The text is taken in buffers of `BUFFER` examples (`ON_GPU` times as many for a long text on GPUs), each sorted by
length and encoded in batches. The next buffer is tokenised and cut into batches by another thread while the last one is
encoded, so that the text is read one buffer ahead. A run resumes between two batches and then computes exactly what it
would have computed without the interruption, so that the results agree to the bit on one machine with one number of
threads.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.models.pieces import sent
from bertft.runs import process as memory
from bertft.runs.ahead import ahead
from bertft.similarity.compare.comparison import Comparison
from bertft.similarity.compare.late_batches import LateBatches
from bertft.similarity.compare.reading import Buffer, Kinship, Reader
from bertft.similarity.compare.row_checks import RowChecks
from bertft.similarity.compare.stimuli import cut, layer_counts, side_by_side
from bertft.similarity.compare.workers import ALONE, Team

if TYPE_CHECKING:
    from bertft.models.encoder import Batch, Encoder
    from bertft.models.pieces import Prepared

BUFFER = 1024  # examples: few, so that a short text is not tokenised further than it is used
ON_GPU = 16  # times as many, so that batches of `LARGEST` pieces are of similar length
USUAL, LARGEST = 4096, 65_536  # pieces of a batch, with padding: on the CPU, and on a GPU with the memory for it
SHARE = 1 / 8  # of a GPU's memory, for the vectors of a batch


class Sizes(NamedTuple):
    """Examples of a buffer, and the largest number of pieces of a batch."""

    buffer: int
    batch: int


def sizes_for(encoders: Sequence[Encoder], tokens: int | None) -> Sizes:
    """Return the sizes that suit the encoders' device and a text of ``tokens`` stimuli (None: all of it).

    They decide which examples share a batch, and so the last bits of the results. Those of a GPU depend on nothing but
    the encoders and the card's whole memory, so that they are the same when a run resumes.
    """
    if any(encoder.device.type != "cuda" for encoder in encoders):
        return Sizes(BUFFER, USUAL)
    room = min(torch.cuda.get_device_properties(encoder.device).total_memory for encoder in encoders) * SHARE
    batch = LARGEST
    while batch > USUAL and batch * sum(map(_bytes_of_a_vector, encoders)) > room:
        batch //= 2
    long = tokens is None or tokens >= ON_GPU * LARGEST // 4
    return Sizes(BUFFER * ON_GPU if long else BUFFER, batch)


def _bytes_of_a_vector(encoder: Encoder) -> int:
    """Return the bytes of the vectors of one piece in all layers."""
    return encoder.num_layers * encoder.dim * next(encoder.model.parameters()).element_size()


class StreamRun:
    """The position of a run in its text, and the work from there on."""

    def __init__(
        self,
        base: Encoder,
        tuned: Mapping[str, Encoder],
        comparison: Comparison,
        tokens: int | None,
        options: dict[str, Any],
        team: Team,
    ) -> None:
        self.encoders = [base, *tuned.values()]
        self.comparison, self.tokens, self.options, self.team = comparison, tokens, options, team
        found = sizes_for(self.encoders, tokens)
        self.sizes = found._replace(batch=options["batch_tokens"] or found.batch)
        self.kinship = Kinship.of(self.encoders)
        self.layers = layer_counts(base, tuned, comparison.plan.layers)
        self.checks, self.late = RowChecks(comparison), LateBatches(comparison)
        self.buffer = self.batch = 0  # the next to process
        self.first = 0  # the buffer's first example
        self.taken = 0  # stimuli of all processes in earlier buffers
        self.left: Tensor | None = None  # remaining stimuli of each of the buffer's examples
        self.ended = False

    def batches(self, texts: Iterable[Any]) -> Iterator[tuple[int, int]]:
        """Feed the remaining text to the comparison; yield the stimuli and examples of every batch."""
        self.sizes = Sizes(*self.team.least(self.sizes))  # all processes exchange them, also one that has ended
        if self.ended:
            return
        source = iter(texts)
        if self.team.size > 1 and len(self.comparison) == 0:
            head = list(itertools.islice(source, self.sizes.buffer))
            self._start(head)
            source = itertools.chain(head, source)
        _skip(source, self.first)
        reader = self._reader(self.team, self.buffer, self.taken)
        for buffer in ahead(reader.parts(source, self.sizes.buffer), reader.prepare):
            if buffer.batches:
                yield from self._encode(buffer)
                self.comparison.sentences += sum(count > 0 for count in buffer.counts)
            self.taken += sum(buffer.counts)
            self.first += len(buffer.names)
            self.buffer, self.batch, self.left = self.buffer + 1, 0, None
            memory.give_back()
        self._settle()
        self.ended = True

    def _reader(self, team: Team, buffer: int, taken: int) -> Reader:
        options = {**self.options, "batch_tokens": self.sizes.batch}
        return Reader(self.encoders, options, team, self.tokens, self.kinship, buffer=buffer, taken=taken)

    def _encode(self, buffer: Buffer) -> Iterator[tuple[int, int]]:
        left = torch.tensor(buffer.counts) if self.left is None else self.left
        for place, (index, lengths, spaces) in self._spaces(buffer, self.batch):
            lengths, spaces = cut(index, lengths, left, spaces)
            add = (index + self.first, lengths, spaces, partial(_name, buffer.names, self.first))
            self.checks.begin(spaces, partial(self._explain, *add))
            self.late.add(*add)
            self.batch, self.left = place + 1, left
            yield int(lengths.sum()), len(index.unique())

    def _settle(self) -> None:
        """Finish the checks and the sums of the last batch."""
        self.checks.settle()
        self.late.settle()

    def _explain(self, *batch: Any) -> None:
        """Raise the error of a bad row in a batch that was added unchecked."""
        Comparison(self.comparison.plan, self.layers).update(*batch)

    def _spaces(self, buffer: Buffer, skip: int) -> Iterator[tuple[int, tuple[Tensor, Tensor, list[Tensor]]]]:
        """Yield the buffer's batches from number ``skip`` on. Encoders that batch alike do not run the skipped ones."""
        left_out = skip if self.kinship.batch else 0
        places = torch.tensor(buffer.places)
        streams = _encoded(self.encoders, buffer.batches, left_out, self.comparison.plan.layers)
        for place, (index, lengths, spaces) in enumerate(side_by_side(streams), start=left_out):
            if place >= skip:
                yield place, (places[index], lengths, spaces)

    def _start(self, head: list[Any]) -> None:
        """Fix the means by the first batch of the text, the same in every process."""
        buffer = self._reader(ALONE, 0, 0).prepare(head)
        for _, (index, lengths, spaces) in self._spaces(buffer, 0):
            self.comparison.start(cut(index, lengths, torch.tensor(buffer.counts), spaces)[1])
            return

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return tensors and JSON values for `restore`."""
        self._settle()
        comparison = self.comparison
        tensors, limit = comparison.state()
        record = {
            "buffer": self.buffer,
            "batch": self.batch,
            "first": self.first,
            "taken": self.taken,
            "left": None if self.left is None else self.left.tolist(),
            "ended": self.ended,
            "sentences": comparison.sentences,
            "limit": limit,
            "sizes": list(self.sizes),
        }
        return tensors, record

    def restore(self, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
        """Resume from a `state`."""
        comparison = self.comparison
        for name in ("buffer", "batch", "first", "taken", "ended"):
            setattr(self, name, record[name])
        self.sizes = Sizes(*record.get("sizes", (BUFFER, USUAL)))  # older checkpoints lack them
        self.left = None if record["left"] is None else torch.tensor(record["left"])
        comparison.sentences = record["sentences"]
        comparison.restore(tensors, record["limit"])


def _name(names: Sequence[str], first: int, text: int) -> str:
    """Return the position of a text in the stream and its name, if it has one: its line, or a sentence's id."""
    name = names[text - first]
    return f"text {text + 1} of the stream" + (f" ({name})" if name else "")


def _encoded(
    encoders: Sequence[Encoder], batches: Sequence[list[Prepared]], skip: int, layers: Sequence[int]
) -> list[Iterator[Batch]]:
    """Return the vectors of each encoder's batches from number ``skip`` on, in ``layers`` (() for all).

    Batches that several encoders share are sent to their device once.
    """
    keys = [(id(own), encoder.device) for encoder, own in zip(encoders, batches, strict=True)]
    sources: dict[Any, list[Iterator[Prepared]]] = {}
    for key, own in zip(keys, batches, strict=True):
        if key not in sources:
            sources[key] = list(itertools.tee(sent(own[skip:], key[1]), keys.count(key)))
    return [
        map(partial(encoder.encode, layers=layers or range(encoder.num_layers)), sources[key].pop())
        for encoder, key in zip(encoders, keys, strict=True)
    ]


def _skip(source: Iterator[Any], count: int) -> None:
    found = sum(1 for _ in itertools.islice(source, count))
    if found < count:
        raise BertftError(f"similarity: the text changed, it has {found} examples and the checkpoint is after {count}")
