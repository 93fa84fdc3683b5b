"""Edge-probing targets as tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bertft.data.readers.spans import SpanText
from bertft.errors import BertftError


@dataclass(frozen=True)
class SpanBatch:
    """The N targets of a few texts, whose words are packed text by text.

    For role r with U_r distinct spans of J_r words in all:

    - ``tokens[r]`` (J_r,): numbers of the words, span by span.
    - ``sizes[r]`` (U_r,): words of each span.
    - ``which[r]`` (N,): the number of each target's span; None if target i has span i.
    - ``single[r]``: whether every span is one word.
    - ``whole[r]``: whether ``tokens[r]`` are all words in order.

    ``labels`` (N, K) float32 is 1 if the target has the label. ``text`` (N,) is the position of each target's text in
    the batch.
    """

    tokens: list[Tensor]
    sizes: list[Tensor]
    which: list[Tensor | None]
    single: list[bool]
    whole: list[bool]
    labels: Tensor
    text: Tensor

    def to(self, device: torch.device) -> SpanBatch:
        """Return the batch on ``device``."""
        if self.labels.device == device:
            return self
        tokens, sizes = ([tensor.to(device) for tensor in own] for own in (self.tokens, self.sizes))
        which = [None if own is None else own.to(device) for own in self.which]
        return SpanBatch(tokens, sizes, which, self.single, self.whole, self.labels.to(device), self.text.to(device))


class EdgeTargets:
    """The targets of S texts, and the labels they are scored against.

    Only words inside a span are used: ``kept`` has their numbers in each text, and ``spans`` (n_s, roles, 2) are
    intervals of kept words. ``unseen`` counts the labels outside the inventory, ``unseen_per_text`` (S,) those of each
    text; no probe can predict them, so a score counts them as missed.

    Args:
        texts: texts with at least one target each (`with_targets`).
        inventory: the K labels of the training data, in order.
        single: whether every target has exactly one label; None to find out.
    """

    def __init__(self, texts: Sequence[SpanText], inventory: Sequence[str], single: bool | None = None) -> None:
        if single is None:
            single = all(len(set(target.labels)) == 1 for text in texts for target in text.targets)
        self.single = single  # every target has one label, as in a classification
        self.texts, self.inventory = list(texts), list(inventory)
        number = {label: k for k, label in enumerate(self.inventory)}
        self.roles = 1 if self.texts[0].targets[0].second is None else 2
        self.counts = np.array([len(text.targets) for text in self.texts])
        self.starts = np.concatenate([[0], np.cumsum(self.counts)])
        self.kept: list[np.ndarray] = []
        self.spans: list[np.ndarray] = []
        for text in self.texts:
            spans = np.array([(t.first, t.second)[: self.roles] for t in text.targets], dtype=np.int64)
            inside = np.zeros(len(text.words) + 1, dtype=np.int64)
            for start, end in spans.reshape(-1, 2):
                inside[start:end] = 1
            # Every word of a span is kept, so the words of a span stay consecutive without the others.
            rank = np.concatenate([[0], np.cumsum(inside)])
            self.kept.append(np.flatnonzero(inside))
            self.spans.append(rank[spans])
        self.lengths = np.array([len(k) for k in self.kept])
        self._roles = [_Role([spans[:, role] for spans in self.spans], self.lengths) for role in range(self.roles)]
        self.labels = torch.zeros(int(self.starts[-1]), len(self.inventory))
        self._blocks: dict[int, list[tuple[range, SpanBatch]]] = {}
        self.unseen: Counter[str] = Counter()
        self.unseen_per_text = np.zeros(len(self.texts), dtype=np.int64)
        row = 0
        for s, text in enumerate(self.texts):
            for target in text.targets:
                for label in dict.fromkeys(target.labels):
                    if label in number:
                        self.labels[row, number[label]] = 1
                    else:
                        self.unseen[label] += 1
                        self.unseen_per_text[s] += 1
                row += 1

    def subset(self, members: Sequence[int] | np.ndarray) -> EdgeTargets:
        """Return the targets of some of the texts, with the same labels."""
        return EdgeTargets([self.texts[i] for i in members], self.inventory, self.single)

    def __len__(self) -> int:
        """Return the number of targets."""
        return int(self.starts[-1])

    def batch(self, members: Sequence[int]) -> SpanBatch:
        """Return the targets of the texts ``members``, in that order, over their kept words."""
        chosen = np.asarray(members)
        offsets = np.cumsum(self.lengths[chosen]) - self.lengths[chosen]
        roles = [role.batch(chosen, offsets, self.counts) for role in self._roles]
        rows = _ranges(self.starts[chosen], self.counts[chosen])
        every = np.arange(self.lengths[chosen].sum())
        return SpanBatch(
            [torch.from_numpy(tokens) for tokens, _, _ in roles],
            [torch.from_numpy(sizes) for _, sizes, _ in roles],
            [None if which is None else torch.from_numpy(which) for _, _, which in roles],
            [bool((sizes == 1).all()) for _, sizes, _ in roles],
            [np.array_equal(tokens, every) for tokens, _, _ in roles],
            self.labels[torch.from_numpy(rows)],
            torch.from_numpy(np.repeat(np.arange(len(chosen)), self.counts[chosen])),
        )

    def blocks(self, size: int) -> list[tuple[range, SpanBatch]]:
        """Return all texts in order, ``size`` at a time, as (texts, batch); cached."""
        if size not in self._blocks:
            parts = [range(first, min(first + size, len(self.texts))) for first in range(0, len(self.texts), size)]
            self._blocks[size] = [(part, self.batch(part)) for part in parts]
        return self._blocks[size]


class _Role:
    """The distinct spans of one role, text by text, and which of them each target has."""

    def __init__(self, spans: Sequence[np.ndarray], lengths: np.ndarray) -> None:
        distinct, which = [], []
        for own, length in zip(spans, lengths, strict=True):
            _, first, number = np.unique(own[:, 0] * (length + 1) + own[:, 1], return_index=True, return_inverse=True)
            if len(first) == len(own):  # no span is shared: keep the order of the targets
                first = number = np.arange(len(own))
            distinct.append(own[first])
            which.append(number)
        self.counts = np.array([len(own) for own in distinct])
        self.starts = np.cumsum(self.counts) - self.counts
        self.begin, self.end = np.concatenate(distinct).T
        self.which = np.concatenate(which)
        self.targets = np.cumsum([0, *map(len, which)])

    def batch(
        self, members: np.ndarray, offsets: np.ndarray, targets: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Return ``tokens``, ``sizes`` and ``which`` of a `SpanBatch` of texts whose words begin at ``offsets``."""
        counts = self.counts[members]
        rows = _ranges(self.starts[members], counts)
        sizes = self.end[rows] - self.begin[rows]
        tokens = _ranges(self.begin[rows] + np.repeat(offsets, counts), sizes)
        which = None
        if len(rows) < targets[members].sum():
            own = self.which[_ranges(self.targets[members], targets[members])]
            which = own + np.repeat(np.cumsum(counts) - counts, targets[members])
        return tokens, sizes, which


