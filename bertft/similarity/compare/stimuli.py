"""Base and tuned encoders side by side over the same text: similarity of every layer, with intervals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bertft.errors import BertftError
from bertft.ops.metrics import LINEAR
from bertft.runs.progress import SILENT, Progress
from bertft.runs.rows import Row
from bertft.similarity.compare.comparison import Comparison, Plan

if TYPE_CHECKING:
    from bertft.models.encoder import Batch, Encoder


def compare_encoders(
    base: Encoder,
    tuned: Mapping[str, Encoder],
    texts: Sequence[Any],
    *,
    metric: str = "cosine",
    tokens: int | None = 5000,
    unit: str = "token",
    seed: int = 0,
    data: str = "wikipedia",
    reservoir: int = 5000,
    batch_tokens: int = 4096,
    window: str = "split",
    all_layers: bool = False,
    progress: Progress = SILENT,
) -> list[Row]:
    """Similarity of each layer of ``base`` with the same layer of every encoder in ``tuned``.

    Stimuli are the tokens (``unit="token"``, pieces without special tokens) or words (``unit="word"``, which word
    sequences need) of ``texts``: whole examples in an order drawn with ``seed``, the last one cut, until there are
    exactly ``tokens`` of them (all of them with ``None``). When ``texts`` hold fewer, all are used, ``progress`` is
    told, and the rows' ``n`` says how many. Examples are strings, pairs of strings, word sequences, or the package's
    own Sentence, Pair, Question and Text.

    All encoders run over the same batches, each text once per encoder, and only sums and a reservoir of whole
    sentences (``reservoir`` stimuli) are kept. Encoders with different tokenizers need ``unit="word"``.

    Rows, for each tuned encoder and layer that both have: ``rsa_<metric>_pearson`` (Merchant et al. 2020: cosine), the
    Pearson correlation of the two RDMs' upper triangles, and ``cka_debiased``, debiased linear CKA of the raw vectors,
    each with a 95 % interval clustered by example (infinitesimal jackknife, see ``bertft.similarity.influence``).
    With ``all_layers`` also every layer against every layer of the base, as rows of the task ``heatmap``.
    Raises ``BertftError`` for an unknown metric, fewer than two examples, tokenizers that differ, or vectors without
    direction.
    """
    if metric not in LINEAR:
        raise BertftError(f"compare_encoders: metric must be one of {', '.join(LINEAR)}, found {metric!r}")
    check_request(base, tuned, tokens, unit)
    examples = [example_of(text, unit) for text in texts]
    chosen, counts, places = choose(base, examples, tokens=tokens, unit=unit, seed=seed)
    total = sum(counts)
    if len(chosen) < 2:
        raise BertftError(f"compare_encoders: needs at least 2 texts for an interval, found {len(chosen)} in {data}")
    if tokens is not None and total < tokens:
        progress.say(f"{data}: {total} {unit}s in all, fewer than the {tokens} asked for")

    plan = Plan(metrics=(metric,), sample=reservoir, seed=seed, all_layers=all_layers)
    comparison = Comparison(plan, layer_counts(base, tuned))
    comparison.sentences = len(chosen)
    encoders = [base, *tuned.values()]
    streams = [encoder.stream(chosen, unit=unit, batch_tokens=batch_tokens, window=window) for encoder in encoders]
    left = torch.tensor(counts)
    with progress.step(f"compare on {data}", total=total, unit=f"{unit}s") as step, torch.inference_mode():
        for index, lengths, spaces in side_by_side(streams):
            lengths, spaces = cut(index, lengths, left, spaces)
            comparison.update(index, lengths, spaces, lambda i: f"text {places[i] + 1}")
            step.advance(int(lengths.sum()))
    return [row for row in comparison.rows(data, progress=progress) if row.task in ("rsa", "heatmap")]


def layer_counts(base: Encoder, tuned: Mapping[str, Encoder]) -> dict[str, tuple[int, int]]:
    """How many layers the base and each tuned encoder have."""
    return {name: (base.num_layers, encoder.num_layers) for name, encoder in tuned.items()}


def shared_layers(base: Encoder, tuned: Mapping[str, Encoder]) -> dict[str, int]:
    """How many layers each tuned encoder shares with the base."""
    return {name: min(base.num_layers, encoder.num_layers) for name, encoder in tuned.items()}


def example_of(text: Any, unit: str) -> Any:
    """What the encoder stream takes, of any of the package's examples."""
    if isinstance(text, str):
        return text.split() if unit == "word" else text
    if hasattr(text, "words"):
        return text.words
    if hasattr(text, "premise"):
        return (text.premise, text.hypothesis)
    if hasattr(text, "question"):
        return (text.question, text.context)
    if hasattr(text, "text"):
        return text.text.split() if unit == "word" else text.text
    return text


