"""Resumable pass of encoders through a text.

The text is taken in buffers of `BUFFER` examples, each sorted by length and encoded in batches. A run resumes between
two batches and then computes exactly what it would have computed without the interruption, so that the results agree to
the bit on one machine with one number of threads.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bertft.data.examples import Input, inputs_of
from bertft.errors import BertftError
from bertft.runs import process as memory
from bertft.similarity.compare.comparison import Comparison
from bertft.similarity.compare.stimuli import count_stimuli, cut, in_windows, side_by_side
from bertft.similarity.compare.workers import Team

if TYPE_CHECKING:
    from bertft.models.batching import Encoded
    from bertft.models.encoder import Encoder

BUFFER = 1024  # examples: at most a few seconds of work between two places where a run can resume


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
        tokenizers = [encoder.tokenizer.get_vocab() for encoder in self.encoders]
        windows = {encoder.max_length for encoder in self.encoders}
        self.alike = len(windows) == 1 and all(vocabulary == tokenizers[0] for vocabulary in tokenizers)
        self.shared = [encoder.reads_like(base) for encoder in self.encoders]
        self.encoded: list[Encoded] = []  # the buffer's examples as pieces, for the encoders that read like the base
        self.buffer = self.batch = 0  # the next to process
        self.first = 0  # the buffer's first example
        self.taken = 0  # stimuli of all processes in earlier buffers
        self.left: list[int] | None = None  # remaining stimuli of each of the buffer's examples
        self.names: list[str] = []  # of the buffer's examples
        self.ended = False

    def batches(self, texts: Iterable[Any]) -> Iterator[tuple[int, int]]:
        """Feed the remaining text to the comparison; yield the stimuli and examples of every batch."""
        if self.ended:
            return
        source = iter(texts)
        if self.team.size > 1 and len(self.comparison) == 0:
            head = list(itertools.islice(source, BUFFER))
            self._start(head)
            source = itertools.chain(head, source)
        _skip(source, self.first)
        while self.tokens is None or self.taken < self.tokens:
            found = list(itertools.islice(source, BUFFER))
            if not found:
                break
            examples = inputs_of(found, self.options["unit"])
            self.names = [getattr(text, "id", "") for text in found]
            mine = self.team.owns(self.buffer)
            counts = self._wanted(examples) if mine or self.tokens is not None else []
            if mine:
                yield from self._encode(examples, counts)
                self.comparison.sentences += sum(count > 0 for count in counts)
            self.taken += sum(counts)
            self.first += len(examples)
            self.buffer, self.batch, self.left = self.buffer + 1, 0, None
            memory.give_back()
        self.ended = True

    def _wanted(self, examples: list[Input]) -> list[int]:
        """Tokenise a buffer, once for all encoders that read alike; return how many stimuli of each example to use."""
        base, unit = self.encoders[0], self.options["unit"]
        self.encoded = base.tokenise(examples, unit) if self.alike else []
        counts = count_stimuli(base, self.encoded or examples, unit)
        if self.tokens is None:
            return counts
        room, wanted = self.tokens - self.taken, []
        for count in counts:
            wanted.append(max(0, min(count, room)))
            room -= count
        return wanted

    def _encode(self, examples: list[Input], counts: Sequence[int]) -> Iterator[tuple[int, int]]:
        left = torch.tensor(counts if self.left is None else self.left)
        for place, (index, lengths, spaces) in self._spaces(examples, counts, self.batch):
            lengths, spaces = cut(index, lengths, left, spaces)
            self.comparison.update(index + self.first, lengths, spaces, self._name)
            self.batch, self.left = place + 1, left.tolist()
            yield int(lengths.sum()), len(set(index.tolist()))

    def _name(self, text: int) -> str:
        """Return the position of a text in the stream and its name, if it has one: its line, or a sentence's id."""
        name = self.names[text - self.first]
        return f"text {text + 1} of the stream" + (f" ({name})" if name else "")

    def _spaces(
        self, examples: list[Input], counts: Sequence[int], skip: int
    ) -> Iterator[tuple[int, tuple[Tensor, Tensor, list[Tensor]]]]:
        """Yield the buffer's batches from number ``skip`` on. Encoders that batch alike do not run the skipped ones."""
        chosen = [i for i, count in enumerate(counts) if count > 0]
        texts = [examples[i] for i in chosen]
        uncut = self.alike or any(text.kind == "pair" for text in texts)
        if not uncut:  # windows must end at the same words in all of them
            whole = [text.parts[0] if text.kind == "text" else text.parts for text in texts]  # a text by characters
            parts = list(in_windows(whole, self.encoders))
            chosen, texts = [chosen[i] for i, _ in parts], [_cut_to(texts[i], part) for i, part in parts]
        left_out = skip if self.alike else 0
        read = [self.encoded[i] for i in chosen] if self.alike else []
        streams = [
            encoder.stream(read if self.alike and shared else texts, **self.options, skip=left_out)
            for encoder, shared in zip(self.encoders, self.shared, strict=True)
        ]
        places = torch.tensor(chosen)
        for place, (index, lengths, spaces) in enumerate(side_by_side(streams), start=left_out):
            if place >= skip:
                yield place, (places[index], lengths, spaces)

    def _start(self, head: list[Any]) -> None:
        """Fix the means by the first batch of the text, the same in every process."""
        examples = inputs_of(head, self.options["unit"])
        counts = self._wanted(examples)
        for _, (index, lengths, spaces) in self._spaces(examples, counts, 0):
            self.comparison.start(cut(index, lengths, torch.tensor(counts), spaces)[1])
            return

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return tensors and JSON values for `restore`."""
        comparison = self.comparison
        kept, limit = comparison.reservoir.state()
        tensors = {f"reservoir/{key}": tensor for key, tensor in kept.items()}
        for name, table in comparison.sums.items():
            for metric, moments in table.items():
                tensors.update({f"sums/{name}/{metric}/{key}": tensor for key, tensor in moments.state.items()})
        tensors.update({f"massive/{key}": tensor for key, tensor in comparison.massive.state().items()})
        record = {
            "buffer": self.buffer,
            "batch": self.batch,
            "first": self.first,
            "taken": self.taken,
            "left": self.left,
            "ended": self.ended,
            "sentences": comparison.sentences,
            "limit": limit,
        }
        return tensors, record

    def restore(self, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
        """Resume from a `state`."""
        comparison = self.comparison
        for name in ("buffer", "batch", "first", "taken", "left", "ended"):
            setattr(self, name, record[name])
        comparison.sentences = record["sentences"]
        comparison.reservoir.restore(_under("reservoir/", tensors), record["limit"])
        for name, table in comparison.sums.items():
            for metric, moments in table.items():
                moments.restore(_under(f"sums/{name}/{metric}/", tensors))
        comparison.massive.restore(_under("massive/", tensors))


def _cut_to(text: Input, part: Sequence[str]) -> Input:
    return Input(text.kind, (part,)) if isinstance(part, str) else Input(text.kind, part)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def _skip(source: Iterator[Any], count: int) -> None:
    found = sum(1 for _ in itertools.islice(source, count))
    if found < count:
        raise BertftError(f"similarity: the text changed, it has {found} examples and the checkpoint is after {count}")
