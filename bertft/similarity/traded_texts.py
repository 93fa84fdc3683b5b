"""Texts that trade places, for the null of a similarity.

A text trades places with another of as many stimuli, so that every token keeps its position in a text and stays with
the other tokens of its text. Few texts have exactly one length, so texts of similar length are cut to a common one:
from the longest text down, a class closes as soon as it has `LEAST` texts and the next text is shorter, and its texts
are cut to the length of the shortest of them. The shortest texts are left out if they are too few for a class.

The cut takes stimuli out of the middle. Both halves keep their positions, the second one counted from the end: full
stops at the end of sentences trade with full stops. In a layer of a decoder they can decide a similarity.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

LEAST = 5  # texts of a class: with two, every derangement would be the same


def classes(lengths: Tensor) -> list[tuple[int, list[int]]]:
    """Return (common length, texts) of each class of texts with ``lengths`` (S,), the longest first."""
    sizes = lengths.tolist()
    found: list[tuple[int, list[int]]] = []
    members: list[int] = []
    for text in sorted(range(len(sizes)), key=lambda text: (-sizes[text], text)):
        if len(members) >= LEAST and sizes[text] < sizes[members[-1]]:
            found.append((sizes[members[-1]], members))
            members = []
        if sizes[text] > 0:
            members.append(text)
    if len(members) >= LEAST:
        found.append((sizes[members[-1]], members))
    return found


class TradedTexts:
    """The stimuli of texts that can trade places, and seeded ways to trade.

    Attributes:
        kept: (R',) the stimuli, class by class and text by text, among those of ``groups``.
        texts: their number of texts.
        owner: (R',) the number of the text of each, from 0.
    """

    def __init__(self, groups: Tensor, seed: int) -> None:
        lengths = torch.bincount(groups)
        starts = (lengths.cumsum(0) - lengths).tolist()
        order = groups.argsort(stable=True)
        self._classes = [(length, len(members)) for length, members in classes(lengths)]
        places = [
            both_ends(order[starts[text] : starts[text] + int(lengths[text])], length)
            for length, members in classes(lengths)
            for text in members
        ]
        self.kept = torch.cat(places) if places else order[:0]
        self.texts, self._seed = len(places), seed
        self.owner = torch.repeat_interleave(
            torch.arange(len(places)), torch.tensor([*map(len, places)], dtype=torch.long)
        )

    def __len__(self) -> int:
        """Return R', the number of stimuli."""
        return len(self.kept)

    def others(self, values: Tensor) -> Tensor:
        """Return, for values (R', ...) of `kept`, what each stimulus trades them for on average.

        It is the mean over the other texts of the class, at the same place.
        """
        found = [(block.sum(0) - block) / (len(block) - 1) for block in self.blocks(values)]
        return torch.cat([block.flatten(0, 1) for block in found])

    def common(self, values: Tensor) -> Tensor:
        """Return, for values (R', ...) of `kept`, the mean over all texts of the class at the same place."""
        found = [block.mean(0, keepdim=True).expand_as(block) for block in self.blocks(values)]
        return torch.cat([block.flatten(0, 1) for block in found])

    def blocks(self, values: Tensor) -> Iterator[Tensor]:
        """Yield the values (R', ...) of `kept` of each class as (texts, length, ...)."""
        sizes = [length * texts for length, texts in self._classes]
        for (length, texts), part in zip(self._classes, values.split(sizes), strict=True):
            yield part.unflatten(0, (texts, length))

    def derangements(self, count: int) -> Iterator[Tensor]:
        """Yield ``count`` orders (R',) of `kept`, each uniform among those in which every text changes its place."""
        generator = np.random.default_rng(self._seed)
        for _ in range(count):
            parts, begin = [], 0
            for length, texts in self._classes:
                parts.append(begin + length * _deranged(texts, generator)[:, None] + np.arange(length))
                begin += length * texts
            yield torch.from_numpy(np.concatenate([part.ravel() for part in parts]))


def both_ends(stimuli: Tensor, length: int) -> Tensor:
    """Return the first and the last of ``stimuli`` (n,), ``length`` in all; of an odd number, one more of the first."""
    last = length // 2
    return torch.cat([stimuli[: length - last], stimuli[len(stimuli) - last :]])


def _deranged(count: int, generator: np.random.Generator) -> np.ndarray:
    """Return a uniform permutation without a fixed point; of all permutations, 37 % have none."""
    while True:
        found = generator.permutation(count)
        if not (found == np.arange(count)).any():
            return found
