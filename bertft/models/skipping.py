"""First tokens of a text that are left out of a comparison.

The first token that a decoder reads gets enormous activations, whatever it is. A tokenizer that puts a special token
first gives it to that one, which is no stimulus. Without such a token it falls on the first token of every text.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import torch

from bertft.errors import BertftError
from bertft.models.devices import main_device
from bertft.models.pieces import Pieces

if TYPE_CHECKING:
    from bertft.models.encoder import Encoder

SKIPPED = -2  # the slot of a piece that is left out, which windows do not repeat as they do special tokens


def without_first(pieces: Pieces, count: int) -> Pieces:
    """Return examples without their first ``count`` vectors; the model still reads the pieces of these."""
    slots = np.where(pieces.slots >= count, pieces.slots - count, np.where(pieces.slots >= 0, SKIPPED, pieces.slots))
    return dataclasses.replace(pieces, slots=slots, counts=np.maximum(pieces.counts - count, 0))


def first_tokens(encoder: Encoder) -> int:
    """Return 1, the tokens to leave out, for a causal encoder whose tokenizer puts no special token first, else 0."""
    return int(is_causal(encoder) and not _special_first(encoder))


def is_causal(encoder: Encoder) -> bool:
    """Return whether no vector depends on later tokens, by two short inputs that differ in their last token."""
    if encoder.num_layers < 2:
        return False
    special = set(encoder.tokenizer.all_special_ids)
    ids = [i for i in range(min(len(encoder.tokenizer), len(special) + 4)) if i not in special][:4]
    if len(ids) < 4:
        raise BertftError(f"skip_first: {encoder.name} has fewer than 4 ordinary tokens; give a number instead of auto")
    inputs = torch.tensor([[*ids[:2], ids[2]], [*ids[:2], ids[3]]], device=main_device(encoder.model))
    with torch.inference_mode():
        top = encoder.model(input_ids=inputs, attention_mask=torch.ones_like(inputs))[0][:, 0].float()
    return bool((top[0] - top[1]).abs().max() <= 1e-5 * top.abs().max())


def _special_first(encoder: Encoder) -> bool:
    ids = encoder.tokenizer("a", return_attention_mask=False, return_special_tokens_mask=True)
    return bool(ids["special_tokens_mask"][0])
