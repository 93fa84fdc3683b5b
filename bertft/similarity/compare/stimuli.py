"""The same stimuli of several encoders, side by side."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bertft.data.alignment import SPECIAL, Integers, align_pieces
from bertft.data.examples import inputs_of
from bertft.data.sampling import places_in_order, until
from bertft.errors import BertftError
from bertft.models.batching import Encoded
from bertft.models.tokenising import same_vocabulary

if TYPE_CHECKING:
    from bertft.models.encoder import Batch, Encoder


def layer_counts(base: Encoder, tuned: Mapping[str, Encoder], layers: Sequence[int] = ()) -> dict[str, tuple[int, int]]:
    """Return how many layers (of the base, of the tuned encoder) are compared, by name: all, or ``layers``.

    Raises BertftError if an encoder lacks one of ``layers``.
    """
    for name, encoder in {"the base": base, **tuned}.items():
        if layers and max(layers) >= encoder.num_layers:
            last = encoder.num_layers - 1
            raise BertftError(f"similarity: layers must lie in 0..{last} for {name}, found {max(layers)} (--layers)")
    if layers:
        return {name: (len(layers), len(layers)) for name in tuned}
    return {name: (base.num_layers, encoder.num_layers) for name, encoder in tuned.items()}


def shared_layers(base: Encoder, tuned: Mapping[str, Encoder]) -> dict[str, int]:
    """Return how many layers each tuned encoder shares with the base."""
    return {name: min(base.num_layers, encoder.num_layers) for name, encoder in tuned.items()}


def choose(
    encoder: Encoder, examples: Sequence[Any], *, tokens: int | None, unit: str, seed: int, draw: str = "stream"
) -> tuple[list[Encoded], list[int], list[int]]:
    """Return the tokenised examples that hold ``tokens`` stimuli, how many of each to use, and each one's place."""
    order = places_in_order(len(examples), tokens, seed, draw)
    encoded: dict[int, Encoded] = {}

    def count(places: list[int]) -> list[int]:
        encoded.update(zip(places, encoder.tokenise([examples[i] for i in places], unit), strict=True))
        return [encoded[place].count for place in places]

    found = list(until(order, tokens, count))
    return [encoded[place] for place, _ in found], [used for _, used in found], [place for place, _ in found]


def taken(encoder: Encoder, texts: Iterable[Any], *, tokens: int | None, unit: str) -> list[Any]:
    """Return the ``texts`` that a comparison of ``tokens`` stimuli takes from their beginning, the last one whole."""
    if tokens is None:
        return list(texts)
    chosen: list[Any] = []
    source, room = iter(texts), tokens
    while room > 0 and (block := list(itertools.islice(source, 256))):
        counts = count_stimuli(encoder, inputs_of(block, unit), unit)
        for text, count in zip(block, counts, strict=True):
            if room > 0:
                chosen.append(text)
                room -= count
    return chosen


def count_stimuli(encoder: Encoder, examples: Sequence[Any], unit: str) -> list[int]:
    """Return how many stimuli each of ``examples`` holds: word pieces without special tokens, or words."""
    if unit == "word" and not any(isinstance(example, Encoded) for example in examples):
        skipped = encoder.skip_first  # every other word has a vector
        return [max(0, len(item.parts) - skipped) for item in inputs_of(examples, unit)]
    return encoder.tokenise(examples, unit).counts.tolist()


def token_at(encoder: Encoder, text: Any, unit: str, stimulus: int) -> str | None:
    """Return the token or word of a ``stimulus`` of a text; None in a text that is cut into windows."""
    if unit == "word":
        parts = inputs_of([text], unit)[0].parts[encoder.skip_first :]
        return parts[stimulus] if stimulus < len(parts) else None
    item = encoder.tokenise(inputs_of([text], unit), unit)[0]
    if len(item) > encoder.max_length or stimulus >= item.count:
        return None
    return str(encoder.tokenizer.convert_ids_to_tokens(item.inputs["input_ids"][item.slots.index(stimulus)]))


def check_request(base: Encoder, tuned: Mapping[str, Encoder], tokens: int | None, unit: str) -> None:
    """Raise BertftError for a comparison without encoders, with few tokens, an unknown unit or different tokenizers."""
    if not tuned:
        raise BertftError("similarity: no encoder to compare with")
    if tokens is not None and tokens < 4:
        raise BertftError(f"similarity: tokens must be at least 4, found {tokens}")
    if unit not in ("token", "word"):
        raise BertftError(f"similarity: unit must be token or word, found {unit!r}")
    for name, encoder in tuned.items():
        if unit == "token" and not same_vocabulary(base.tokenizer, encoder.tokenizer):
            raise BertftError(
                f"similarity: {name} and the base encoder have different tokenizers, so their tokens cannot be "
                "paired; use word sequences with unit='word' (--unit word)"
            )


