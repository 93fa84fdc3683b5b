"""Natural language inference with a linear classifier.

As ``BertForSequenceClassification``: the first piece of the last layer, the encoder's own pooler (dense and tanh) or a
new one if it has none, dropout, and a linear layer.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bertft.data.examples import Pair
from bertft.errors import BertftError
from bertft.models.batching import pad_inputs
from bertft.models.tasks.base import Head, Score, Window
from bertft.models.tasks.pairs import encode_pairs, model_inputs

DROPOUT = 0.1


@dataclass(frozen=True, slots=True)
class _Feature:
    inputs: dict[str, list[int]]
    label: int

    def __len__(self) -> int:
        return len(self.inputs["input_ids"])


class NliHead(Head):
    """Scorer of labels over the pooled first piece."""

    def __init__(self, dim: int, labels: Sequence[str], *, has_pooler: bool) -> None:
        super().__init__()
        self.labels = list(labels)
        self.uses_pooler = has_pooler
        self.pool = None if has_pooler else nn.Sequential(nn.Linear(dim, dim), nn.Tanh())
        self.dropout = nn.Dropout(DROPOUT)
        self.classify = nn.Linear(dim, len(self.labels))
        nn.init.normal_(self.classify.weight, std=0.02)
        nn.init.zeros_(self.classify.bias)

    def forward(self, output: Any, *, labels: Tensor) -> dict[str, Tensor]:
        """Return the loss: mean cross-entropy of the labels."""
        return {"loss": nn.functional.cross_entropy(self._scores(output), labels)}

    def predict(self, output: Any, **batch: Tensor) -> list[str]:
        """Return the best label of every pair."""
        return [self.labels[i] for i in self._scores(output).argmax(1).tolist()]

    def _scores(self, output: Any) -> Tensor:
        pooled = output.pooler_output if self.pool is None else self.pool(output[0][:, 0])
        return self.classify(self.dropout(pooled))


class NliTask:
    """The task ``mnli``; see `bertft.models.tasks.base.Task`."""

    name = "mnli"
    kind = "nli"
    select = "accuracy"
    max_length = 128

    def spec(self, train: Sequence[Pair]) -> dict[str, Any]:
        """Return the three labels."""
        return {"labels": ["entailment", "neutral", "contradiction"]}

    def head(self, model: Any, spec: Mapping[str, Any]) -> NliHead:
        """Return a new head for the encoder ``model``."""
        has_pooler = isinstance(getattr(model, "pooler", None), nn.Module)
        return NliHead(model.config.hidden_size, spec["labels"], has_pooler=has_pooler)

    def features(
        self, tokenizer: Any, examples: Sequence[Pair], spec: Mapping[str, Any], window: Window, *, training: bool
    ) -> list[_Feature]:
        """Return one feature per pair.

        If a pair exceeds the window, its longer text is truncated piece by piece. One RuntimeWarning gives the number
        of truncated pairs.
        """
        number = {label: i for i, label in enumerate(spec["labels"])}
        if not examples:
            return []
        if window.max_length < (least := tokenizer.num_special_tokens_to_add(pair=True) + 2):
            raise BertftError(
                f"finetune: max_length must be at least {least} for text pairs, found {window.max_length}"
            )
        encodings = encode_pairs(
            tokenizer,
            [e.premise for e in examples],
            [e.hypothesis for e in examples],
            max_length=window.max_length,
            strategy="longest_first",
        )
        if cut := sum(bool(pair.overflowing) for pair in encodings):
            warnings.warn(
                f"mnli: {cut:,} of {len(examples):,} pairs are longer than {window.max_length} pieces: the longer text "
                "was truncated (max_length)",
                RuntimeWarning,
                stacklevel=2,
            )
        return [
            _Feature(model_inputs(tokenizer, encoding), number[example.label])
            for encoding, example in zip(encodings, examples, strict=True)
        ]

    def collate(self, features: Sequence[_Feature], tokenizer: Any) -> dict[str, Tensor]:
        """Return a batch with ``labels`` (B,)."""
        inputs = pad_inputs([f.inputs for f in features], tokenizer)
        return {**inputs, "labels": torch.tensor([f.label for f in features])}

    def decode(self, examples: Sequence[Pair], features: Sequence[Any], outputs: Sequence[str]) -> list[str]:
        """Return the outputs: a pair has one feature."""
        return list(outputs)

    def score(self, examples: Sequence[Pair], predictions: Sequence[str]) -> dict[str, Score]:
        """Return ``accuracy`` in [0, 1]."""
        right = np.array([e.label == p for e, p in zip(examples, predictions, strict=True)], dtype=np.float64)
        return {"accuracy": Score(right, np.ones_like(right))}


def majority_accuracy(pairs: Sequence[Pair]) -> float:
    """Return the accuracy of always predicting the most frequent label of ``pairs``."""
    labels = [pair.label for pair in pairs]
    return max(labels.count(label) for label in set(labels)) / len(labels)


TASK = NliTask()
