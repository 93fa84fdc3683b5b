"""Edge-probing targets as tensors: which words each span holds, and which labels each target carries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bertft.data.spans import SpanText
from bertft.errors import BertftError


@dataclass(frozen=True)
class SpanBatch:
    """The targets of a few texts, over the words of these texts packed one text after the other.

    ``tokens[r]`` (J_r,) word numbers of all spans of role r, one span after the other; ``sizes[r]`` (N,) words of each
    span, J_r in all; ``labels`` (N, K) float32, 1 where the target carries the label; ``text`` (N,) the position of
    each target's text among the texts of the batch.
    """

    tokens: list[Tensor]
    sizes: list[Tensor]
    labels: Tensor
    text: Tensor


class EdgeTargets:
    """The targets of texts that have any, with the label inventory they are scored against.

    Args:
        texts: texts with at least one target (`with_targets`).
        inventory: the K labels of the training data, in order. Labels outside it cannot be predicted: ``unseen``
            counts them, and ``unseen_per_text`` (S,) says where, so that a score can count each as a miss.

    Only words inside a span matter: ``kept`` numbers them in each text, and ``spans`` (n_s, roles, 2) counts in them.
    """

    def __init__(self, texts: Sequence[SpanText], inventory: Sequence[str], single: bool | None = None) -> None:
        if single is None:
            single = all(len(set(target.labels)) == 1 for text in texts for target in text.targets)
        self.single = single  # whether every target carries one label, as a classification has it
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
            # Every word of a span is kept, so a span's words stay neighbours when the others are left out.
            rank = np.concatenate([[0], np.cumsum(inside)])
            self.kept.append(np.flatnonzero(inside))
            self.spans.append(rank[spans])
        self.lengths = np.array([len(k) for k in self.kept])
        self.labels = torch.zeros(int(self.starts[-1]), len(self.inventory))
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
        """The targets of some of the texts, scored as all of them are."""
        return EdgeTargets([self.texts[i] for i in members], self.inventory, self.single)

    def __len__(self) -> int:
        """How many targets there are."""
        return int(self.starts[-1])

    def batch(self, members: Sequence[int]) -> SpanBatch:
        """The targets of the texts ``members``, in that order, over their kept words."""
        tokens: list[list[np.ndarray]] = [[] for _ in range(self.roles)]
        sizes: list[list[np.ndarray]] = [[] for _ in range(self.roles)]
        offset = 0
        for s in members:
            for role in range(self.roles):
                start, end = self.spans[s][:, role, 0] + offset, self.spans[s][:, role, 1] + offset
                size = end - start
                ends = np.cumsum(size)
                tokens[role].append(np.arange(ends[-1]) + np.repeat(start - (ends - size), size))
                sizes[role].append(size)
            offset += int(self.lengths[s])
        rows = np.concatenate([np.arange(self.starts[s], self.starts[s + 1]) for s in members])
        return SpanBatch(
            [torch.from_numpy(np.concatenate(t)) for t in tokens],
            [torch.from_numpy(np.concatenate(s)) for s in sizes],
            self.labels[torch.from_numpy(rows)],
            torch.from_numpy(np.repeat(np.arange(len(members)), self.counts[list(members)])),
        )


def with_targets(texts: Sequence[SpanText], name: str) -> list[SpanText]:
    """The texts that have targets; a ``BertftError`` if there are fewer than two, for no interval can be given."""
    kept = [text for text in texts if text.targets]
    if len(kept) < 2:
        raise BertftError(f"edge probes: expected at least 2 texts with targets in {name}, found {len(kept)}")
    return kept


def label_inventory(texts: Sequence[SpanText]) -> list[str]:
    """All labels of ``texts``, sorted."""
    labels = sorted({label for text in texts for target in text.targets for label in target.labels})
    if not labels:
        raise BertftError("edge probes: the targets of the training data carry no label at all")
    return labels


def check_roles(train: Sequence[SpanText], held_out: Sequence[SpanText], name: str) -> None:
    """Refuse data whose targets have another number of spans than the training data's."""
    wanted, found = (1 if texts[0].targets[0].second is None else 2 for texts in (train, held_out))
    if wanted != found:
        raise BertftError(f"edge probes: {name} has targets of {found} span(s), the training data of {wanted}")
