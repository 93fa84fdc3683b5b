"""Encoders side by side over a text of any length: nothing is kept but sums and a sample, and a killed run goes on.

The text is taken in buffers of `BUFFER` examples, each sorted by length and encoded in batches. A checkpoint is a place
between two batches; what comes after it is the same computation whether or not the run was cut off there, so that the
results agree to the bit on one machine with one number of threads. Of several processes each takes every so-manieth
buffer; all sums are about the means of the text's first batch, which every process encodes, so that they add up to the
single process's sums but for the order of float64 additions.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.runs import process as memory
from bertft.runs.checkpoint import Checkpoint
from bertft.runs.progress import SILENT, Progress
from bertft.runs.rows import Row
from bertft.similarity.compare import all_pairs as sampled
from bertft.similarity.compare.comparison import Comparison, Plan
from bertft.similarity.compare.stimuli import (
    check_request,
    count_stimuli,
    cut,
    example_of,
    layer_counts,
    side_by_side,
)
from bertft.similarity.compare.workers import ALONE, Team

if TYPE_CHECKING:
    from bertft.models.encoder import Encoder

BUFFER = 1024  # examples: at most a few seconds of work between two places where the text can be taken up again
EVERY = 60.0  # seconds between checkpoints


def compare_stream(
    base: Encoder,
    tuned: Mapping[str, Encoder],
    texts: Iterable[Any],
    plan: Plan = Plan(),  # noqa: B008 - frozen
    *,
    tokens: int | None = None,
    unit: str = "token",
    data: str = "text",
    batch_tokens: int = 4096,
    window: str = "split",
    checkpoint: Checkpoint | None = None,
    every: float | None = None,
    team: Team = ALONE,
    texts_in_all: int | None = None,
    progress: Progress = SILENT,
) -> list[Row] | None:
    """Similarity of each layer of ``base`` with the same layer of every encoder in ``tuned``, over all of ``texts``.

    Args:
        texts: examples as in `compare_encoders`, taken one by one in their order; the same again when a run goes on.
        plan: what is measured; exact over all stimuli but for what is pairwise in it.
        tokens: stop after so many stimuli (the last example is cut); None goes to the end.
        unit: ``token`` (pieces) or ``word`` (texts are cut at white space), which encoders with different tokenizers
            need.
        checkpoint: where to keep sums every ``every`` seconds (None: `EVERY`), and at SIGINT and SIGTERM; the run goes
            on from what it holds.
        team: the processes that share the text.
        texts_in_all: how many texts there are, for the time left.

    Returns rows in the order of the plan; None in processes that do not lead the team. Raises BertftError for fewer
    stimuli than the measures need, tokenizers that differ, vectors that are not finite or have no direction, and a lost
    process; KeyboardInterrupt, after a checkpoint, when interrupted.
    """
    check_request(base, tuned, tokens, unit)
    comparison = Comparison(plan, layer_counts(base, tuned))
    run = _Run(base, tuned, comparison, tokens, {"unit": unit, "batch_tokens": batch_tokens, "window": window}, team)
    total, name = (tokens, f"{unit}s") if tokens is not None else (texts_in_all, "texts")
    saved = checkpoint.load() if checkpoint else None
    if saved:
        run.restore(*saved)
        progress.say(f"{data}: going on after {len(comparison)} {unit}s")
    if plan.over_pairs and team.leads:
        sampled_stimuli = plan.sample if tokens is None else min(plan.sample, tokens)
        compared = [(comparison.layers[name], (base.dim, encoder.dim)) for name, encoder in tuned.items()]
        if line := sampled.said(sampled.forecast(plan, sampled_stimuli, compared), sampled_stimuli):
            progress.say(f"{data}: {line}")
    last = time.monotonic()
    with (
        progress.step(f"compare on {data}", total=total, unit=name) as step,
        _asked_to_stop() as asked,
        torch.inference_mode(),
    ):
        step.advance(run.taken if tokens is not None else run.first)
        for stimuli, examples in run.batches(texts):
            step.advance((stimuli if tokens is not None else examples) * team.size)
            if checkpoint and (asked or time.monotonic() - last >= (EVERY if every is None else every)):
                checkpoint.save(*run.state())
                last = time.monotonic()
            if asked:
                _stop(asked[0], team, checkpoint)
    kept = str(checkpoint.folder) if checkpoint else "no checkpoint"
    if team.size > 1:
        if checkpoint:
            checkpoint.save(*run.state())
        team.add_up(comparison, kept)
    if not team.leads:
        return None
    if tokens is not None and len(comparison) < tokens:
        progress.say(f"{data}: {len(comparison)} {unit}s in all, fewer than the {tokens} asked for")
    return comparison.rows(data, progress=progress)


class _Run:
    """Where in the text the run is, and the work from there on."""

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
        self.buffer = self.batch = 0  # what comes next
        self.first = 0  # the buffer's first example
        self.taken = 0  # stimuli of all processes in the buffers before
        self.left: list[int] | None = None  # stimuli still wanted of each of the buffer's examples
        self.names: list[str] = []  # of the buffer's examples
        self.ended = False

    def batches(self, texts: Iterable[Any]) -> Iterator[tuple[int, int]]:
        """Take the rest of the text into the comparison; after every batch, its stimuli and examples."""
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
            examples = [example_of(text, self.options["unit"]) for text in found]
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

    def _wanted(self, examples: list[Any]) -> list[int]:
        """How many stimuli to use of each example."""
        counts = count_stimuli(self.encoders[0], examples, self.options["unit"])
        if self.tokens is None:
            return counts
        room, wanted = self.tokens - self.taken, []
        for count in counts:
            wanted.append(max(0, min(count, room)))
            room -= count
        return wanted

    def _encode(self, examples: list[Any], counts: Sequence[int]) -> Iterator[tuple[int, int]]:
        left = torch.tensor(counts if self.left is None else self.left)
        for place, (index, lengths, spaces) in self._spaces(examples, counts, self.batch):
            lengths, spaces = cut(index, lengths, left, spaces)
            self.comparison.update(index + self.first, lengths, spaces, self._name)
            self.batch, self.left = place + 1, left.tolist()
            yield int(lengths.sum()), len(set(index.tolist()))

    def _name(self, text: int) -> str:
        """The place of a text in the stream and, where it has one, its name: its line, or a sentence's id."""
        name = self.names[text - self.first]
        return f"text {text + 1} of the stream" + (f" ({name})" if name else "")

    def _spaces(
        self, examples: list[Any], counts: Sequence[int], skip: int
    ) -> Iterator[tuple[int, tuple[Tensor, Tensor, list[Tensor]]]]:
        """The buffer's batches from the ``skip``-th on. Encoders that batch alike do not run those before."""
        chosen = [i for i, count in enumerate(counts) if count > 0]
        texts = [examples[i] for i in chosen]
        if not self.alike:  # windows must end at the same words in all of them
            parts = list(in_windows(texts, self.encoders))
            chosen, texts = [chosen[i] for i, _ in parts], [part for _, part in parts]
        left_out = skip if self.alike else 0
        streams = [encoder.stream(texts, **self.options, skip=left_out) for encoder in self.encoders]
        whole = torch.tensor(chosen)
        for place, (index, lengths, spaces) in enumerate(side_by_side(streams), start=left_out):
            if place >= skip:
                yield place, (whole[index], lengths, spaces)

    def _start(self, head: list[Any]) -> None:
        """Means from the text's first batch, the same in every process."""
        examples = [example_of(text, self.options["unit"]) for text in head]
        counts = self._wanted(examples)
        for _, (index, lengths, spaces) in self._spaces(examples, counts, 0):
            self.comparison.start(cut(index, lengths, torch.tensor(counts), spaces)[1])
            return

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and JSON values from which ``restore`` goes on."""
        comparison = self.comparison
        kept, limit = comparison.reservoir.state()
        tensors = {f"reservoir/{key}": tensor for key, tensor in kept.items()}
        for name, table in comparison.sums.items():
            for metric, moments in table.items():
                tensors.update({f"sums/{name}/{metric}/{key}": tensor for key, tensor in moments.state.items()})
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
        comparison = self.comparison
        for name in ("buffer", "batch", "first", "taken", "left", "ended"):
            setattr(self, name, record[name])
        comparison.sentences = record["sentences"]
        comparison.reservoir.restore(_under("reservoir/", tensors), record["limit"])
        for name, table in comparison.sums.items():
            for metric, moments in table.items():
                moments.restore(_under(f"sums/{name}/{metric}/", tensors))


def in_windows(texts: Sequence[Sequence[str]], encoders: Sequence[Encoder]) -> Iterator[tuple[int, Sequence[str]]]:
    """Word sequences cut where any of the ``encoders`` would have to, with the place of each in ``texts``."""
    from bertft.data.alignment import SPECIAL, align_words

    cut_to = []
    for encoder in encoders:
        aligned = align_words(encoder.tokenizer, texts)
        pieces = [Counter(word for word in words if word != SPECIAL) for words in aligned.words]
        room = [encoder.max_length - words.count(SPECIAL) for words in aligned.words]
        cut_to.append((pieces, room))
    for i, text in enumerate(texts):
        start, used = 0, [0] * len(encoders)
        for word in range(len(text)):
            sizes = [pieces[i][word] for pieces, _ in cut_to]
            if word > start and any(u + size > room[i] for u, size, (_, room) in zip(used, sizes, cut_to, strict=True)):
                yield i, text[start:word]
                start, used = word, [0] * len(encoders)
            used = [u + size for u, size in zip(used, sizes, strict=True)]
        yield i, text[start:]


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def _skip(source: Iterator[Any], count: int) -> None:
    found = sum(1 for _ in itertools.islice(source, count))
    if found < count:
        raise BertftError(f"similarity: the text has {found} examples, but the checkpoint is after {count}: it changed")


@contextlib.contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """A list that SIGINT and SIGTERM put themselves into; a second one of either acts at once."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, team: Team, checkpoint: Checkpoint | None) -> None:
    if number == signal.SIGTERM and team.size > 1 and checkpoint:
        raise BertftError(
            f"process {team.rank} of {team.size} was told to stop, as happens when another process is lost; its sums "
            f"are kept in {checkpoint.folder}, and the same command goes on from them"
        )
    raise KeyboardInterrupt
