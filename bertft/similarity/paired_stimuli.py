"""Drawn stimuli of several encoders, and their words in context."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bertft.data.examples import Input, inputs_of
from bertft.errors import BertftError
from bertft.models.batching import Encoded
from bertft.similarity.compare.stimuli import check_request, choose, cut, in_windows, side_by_side

if TYPE_CHECKING:
    from bertft.models.encoder import Batch, Encoder

AROUND = 12  # stimuli shown on either side of a word


@dataclass(frozen=True)
class Draw:
    """Choice of stimuli.

    Attributes:
        tokens: number of stimuli; None takes all. Whole texts are drawn in an order given by ``seed``, and the last one
            is cut.
        unit: ``token`` (pieces without special tokens) or ``word``.
        seed: of the draw.
        draw: the order of texts, one of `bertft.data.sampling.DRAWS`.
        batch_tokens: tokens in a batch, padding included.
    """

    tokens: int | None = 5000
    unit: str = "token"
    seed: int = 0
    draw: str = "stream"
    batch_tokens: int = 4096


class Stimuli:
    """The drawn stimuli of a base encoder and of tuned ones.

    Args:
        op: the name of the caller, for errors.
        base: the encoder before fine-tuning.
        tuned: encoders by name.
        texts: as in `bertft.similarity.compare_encoders`.
        draw: which of their stimuli to take. Windows of a word sequence that no window holds count as texts.

    Raises:
        BertftError: Tokenizers differ, or there are fewer than 2 texts.
    """

    def __init__(
        self, op: str, base: Encoder, tuned: Mapping[str, Encoder], texts: Sequence[Any], draw: Draw = Draw()
    ) -> None:  # fmt: skip
        check_request(base, tuned, draw.tokens, draw.unit)
        self.base, self.encoders, self.draw = base, [base, *tuned.values()], draw
        given = inputs_of(texts, draw.unit)
        self.items: Sequence[Encoded]
        self.items, self.counts, places = choose(
            base, given, tokens=draw.tokens, unit=draw.unit, seed=draw.seed, draw=draw.draw
        )
        self.names = [str(getattr(texts[place], "id", "") or place + 1) for place in places]
        self.inputs: list[Input] = [given[place] for place in places]
        if draw.unit == "word":
            self._cut_into_windows()
        if len(self.items) < 2:
            raise BertftError(f"{op}: needs at least 2 texts for an interval, found {len(self.items)}")

    def _cut_into_windows(self) -> None:
        """Cut the words where an encoder would, so that every text of this object is whole in all of them."""
        used = [item.parts[:count] for item, count in zip(self.inputs, self.counts, strict=True)]
        parts = list(in_windows(used, self.encoders))
        self.names = [self.names[place] for place, _ in parts]
        self.inputs = [Input("words", tuple(words)) for _, words in parts]
        self.items = self.base.tokenise(self.inputs, "word")
        self.counts = [item.count for item in self.items]

    def __len__(self) -> int:
        """Return the number of stimuli."""
        return sum(self.counts)

    def batches(self) -> Iterator[tuple[Tensor, Tensor, list[Tensor]]]:
        """Yield index (S,), lengths (S,) and the vectors (L, T, D) of every encoder, batch by batch."""
        left = torch.tensor(self.counts)
        streams = [self._stream(encoder) for encoder in self.encoders]
        for index, lengths, spaces in side_by_side(streams):
            lengths, spaces = cut(index, lengths, left, spaces)
            yield index, lengths, spaces

    def encoded(self, encoder: Encoder) -> Iterator[int]:
        """Run one encoder over the batches of `batches`; yield the number of vectors of each."""
        for batch in self._stream(encoder):
            yield int(batch.lengths.sum())

    def _stream(self, encoder: Encoder) -> Iterator[Batch]:
        options: dict[str, Any] = {
            "unit": self.draw.unit,
            "batch_tokens": self.draw.batch_tokens,
            "window": "split",
        }
        return encoder.stream(self.items if encoder.reads_like(self.base) else self.inputs, **options)

    def word(self, text: int, stimulus: int) -> str:
        """Return a stimulus of a text as a string; white space alone, which some tokenizers keep, as ``␣``."""
        return self._decoded(_ids(self.items[text])[stimulus : stimulus + 1]) or "␣"

    def context(self, text: int, stimulus: int) -> str:
        """Return a stimulus of a text, marked by ``[...]``, between those around it."""
        ids = _ids(self.items[text])
        before = self._decoded(ids[max(0, stimulus - AROUND) : stimulus])
        after = self._decoded(ids[stimulus + 1 : stimulus + 1 + AROUND])
        return " ".join(f"{before} [{self.word(text, stimulus)}] {after}".split())

    def _decoded(self, ids: Sequence[Sequence[int]]) -> str:
        flat = [piece for pieces in ids for piece in pieces]
        return str(self.base.tokenizer.decode(flat, clean_up_tokenization_spaces=False)).strip()


def _ids(item: Encoded) -> list[list[int]]:
    """Return the ids of the pieces of each stimulus."""
    found: list[list[int]] = [[] for _ in range(item.count)]
    for piece, slot in zip(item.inputs["input_ids"], item.slots, strict=True):
        if slot >= 0:
            found[slot].append(piece)
    return found