def side_by_side(streams: Sequence[Iterator[Batch]]) -> Iterator[tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]]:
    """Yield the same examples of every stream: index (S,), lengths (S,), and one (L, T, D) per stream.

    Streams of encoders with one tokenizer have equal batches, which are passed on at once. Others are kept back until
    all streams have reached an example.
    """
    waiting: list[dict[int, torch.Tensor]] = [{} for _ in streams]
    for batches in itertools.zip_longest(*streams):
        first = batches[0]
        if not any(waiting) and all(
            batch is not None
            and first is not None
            and torch.equal(batch.index, first.index)
            and torch.equal(batch.lengths, first.lengths)
            for batch in batches
        ):
            yield first.index, first.lengths, [batch.vectors for batch in batches]
            continue
        for waiting_parts, batch in zip(waiting, batches, strict=True):
            if batch is None:
                continue
            parts = batch.vectors.split(batch.lengths.tolist(), dim=1)
            for index, part in zip(batch.index.tolist(), parts, strict=True):
                if index in waiting_parts:
                    raise BertftError(
                        "similarity: a text is longer than the window, which differs between the encoders"
                    )
                waiting_parts[index] = part
        ready = [index for index in waiting[0] if all(index in waiting_parts for waiting_parts in waiting[1:])]
        if ready:
            groups = [[waiting_parts.pop(index) for index in ready] for waiting_parts in waiting]
            lengths = [part.shape[1] for part in groups[0]]
            if any([part.shape[1] for part in parts] != lengths for parts in groups[1:]):
                raise BertftError("similarity: the encoders split a text into different numbers of stimuli")
            yield torch.tensor(ready), torch.tensor(lengths), [torch.cat(parts, dim=1) for parts in groups]
    if any(waiting):
        raise BertftError("similarity: the encoders' streams differ in their texts")


def cut(
    index: torch.Tensor, lengths: torch.Tensor, left: torch.Tensor, spaces: list[torch.Tensor]
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return lengths and vectors without the stimuli beyond those ``left`` of each example.

    Subtracts the stimuli from ``left`` in place.
    """
    used = torch.zeros_like(left).index_add_(0, index, lengths)
    if (used <= left).all():
        left -= used
        return lengths, spaces
    order = index.argsort(stable=True)  # an example may come in several windows, which use it up in order
    upto = lengths[order].cumsum(0)
    first = torch.searchsorted(index[order], index[order])
    before = torch.empty_like(lengths)
    before[order] = upto - lengths[order] - (upto - lengths[order])[first]
    kept = (left[index] - before).clamp(min=0).minimum(lengths)
    left.index_add_(0, index, -kept)
    starts = lengths.cumsum(0) - lengths
    place = torch.arange(int(lengths.sum())) - starts.repeat_interleave(lengths)
    rows = (place < kept.repeat_interleave(lengths)).nonzero().squeeze(1)
    return kept, [space[:, rows.to(space.device)] for space in spaces]


def in_windows(texts: Sequence[Sequence[str]], encoders: Sequence[Encoder]) -> Iterator[tuple[int, Sequence[str]]]:
    """Yield (position in ``texts``, words): texts cut wherever any of the ``encoders`` would have to cut them."""
    aligned = [align_pieces(encoder.tokenizer, texts) for encoder in encoders]
    limits = [encoder.max_length for encoder in encoders]
    long = np.any([found.lengths > limit for found, limit in zip(aligned, limits, strict=True)], axis=0)
    words_of = [np.split(found.words, np.cumsum(found.lengths)[:-1]) if long.any() else [] for found in aligned]
    for i, text in enumerate(texts):
        if not long[i]:
            yield i, text
            continue
        parts = [words[i] for words in words_of]
        sizes = np.stack([np.bincount(words[words != SPECIAL], minlength=len(text)) for words in parts])
        room = np.array([limit - (words == SPECIAL).sum() for limit, words in zip(limits, parts, strict=True)])
        yield from ((i, text[start:stop]) for start, stop in _windows(sizes, room))


def _windows(sizes: Integers, room: Integers) -> Iterator[tuple[int, int]]:
    """Yield (first word, end) of windows in which words of ``sizes`` (E, W) leave none of E encoders without room."""
    start, used = 0, np.zeros_like(room)
    for word, size in enumerate(sizes.T):
        if word > start and (used + size > room).any():
            yield start, word
            start, used = word, np.zeros_like(room)
        used = used + size
    yield start, sizes.shape[1]