def choose(
    encoder: Encoder, examples: Sequence[Any], *, tokens: int | None, unit: str, seed: int
) -> tuple[list[Any], list[int], list[int]]:
    """Examples in seeded order until they hold ``tokens`` stimuli, how many stimuli of each to use, and its place."""
    order = np.random.default_rng(seed).permutation(len(examples)).tolist()
    chosen: list[Any] = []
    counts: list[int] = []
    places: list[int] = []
    room = math.inf if tokens is None else tokens
    for start in range(0, len(order), 256):
        drawn = order[start : start + 256]
        sizes = count_stimuli(encoder, [examples[i] for i in drawn], unit)
        for place, count in zip(drawn, sizes, strict=True):
            if room <= 0:
                return chosen, counts, places
            if count:
                chosen.append(examples[place])
                counts.append(int(min(count, room)))
                places.append(place)
                room -= count
    return chosen, counts, places


def taken(encoder: Encoder, texts: Iterable[Any], *, tokens: int | None, unit: str) -> list[Any]:
    """Those of ``texts`` that a comparison of ``tokens`` stimuli takes from their beginning, the last one whole."""
    if tokens is None:
        return list(texts)
    chosen: list[Any] = []
    source, room = iter(texts), tokens
    while room > 0 and (block := list(itertools.islice(source, 256))):
        counts = count_stimuli(encoder, [example_of(text, unit) for text in block], unit)
        for text, count in zip(block, counts, strict=True):
            if room > 0:
                chosen.append(text)
                room -= count
    return chosen


def count_stimuli(encoder: Encoder, examples: list[Any], unit: str) -> list[int]:
    if unit == "word":
        return [len(example) for example in examples]
    if all(isinstance(example, str) for example in examples):
        encodings = encoder.tokenizer(examples, add_special_tokens=False, verbose=False)
        return [len(ids) for ids in encodings["input_ids"]]
    if all(isinstance(example, tuple) and len(example) == 2 for example in examples):
        flat = encoder.tokenizer([text for pair in examples for text in pair], add_special_tokens=False, verbose=False)
        sizes = [len(ids) for ids in flat["input_ids"]]
        return [first + second for first, second in zip(sizes[::2], sizes[1::2], strict=True)]
    encodings = encoder.tokenizer(
        [list(example) for example in examples], is_split_into_words=True, add_special_tokens=False, verbose=False
    )
    return [len(ids) for ids in encodings["input_ids"]]


def check_request(base: Encoder, tuned: Mapping[str, Encoder], tokens: int | None, unit: str) -> None:
    """What every comparison of encoders asks before it starts."""
    if not tuned:
        raise BertftError("similarity: no encoder to compare with")
    if tokens is not None and tokens < 4:
        raise BertftError(f"similarity: tokens must be at least 4, found {tokens}")
    if unit not in ("token", "word"):
        raise BertftError(f"similarity: unit must be token or word, found {unit!r}")
    for name, encoder in tuned.items():
        if unit == "token" and encoder.tokenizer.get_vocab() != base.tokenizer.get_vocab():
            raise BertftError(
                f"similarity: {name} and the base encoder have different tokenizers, so their tokens cannot be "
                "paired; use word sequences with unit='word' (--unit word)"
            )


def side_by_side(streams: Sequence[Iterator[Batch]]) -> Iterator[tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]]:
    """The same examples of every stream: index (S,), lengths (S,) and one (L, T, D) of each.

    Streams with one tokenizer batch alike and go through at once. Others are held back until all have an example.
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
        for held, batch in zip(waiting, batches, strict=True):
            if batch is None:
                continue
            parts = batch.vectors.split(batch.lengths.tolist(), dim=1)
            for index, part in zip(batch.index.tolist(), parts, strict=True):
                if index in held:
                    raise BertftError("similarity: a text is longer than the window of encoders that differ")
                held[index] = part
        ready = [index for index in waiting[0] if all(index in held for held in waiting[1:])]
        if ready:
            groups = [[held.pop(index) for index in ready] for held in waiting]
            lengths = [part.shape[1] for part in groups[0]]
            if any([part.shape[1] for part in parts] != lengths for parts in groups[1:]):
                raise BertftError("similarity: the encoders cut a text into different numbers of stimuli")
            yield torch.tensor(ready), torch.tensor(lengths), [torch.cat(parts, dim=1) for parts in groups]
    if any(waiting):
        raise BertftError("similarity: the encoders' streams do not hold the same texts")


def cut(
    index: torch.Tensor, lengths: torch.Tensor, left: torch.Tensor, spaces: list[torch.Tensor]
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Lengths and vectors without the stimuli beyond those ``left`` of each example, which counts down in place."""
    allowed = []
    for example, length in zip(index.tolist(), lengths.tolist(), strict=True):
        allowed.append(min(length, int(left[example])))
        left[example] -= allowed[-1]
    kept = torch.tensor(allowed)
    if torch.equal(kept, lengths):
        return lengths, spaces
    starts = lengths.cumsum(0) - lengths
    rows = [torch.arange(start, start + count) for start, count in zip(starts.tolist(), allowed, strict=True)]
    return kept, [space[:, torch.cat(rows).to(space.device)] for space in spaces]
