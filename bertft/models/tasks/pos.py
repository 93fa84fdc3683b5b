"""Part-of-speech tagging with a linear classifier.

As Devlin et al. (2019) tag named entities, but with the mean of a word's pieces in the last layer instead of the first
piece. Reads treebanks and predicts their UPOS column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bertft.data.alignment import align_words
from bertft.data.examples import Sentence
from bertft.models.batching import pad, pad_inputs, pool_words, word_inputs, word_pieces
from bertft.models.tasks.base import Head, Score, Window

DROPOUT = 0.1
IGNORED = -100  # the target that cross-entropy skips: a tag absent from training


@dataclass(frozen=True, slots=True)
class _Feature:
    inputs: dict[str, list[int]]
    slots: list[int]
    tags: list[int]

    def __len__(self) -> int:
        return len(self.slots)


class TagHead(Head):
    """Scorer of tags over packed word vectors."""

    def __init__(self, dim: int, tags: Sequence[str]) -> None:
        super().__init__()
        self.tags = list(tags)
        self.dropout = nn.Dropout(DROPOUT)
        self.classify = nn.Linear(dim, len(self.tags))

    def forward(self, output: Any, *, tags: Tensor, **words: Tensor) -> dict[str, Tensor]:
        """Return the loss: mean cross-entropy over words with a known tag."""
        scores = self._scores(output, words["pieces"], words["offsets"])
        total = nn.functional.cross_entropy(scores, tags, ignore_index=IGNORED, reduction="sum")
        return {"loss": total / (tags != IGNORED).sum().clamp(min=1)}

    def predict(self, output: Any, *, lengths: Tensor, **words: Tensor) -> list[tuple[str, ...]]:
        """Return the best tag of every word, by sentence."""
        best = iter(self._scores(output, words["pieces"], words["offsets"]).argmax(1).tolist())
        return [tuple(self.tags[next(best)] for _ in range(length)) for length in lengths.tolist()]

    def _scores(self, output: Any, pieces: Tensor, offsets: Tensor) -> Tensor:
        return self.classify(self.dropout(pool_words(output[0], pieces, offsets)))


class PosTask:
    """The task ``pos``; see `bertft.models.tasks.base.Task`."""

    name = "pos"
    kind = "dep"
    select = "accuracy"
    max_length = 512

    def spec(self, train: Sequence[Sentence]) -> dict[str, Any]:
        """Return the tags of the training data."""
        return {"tags": sorted({tag for sentence in train for tag in sentence.upos})}

    def head(self, model: Any, spec: Mapping[str, Any]) -> TagHead:
        """Return a new head for the encoder ``model``."""
        return TagHead(model.config.hidden_size, spec["tags"])

    def features(
        self, tokenizer: Any, examples: Sequence[Sentence], spec: Mapping[str, Any], window: Window, *, training: bool
    ) -> list[_Feature]:
        """Return one feature per sentence; raise BertftError for a sentence longer than the window."""
        number = {tag: i for i, tag in enumerate(spec["tags"])}
        aligned = align_words(tokenizer, [s.words for s in examples], window.max_length, names=[s.id for s in examples])
        return [
            _Feature(word_inputs(tokenizer, ids), words, [number.get(tag, IGNORED) for tag in sentence.upos])
            for ids, words, sentence in zip(aligned.ids, aligned.words, examples, strict=True)
        ]

    def collate(self, features: Sequence[_Feature], tokenizer: Any) -> dict[str, Tensor]:
        """Return a batch with the ``tags`` (T,) of the packed words and the ``lengths`` (B,) of sentences in words."""
        lengths = torch.tensor([len(f.tags) for f in features])
        pieces, offsets = word_pieces(pad([f.slots for f in features], -1), lengths)
        tags = torch.tensor([tag for f in features for tag in f.tags])
        inputs = pad_inputs([f.inputs for f in features], tokenizer)
        return {**inputs, "pieces": pieces, "offsets": offsets, "lengths": lengths, "tags": tags}

    def decode(
        self, examples: Sequence[Sentence], features: Sequence[Any], outputs: Sequence[tuple[str, ...]]
    ) -> list[tuple[str, ...]]:
        """Return the outputs: a sentence has one feature."""
        return list(outputs)

    def score(self, examples: Sequence[Sentence], predictions: Sequence[tuple[str, ...]]) -> dict[str, Score]:
        """Return ``accuracy`` in [0, 1]: the share of words, punctuation included, with the gold UPOS tag."""
        pairs = list(zip((e.upos for e in examples), predictions, strict=True))
        right = [sum(g == p for g, p in zip(gold, found, strict=True)) for gold, found in pairs]
        return {"accuracy": Score(np.array(right, dtype=np.float64), np.array([float(len(e.upos)) for e in examples]))}


TASK = PosTask()
