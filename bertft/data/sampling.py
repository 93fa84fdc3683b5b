"""Seeded samples and orders of examples."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")
SHUFFLED = 65_536
"""Examples that `drawn` holds at once; a shorter source is shuffled as a whole."""


def sample(examples: Sequence[T], limit: int | None, seed: int) -> list[T]:
    """``limit`` of ``examples`` drawn at random with ``seed``, in their own order; all of them if there are no more."""
    if limit is None or limit >= len(examples):
        return list(examples)
    rng = random.Random(seed)
    order = sorted((rng.random(), i) for i in range(len(examples)))
    return [examples[i] for i in sorted(i for _, i in order[:limit])]


def drawn(examples: Iterable[T], seed: int, held: int = SHUFFLED) -> Iterator[T]:
    """``examples`` in an order drawn with ``seed``.

    Up to ``held`` of them are in any order with equal chance. From a longer source, of which no more than ``held`` are
    kept, each that goes out is drawn from those kept and replaced by the next.
    """
    generator = random.Random(seed)
    kept: list[T] = []
    for example in examples:
        if len(kept) < held:
            kept.append(example)
            continue
        place = generator.randrange(held)
        leaving, kept[place] = kept[place], example
        yield leaving
    generator.shuffle(kept)
    yield from kept
