"""From tokenised examples to padded batches of similar length, and from padded pieces back to packed words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(slots=True)
class Encoded:
    """One tokenised example: the model's inputs by name, and for every piece the number of the vector it belongs to.

    ``slots`` does not decrease apart from its -1, which say that a piece (special tokens) belongs to no vector.
    ``count`` is the number of vectors, ``len`` the number of pieces.
    """

    index: int
    inputs: dict[str, list[int]]
    slots: list[int]
    count: int = field(init=False)

    def __post_init__(self) -> None:
        self.count = max(self.slots, default=-1) + 1

    def __len__(self) -> int:
        return len(self.slots)


def count_up(kept: Iterable[bool]) -> list[int]:
    """Number the kept pieces from 0; -1 for the others."""
    slots, count = [], 0
    for keep in kept:
        slots.append(count if keep else -1)
        count += keep
    return slots


def word_inputs(tokenizer: Any, ids: list[int]) -> dict[str, list[int]]:
    """The model's inputs for the pieces of one sentence."""
    inputs = {"input_ids": ids}
    if "token_type_ids" in tokenizer.model_input_names:
        inputs["token_type_ids"] = [0] * len(ids)
    return inputs


def length_sorted_batches(items: Sequence[Any], batch_tokens: int) -> Iterator[list[Any]]:
    """Cut ``items`` (with ``len``) into batches of similar length, longest first.

    A batch with its padding has at most ``batch_tokens`` entries; an item longer than that is a batch of its own. Items
    of one length keep their order.
    """
    batch: list[Any] = []
    for i in sorted(range(len(items)), key=lambda i: -len(items[i])):
        if batch and len(batch[0]) * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(items[i])
    if batch:
        yield batch


def pad_inputs(inputs: Sequence[dict[str, list[int]]], tokenizer: Any) -> dict[str, Tensor]:
    """Pad every input to the longest: (B, P) int64 tensors by name, with ``attention_mask``.

    On the right whatever the tokenizer's own side, so that positions count from the text's start in decoders too. A
    tokenizer without a padding token gets index 0, which the mask hides.
    """
    padding = {"input_ids": tokenizer.pad_token_id or 0, "token_type_ids": tokenizer.pad_token_type_id}
    padded = {key: pad([row[key] for row in inputs], padding.get(key, 0)) for key in inputs[0]}
    padded["attention_mask"] = pad([[1] * len(row["input_ids"]) for row in inputs], 0)
    return padded


def pad(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Rows of unequal length as one (B, P) int64 tensor, filled up on the right with ``value``."""
    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows], dtype=torch.int64)


def word_pieces(slots: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Where each packed vector's pieces lie.

    ``slots`` (B, P) int64 says which vector of its row a piece belongs to, -1 for none; ``lengths`` (B,) how many
    vectors a row has. Returns the flat positions in B * P of all pieces that belong to one, and offsets (T,): vector t
    owns ``pieces[offsets[t] : offsets[t + 1]]``.
    """
    flat = slots.flatten()
    pieces = (flat >= 0).nonzero().squeeze(1)
    first = torch.cumsum(lengths, 0) - lengths
    owner = (slots + first[:, None]).flatten()[pieces]
    counts = torch.bincount(owner, minlength=int(lengths.sum()))
    return pieces, torch.cumsum(counts, 0) - counts


def pool_words(hidden: Tensor, pieces: Tensor, offsets: Tensor) -> Tensor:
    """Mean over each word's pieces: ``hidden`` (B, P, D) to (T, D), ``pieces`` and ``offsets`` from ``word_pieces``.

    Gather and mean are one pass over the data; differentiable in ``hidden``.
    """
    return nn.functional.embedding_bag(pieces, hidden.reshape(-1, hidden.shape[-1]), offsets, mode="mean")
