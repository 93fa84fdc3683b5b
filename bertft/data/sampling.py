"""Seeded samples and orders of examples."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from bertft.errors import BertftError

T = TypeVar("T")

SHUFFLED = 65_536
"""Examples that `drawn` holds at once; a shorter source is shuffled as a whole."""

DRAWS = ("stream", "permutation")
"""Ways to draw stimuli: ``stream`` as in `drawn`; ``permutation`` as run folders did before `drawn` served studies."""

_BLOCK = 256  # examples that `until` counts at once


def sample(examples: Sequence[T], limit: int | None, seed: int) -> list[T]:
    """Return ``limit`` examples, sampled with ``seed`` and kept in order, or all of them if there are no more."""
    if limit is None or limit >= len(examples):
        return list(examples)
    rng = random.Random(seed)
    order = sorted((rng.random(), i) for i in range(len(examples)))
    return [examples[i] for i in sorted(i for _, i in order[:limit])]


def drawn(examples: Iterable[T], seed: int, buffer: int = SHUFFLED) -> Iterator[T]:
    """Yield all ``examples`` in an order that depends on ``seed``.

    Up to ``buffer`` examples come in a uniformly random order. A longer source passes through a buffer of that size:
    each yielded example is drawn from the buffer and replaced by the next one of the source.
    """
    generator = random.Random(seed)
    kept: list[T] = []
    for example in examples:
        if len(kept) < buffer:
            kept.append(example)
            continue
        place = generator.randrange(buffer)
        leaving, kept[place] = kept[place], example
        yield leaving
    generator.shuffle(kept)
    yield from kept


def stimuli_order(examples: Iterable[T], tokens: int | None, seed: int) -> Iterable[T]:
    """Return ``examples`` in the order in which ``tokens`` stimuli are taken from them.

    This is the one draw of stimuli: studies and ``bertft rsa`` take the same tokens of the same text with the same
    seed. A text that is used as a whole (``tokens`` is None) keeps its order.
    """
    return examples if tokens is None else drawn(examples, seed)


def places_in_order(count: int, tokens: int | None, seed: int, draw: str = "stream") -> Sequence[int]:
    """Return the places of ``count`` examples in the order of `stimuli_order`, or of the older ``permutation``.

    Raises:
        BertftError: if ``draw`` is not one of `DRAWS`.
    """
    if draw not in DRAWS:
        raise BertftError(f"draw: expected one of {', '.join(DRAWS)}, found {draw!r}")
    if draw == "permutation":
        places: list[int] = np.random.default_rng(seed).permutation(count).tolist()
        return places
    return list(stimuli_order(range(count), tokens, seed))


def until(
    examples: Iterable[T], tokens: int | None, count: Callable[[list[T]], Sequence[int]]
) -> Iterator[tuple[T, int]]:
    """Yield examples, and how many stimuli of each to use, until ``tokens`` stimuli are used (None: to the end).

    ``count`` returns the number of stimuli of each of a block of examples. Examples without stimuli are skipped, and
    the last example is cut.
    """
    source, used = iter(examples), 0
    while block := list(itertools.islice(source, _BLOCK)):
        for example, size in zip(block, count(block), strict=True):
            if size:
                yield example, size if tokens is None else min(size, tokens - used)
                used += size
            if tokens is not None and used >= tokens:
                return
