"""Padded batches of tokenised examples, packed word vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(slots=True)
class Encoded:
    """One tokenised example.

    ``inputs`` are the model's inputs by name. ``slots`` has for each word piece the number of the vector that it is
    pooled into, or -1 for none (special tokens); apart from the -1 it does not decrease. ``count`` is the number of
    vectors, ``len`` the number of pieces, ``index`` the example's position in the input. An example that is ``whole``
    (a pair of texts) is never cut into windows.
    """

    index: int
    inputs: dict[str, list[int]]
    slots: list[int]
    whole: bool = False
    count: int = field(init=False)

    def __post_init__(self) -> None:
        self.count = max(-1, *self.slots) + 1 if self.slots else 0

    def __len__(self) -> int:
        return len(self.slots)


def word_inputs(tokenizer: Any, ids: list[int]) -> dict[str, list[int]]:
    """Return the model's inputs for one sentence with the pieces ``ids``."""
    inputs = {"input_ids": ids}
    if "token_type_ids" in tokenizer.model_input_names:
        inputs["token_type_ids"] = [0] * len(ids)
    return inputs


def length_sorted_batches(items: Sequence[Any], batch_tokens: int) -> Iterator[list[Any]]:
    """Yield batches of ``items`` (with ``len``) of similar length, longest first.

    A batch has at most ``batch_tokens`` pieces with its padding; a longer item forms a batch of its own. Items of equal
    length keep their order.
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
    """Return all inputs padded to the longest, as int64 tensors (B, P) by name, and ``attention_mask``.

    Padding is on the right, whichever side the tokenizer pads, so that positions count from the start of the text
    in decoders too. If the tokenizer has no padding token, index 0 is used, which the mask hides.
    """
    padding = {"input_ids": tokenizer.pad_token_id or 0, "token_type_ids": tokenizer.pad_token_type_id}
    padded = {key: pad([row[key] for row in inputs], padding.get(key, 0)) for key in inputs[0]}
    padded["attention_mask"] = pad([[1] * len(row["input_ids"]) for row in inputs], 0)
    return padded


def pad(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Return rows of unequal length as one int64 tensor (B, P), padded on the right with ``value``."""
    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows], dtype=torch.int64)


def word_pieces(slots: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Return which word pieces form each packed vector.

    Args:
        slots: (B, P) int64, the vector of its row that each piece belongs to, or -1.
        lengths: (B,) int64, the number of vectors of each row; T is their sum.

    Returns:
        ``pieces``, the flat positions in B * P of all pieces that belong to a vector, and ``offsets`` (T,): vector t is
        formed by ``pieces[offsets[t] : offsets[t + 1]]``.
    """
    flat = slots.flatten()
    pieces = (flat >= 0).nonzero().squeeze(1)
    first = torch.cumsum(lengths, 0) - lengths
    owner = (slots + first[:, None]).flatten()[pieces]
    counts = torch.bincount(owner, minlength=int(lengths.sum()))
    return pieces, torch.cumsum(counts, 0) - counts


def pool_words(hidden: Tensor, pieces: Tensor, offsets: Tensor) -> Tensor:
    """Return the mean of ``hidden`` (B, P, D) over the pieces of each word, (T, D).

    ``pieces`` and ``offsets`` are those of `word_pieces`. Gathering and averaging take one pass over the data. The
    result is differentiable in ``hidden``.
    """
    return nn.functional.embedding_bag(pieces, hidden.reshape(-1, hidden.shape[-1]), offsets, mode="mean")
