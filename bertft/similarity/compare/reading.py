"""Buffers of a text, tokenised and cut into batches ahead of the encoders."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bertft.data.examples import Input, inputs_of
from bertft.similarity.compare.stimuli import count_stimuli, in_windows
from bertft.similarity.compare.workers import Team

if TYPE_CHECKING:
    from bertft.models.encoder import Encoder
    from bertft.models.pieces import Pieces, Prepared


@dataclass(frozen=True)
class Buffer:
    """Consecutive examples of a text.

    ``names`` has their names, ``counts`` the stimuli to use of each, and ``batches`` the batches of each encoder: one
    and the same list for encoders that read alike. An index in a batch is an index of ``places``, which has the
    position in the buffer. The last two are empty in a buffer of another process.
    """

    names: list[str]
    counts: list[int] = field(default_factory=list)
    batches: list[list[Prepared]] = field(default_factory=list)
    places: list[int] = field(default_factory=list)


class Kinship(NamedTuple):
    """What encoders share.

    ``rules`` says for each encoder whether its tokenizer cuts every text as that of the first one. They ``batch`` alike
    if they have one vocabulary and one window, so that they make the same batches of a text.
    """

    rules: list[bool]
    batch: bool

    @classmethod
    def of(cls, encoders: Sequence[Encoder]) -> Kinship:
        """Compare all encoders with the first one."""
        base = encoders[0]
        rules = [encoder.reads_like(base) for encoder in encoders]
        vocabulary = base.tokenizer.get_vocab() if not all(rules) else {}
        return cls(
            rules,
            all(
                encoder.max_length == base.max_length and (same or encoder.tokenizer.get_vocab() == vocabulary)
                for encoder, same in zip(encoders, rules, strict=True)
            ),
        )


class Reader:
    """The buffers of a text from number ``buffer`` on, with ``taken`` stimuli before it.

    ``tokens`` is the number of stimuli to take in all, None for no limit. Each text is tokenised once for all encoders
    whose tokenizers cut it alike.
    """

    def __init__(
        self,
        encoders: Sequence[Encoder],
        options: Mapping[str, Any],
        team: Team,
        tokens: int | None,
        kinship: Kinship,
        *,
        buffer: int,
        taken: int,
    ) -> None:
        self.encoders, self.options, self.team, self.tokens = encoders, options, team, tokens
        self._kinship = kinship
        self._buffer, self._taken = buffer, taken

    def parts(self, source: Iterator[Any], size: int) -> Iterator[list[Any]]:
        """Yield the raw examples of each buffer of ``size`` examples, until those prepared have enough stimuli."""
        while (self.tokens is None or self._taken < self.tokens) and (found := list(itertools.islice(source, size))):
            yield found

    def prepare(self, found: Sequence[Any]) -> Buffer:
        """Return the next buffer."""
        mine = self.team.owns(self._buffer)
        self._buffer += 1
        names = [getattr(text, "id", "") for text in found]
        if not mine and self.tokens is None:
            return Buffer(names)
        buffer = self._prepared(found, names, batches=mine)
        self._taken += sum(buffer.counts)
        return buffer

    def _prepared(self, found: Sequence[Any], names: list[str], *, batches: bool) -> Buffer:
        base, unit = self.encoders[0], self.options["unit"]
        examples = inputs_of(found, unit)
        pieces = base.tokenise(examples, unit) if self._kinship.batch else None
        counts = count_stimuli(base, examples, unit) if pieces is None else pieces.counts.tolist()
        if self.tokens is not None:
            before = np.cumsum([0, *counts[:-1]])
            counts = np.clip(self.tokens - self._taken - before, 0, counts).tolist()
        if not batches:
            return Buffer(names, counts)
        places = np.flatnonzero(counts)
        texts = [examples[i] for i in places.tolist()]
        if pieces is not None:
            own = pieces.take(places).numbered(np.arange(len(places)))
        else:
            own = None
            if all(text.kind != "pair" for text in texts):  # windows must end at the same words in all encoders
                whole = [text.parts[0] if text.kind == "text" else text.parts for text in texts]  # a text by characters
                cut = list(in_windows(whole, self.encoders))
                places, texts = places[[i for i, _ in cut]], [_cut_to(texts[i], part) for i, part in cut]
        return Buffer(names, counts, self._batches(texts, own), places.tolist())

    def _batches(self, texts: Sequence[Input], pieces: Pieces | None) -> list[list[Prepared]]:
        """Return the batches of each encoder; ``pieces`` are those of the base if it has tokenised the texts."""
        unit, size, window = (self.options[name] for name in ("unit", "batch_tokens", "window"))
        batches: list[list[Prepared]] = []
        base = self.encoders[0]
        for encoder, shared in zip(self.encoders, self._kinship.rules, strict=True):
            if shared and pieces is None:
                pieces = base.tokenise(texts, unit)
            own = pieces if shared and pieces is not None else encoder.tokenise(texts, unit)
            same = batches and shared and encoder.max_length == base.max_length
            batches.append(batches[0] if same else list(encoder.prepared(own, size, window)))
        return batches


def _cut_to(text: Input, part: Sequence[str]) -> Input:
    return Input(text.kind, (part,)) if isinstance(part, str) else Input(text.kind, part)
