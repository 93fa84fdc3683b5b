"""Natural language inference: a linear classifier on the first piece of the last layer.

As ``BertForSequenceClassification``: the encoder's own pooler (dense and tanh) where it has one, else a fresh one,
then dropout and a linear layer.
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
from bertft.models.tasks.pairs import encode_pairs, inputs_of

DROPOUT = 0.1


@dataclass(frozen=True, slots=True)
class _Feature:
    inputs: dict[str, list[int]]
    label: int

    def __len__(self) -> int:
        return len(self.inputs["input_ids"])


class NliHead(Head):
    """Pooled first piece to one score a label."""

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
        return {"loss": nn.functional.cross_entropy(self._scores(output), labels)}

    def predict(self, output: Any, **batch: Tensor) -> list[str]:
        return [self.labels[i] for i in self._scores(output).argmax(1).tolist()]

    def _scores(self, output: Any) -> Tensor:
        pooled = output.pooler_output if self.pool is None else self.pool(output[0][:, 0])
        return self.classify(self.dropout(pooled))


class NliTask:
    """See ``bertft.models.tasks.base.Task``."""

    name = "mnli"
    kind = "nli"
    select = "accuracy"
    max_length = 128

    def spec(self, train: Sequence[Pair]) -> dict[str, Any]:
        return {"labels": ["entailment", "neutral", "contradiction"]}

    def head(self, model: Any, spec: Mapping[str, Any]) -> NliHead:
        has_pooler = isinstance(getattr(model, "pooler", None), nn.Module)
        return NliHead(model.config.hidden_size, spec["labels"], has_pooler=has_pooler)

    def features(
        self, tokenizer: Any, examples: Sequence[Pair], spec: Mapping[str, Any], window: Window, *, training: bool
    ) -> list[_Feature]:
        """One feature a pair; of a pair too long for the window the longer text loses its end, piece by piece.

        One RuntimeWarning says of how many.
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
                "lost its end (max_length)",
                RuntimeWarning,
                stacklevel=2,
            )
        return [
            _Feature(inputs_of(tokenizer, encoding), number[example.label])
            for encoding, example in zip(encodings, examples, strict=True)
        ]

    def collate(self, features: Sequence[_Feature], tokenizer: Any) -> dict[str, Tensor]:
        inputs = pad_inputs([f.inputs for f in features], tokenizer)
        return {**inputs, "labels": torch.tensor([f.label for f in features])}

    def decode(self, examples: Sequence[Pair], features: Sequence[Any], outputs: Sequence[str]) -> list[str]:
        return list(outputs)

    def score(self, examples: Sequence[Pair], predictions: Sequence[str]) -> dict[str, Score]:
        """``accuracy`` in [0, 1]."""
        right = np.array([e.label == p for e, p in zip(examples, predictions, strict=True)], dtype=np.float64)
        return {"accuracy": Score(right, np.ones_like(right))}


def majority_accuracy(pairs: Sequence[Pair]) -> float:
    """The accuracy of always naming the label that is most frequent in ``pairs`` itself."""
    labels = [pair.label for pair in pairs]
    return max(labels.count(label) for label in set(labels)) / len(labels)


TASK = NliTask()
