"""Two texts as one input, cut to a window: the first text, the second, and what of it the window has no room for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Encoding


def encode_pairs(
    tokenizer: Any, first: Sequence[str], second: Sequence[str], *, max_length: int, strategy: str, stride: int = 0
) -> list[Encoding]:
    """One encoding a pair of texts, with special tokens, of at most ``max_length`` pieces; ``overflowing`` the rest.

    As ``tokenizer(first, second, truncation=strategy)`` (``longest_first``, ``only_second``), but each text is cut into
    pieces whole before it is cut off: tokenizers 0.23.1 and 0.23.2 stop at ``max_length`` pieces and then have nothing
    left to overflow, so that the further windows of a long passage are missing without a word (tokenizers#2091).
    In ``overflowing``, ``sequence_ids`` are 1 at the second text's pieces and None elsewhere.
    """
    original = tokenizer.backend_tokenizer
    backend = type(original).from_str(original.to_str())
    backend.encode_special_tokens = original.encode_special_tokens
    backend.no_truncation()
    backend.no_padding()
    # Once, at the end: a post-processor that leaves the blank before a word out of its offsets would do so twice.
    last, backend.post_processor = backend.post_processor, None
    parts = [backend.encode_batch(list(texts), add_special_tokens=False) for texts in (first, second)]
    if last is not None:
        backend.post_processor = last
    backend.enable_truncation(max_length, stride=stride, strategy=strategy, direction=tokenizer.truncation_side)
    return [backend.post_process(*pair) for pair in zip(*parts, strict=True)]


def inputs_of(tokenizer: Any, encoding: Encoding) -> dict[str, list[int]]:
    """The encoder's inputs by name: ``input_ids`` and, where the model takes them, ``token_type_ids``."""
    found = {"input_ids": encoding.ids}
    if "token_type_ids" in tokenizer.model_input_names:
        found["token_type_ids"] = encoding.type_ids
    return found