def _ranges(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the concatenation of arange(starts[i], starts[i] + sizes[i])."""
    ends = np.cumsum(sizes)
    return np.arange(ends[-1]) + np.repeat(starts - (ends - sizes), sizes)


def with_targets(texts: Sequence[SpanText], name: str) -> list[SpanText]:
    """Return the texts that have targets.

    Raises:
        BertftError: if there are fewer than two, because an interval needs two.
    """
    kept = [text for text in texts if text.targets]
    if len(kept) < 2:
        raise BertftError(f"edge probes: expected at least 2 texts with targets in {name}, found {len(kept)}")
    return kept


def label_inventory(texts: Sequence[SpanText]) -> list[str]:
    """Return all labels of ``texts``, sorted.

    Raises:
        BertftError: if there is none.
    """
    labels = sorted({label for text in texts for target in text.targets for label in target.labels})
    if not labels:
        raise BertftError("edge probes: the targets of the training data have no labels")
    return labels


def check_roles(train: Sequence[SpanText], held_out: Sequence[SpanText], name: str) -> None:
    """Refuse data whose targets have another number of spans than those of the training data."""
    wanted, found = (1 if texts[0].targets[0].second is None else 2 for texts in (train, held_out))
    if wanted != found:
        raise BertftError(f"edge probes: {name} has targets of {found} span(s), the training data of {wanted}")
