"""Texts, pairs and word sequences as word pieces in flat arrays."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from bertft.data.alignment import SPECIAL, Integers, align_pieces, flattened
from bertft.data.examples import Input
from bertft.data.files import check_text
from bertft.models.loading import quiet_transformers
from bertft.models.pieces import Pieces, slots_of, starts_of


def same_rules(first: Any, second: Any) -> bool:
    """Return whether two tokenizers cut every text alike, whatever they were last told to cut off or pad to."""
    if first is second:
        return True
    if first.model_input_names != second.model_input_names:
        return False
    rules = [tokenizer.backend_tokenizer.to_str() for tokenizer in (first, second)]
    return rules[0] == rules[1] or _without_lengths(rules[0]) == _without_lengths(rules[1])


def same_vocabulary(first: Any, second: Any) -> bool:
    """Return whether two tokenizers give every piece the same index."""
    return same_rules(first, second) or first.get_vocab() == second.get_vocab()


def _without_lengths(rules: str) -> dict[str, Any]:
    return {key: value for key, value in json.loads(rules).items() if key not in ("truncation", "padding")}


def padding_of(tokenizer: Any) -> dict[str, int]:
    """Return the value behind the end of each input of the model; index 0, which the mask hides, without a token."""
    return {"input_ids": tokenizer.pad_token_id or 0, "token_type_ids": tokenizer.pad_token_type_id}


def pieces_of_texts(tokenizer: Any, inputs: Sequence[Input], start: int) -> Pieces:
    """Return texts, or pairs of texts, as pieces with one vector each; ``index`` counts from ``start``."""
    texts = [item.parts[0] if item.kind == "text" else tuple(item.parts) for item in inputs]
    try:
        found = _encoded(tokenizer, texts)
    except (TypeError, UnicodeEncodeError):  # a text without a UTF-8 form: find it and report it
        for row, item in enumerate(inputs):
            for text in item.parts:
                check_text(text, "the text", f"stream: example {start + row}")
        raise
    slots = slots_of(found.special == 0, found.lengths)
    return Pieces.of_arrays(found.inputs, slots, found.lengths, start, whole=inputs[0].kind == "pair")


def pieces_of_words(tokenizer: Any, inputs: Sequence[Input], start: int, unit: str) -> Pieces:
    """Return word sequences as pieces, with a vector for each word or each piece; ``index`` counts from ``start``."""
    aligned = align_pieces(tokenizer, [item.parts for item in inputs])
    arrays = {"input_ids": aligned.ids}
    if "token_type_ids" in tokenizer.model_input_names:
        arrays["token_type_ids"] = np.zeros_like(aligned.ids)
    slots = aligned.words if unit == "word" else slots_of(aligned.words != SPECIAL, aligned.lengths)
    return Pieces.of_arrays(arrays, slots, aligned.lengths, start)


class _Encoded(NamedTuple):
    """The model's inputs (N,) by name, the mask of special tokens (N,), and the pieces of each text (S,)."""

    inputs: dict[str, Integers]
    special: Integers
    lengths: Integers


def _encoded(tokenizer: Any, texts: Sequence[Any]) -> _Encoded:
    """Tokenise ``texts`` as the tokenizer itself does, in one call of its Rust part if it adds nothing to that.

    transformers makes a dictionary for each text and offsets that nothing here reads, half of the time of the call.
    """
    kind = type(tokenizer)
    if any(".models." in getattr(kind, name).__module__ for name in ("__call__", "_encode_plus")):
        with quiet_transformers():  # it warns about lengths, which are checked later
            columns = tokenizer(texts, return_special_tokens_mask=True, return_attention_mask=False)
        arrays = {key: flattened(columns[key])[0] for key in columns}
        return _Encoded(arrays, arrays.pop("special_tokens_mask"), flattened(columns["input_ids"])[1])
    backend = tokenizer.backend_tokenizer
    if backend.truncation is not None:
        backend.no_truncation()
    if backend.padding is not None:
        backend.no_padding()
    if backend.encode_special_tokens != tokenizer.split_special_tokens:
        backend.encode_special_tokens = tokenizer.split_special_tokens
    found = backend.encode_batch_fast(texts, add_special_tokens=True)
    ids, lengths = flattened(encoding.ids for encoding in found)
    arrays, types = {"input_ids": ids}, "token_type_ids" in tokenizer.model_input_names
    if all(isinstance(text, str) for text in texts) and (around := _around(backend)):
        if types:
            arrays["token_type_ids"] = np.zeros_like(ids)
        return _Encoded(arrays, _special(lengths, *around), lengths)
    if types:
        arrays["token_type_ids"] = flattened(encoding.type_ids for encoding in found)[0]
    return _Encoded(arrays, flattened(encoding.special_tokens_mask for encoding in found)[0], lengths)


def _around(backend: Any) -> tuple[int, int] | None:
    """Return how many special tokens the tokenizer puts before and after every text; None if types tell them apart.

    Lists of types and special tokens, one number for each piece of each text, take longer to make than to infer.
    """
    probe = backend.encode("a")
    mask = probe.special_tokens_mask
    if any(probe.type_ids) or 0 not in mask:
        return None
    before, after = mask.index(0), mask[::-1].index(0)
    return (before, after) if sum(mask) == before + after else None


def _special(lengths: Integers, before: int, after: int) -> Integers:
    """Return 1 for the first ``before`` and the last ``after`` pieces of each text, else 0, (N,) int64."""
    starts = starts_of(lengths)
    special = np.zeros(starts[-1], np.int64)
    for offset in range(before):
        special[starts[:-1] + offset] = 1
    for offset in range(1, after + 1):
        special[starts[1:] - offset] = 1
    return special
