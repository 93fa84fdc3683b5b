"""Pairs of texts, cut to the window of an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Encoding


def encode_pairs(
    tokenizer: Any, first: Sequence[str], second: Sequence[str], *, max_length: int, strategy: str, stride: int = 0
) -> list[Encoding]:
    """Return one encoding per pair, with special tokens and at most ``max_length`` pieces; the excess overflows.

    Equivalent to ``tokenizer(first, second, truncation=strategy)`` with ``longest_first`` or ``only_second``, except
    that each text is cut into pieces as a whole before truncation. tokenizers 0.23.1 and 0.23.2 stop at ``max_length``
    pieces and leave nothing to overflow, so that further windows of a long passage are silently missing. In
    ``overflowing``, ``sequence_ids`` are 1 at pieces of the second text and None elsewhere.
    """
    original = tokenizer.backend_tokenizer
    backend = type(original).from_str(original.to_str())
    backend.encode_special_tokens = original.encode_special_tokens
    backend.no_truncation()
    backend.no_padding()
    # Post-process once, at the end: some post-processors trim the space before a word from its offsets each time.
    last, backend.post_processor = backend.post_processor, None
    parts = [backend.encode_batch(list(texts), add_special_tokens=False) for texts in (first, second)]
    if last is not None:
        backend.post_processor = last
    backend.enable_truncation(max_length, stride=stride, strategy=strategy, direction=tokenizer.truncation_side)
    return [backend.post_process(*pair) for pair in zip(*parts, strict=True)]


def model_inputs(tokenizer: Any, encoding: Encoding) -> dict[str, list[int]]:
    """Return the encoder's inputs by name: ``input_ids`` and, if the model takes them, ``token_type_ids``."""
    inputs = {"input_ids": encoding.ids}
    if "token_type_ids" in tokenizer.model_input_names:
        inputs["token_type_ids"] = encoding.type_ids
    return inputs
