"""What a task is, the model every task trains, and the intervals of its scores."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from bertft.models.batching import length_sorted_batches
from bertft.models.frozen_cache import HIDDEN, collate

if TYPE_CHECKING:
    from bertft.models.frozen_cache import Prefix

ENCODER_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True, slots=True)
class Window:
    """How inputs are cut: at most ``max_length`` pieces, special tokens included; ``stride`` pieces shared by
    neighbouring windows of one passage (QA)."""

    max_length: int
    stride: int = 64


@dataclass(slots=True)
class Score:
    """One measure as a ratio of sums over items: ``numerators[i]`` of ``denominators[i]`` for sentence or question i.

    The value is ``sum(numerators) / sum(denominators)``; the items are what the bootstrap draws.
    """

    numerators: np.ndarray
    denominators: np.ndarray
    value: float = field(init=False)

    def __post_init__(self) -> None:
        self.value = float(self.numerators.sum() / max(self.denominators.sum(), 1e-300))

    def interval(self, seed: int, *, resamples: int = 1000, level: float = 0.95) -> tuple[float, float]:
        """Percentile bootstrap over the items, drawn with replacement; the same ``seed`` gives the same ends."""
        n = len(self.numerators)
        generator = np.random.default_rng(seed)
        values = []
        for size in _chunks(resamples, max(1, 2_000_000 // n)):
            weights = generator.multinomial(n, np.full(n, 1 / n), size=size).astype(np.float64)
            # A resample of items that all count nothing has no ratio; it says nothing about the spread.
            below = weights @ self.denominators
            values.append((weights @ self.numerators)[below > 0] / below[below > 0])
        low, high = np.quantile(np.concatenate(values), [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)


class Head(nn.Module, abc.ABC):
    """What a task puts on the encoder.

    ``forward(output, **batch)`` gives ``{"loss": scalar}``; ``predict(output, **batch)`` a list with one prediction a
    feature. ``output`` is the encoder's, ``batch`` what ``Task.collate`` adds to the encoder's inputs.
    """

    uses_pooler = False

    @abc.abstractmethod
    def predict(self, output: Any, *args: Any, **batch: Any) -> list[Any]: ...


class Task(Protocol):
    """Features, head and metric of one task."""

    name: str
    kind: str  # of bertft.data.sources.load
    select: str  # the measure that chooses the best checkpoint
    max_length: int  # pieces an input has at most, where nothing else is said

    def spec(self, train: Sequence[Any]) -> dict[str, Any]:
        """What the head must know of the training data (its label set), as JSON."""
        ...

    def head(self, model: Any, spec: Mapping[str, Any]) -> Head: ...

    def features(
        self, tokenizer: Any, examples: Sequence[Any], spec: Mapping[str, Any], window: Window, *, training: bool
    ) -> list[Any]:
        """Tokenised examples with ``inputs``, the encoder's inputs by name, and ``len`` in pieces; several a passage
        where windows are needed."""
        ...

    def collate(self, features: Sequence[Any], tokenizer: Any) -> dict[str, Tensor]: ...

    def decode(self, examples: Sequence[Any], features: Sequence[Any], outputs: Sequence[Any]) -> list[Any]:
        """One prediction an example from the head's prediction of every feature."""
        ...

    def score(self, examples: Sequence[Any], predictions: Sequence[Any]) -> dict[str, Score]: ...


class TaskModel(nn.Module):
    """Encoder and head as one module for the Trainer: ``forward(**batch)`` gives a dictionary with ``loss``."""

    accepts_loss_kwargs = False  # the loss is a mean over this batch, as the Trainer must know

    def __init__(self, encoder: nn.Module, head: Head, frozen: Sequence[nn.Module] = ()) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.frozen = tuple(frozen)  # parts of the encoder that stay in evaluation mode
        self.prefix: Prefix | None = None  # where the output of the frozen blocks comes from, if it is kept

    def train(self, mode: bool = True) -> TaskModel:
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def encode(self, batch: Mapping[str, Tensor]) -> tuple[Any, dict[str, Tensor]]:
        """The encoder's output, and the part of ``batch`` that is the head's."""
        if self.prefix is not None:
            self.prefix.feed(batch[HIDDEN])
        output = self.encoder(**{key: batch[key] for key in ENCODER_INPUTS if key in batch})
        return output, {key: value for key, value in batch.items() if key not in (*ENCODER_INPUTS, HIDDEN)}

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        output, rest = self.encode(batch)
        return self.head(output, **rest)


@torch.no_grad()
def predict(
    task: Task, model: TaskModel, tokenizer: Any, features: Sequence[Any], *, batch_tokens: int = 4096, step: Any = None
) -> list[Any]:
    """The head's prediction of every feature, in order, from length-sorted batches; the training mode is restored."""
    device = next(model.parameters()).device
    found: list[Any] = [None] * len(features)
    training = model.training
    model.eval()
    try:
        for group in length_sorted_batches([_Numbered(i, f) for i, f in enumerate(features)], batch_tokens):
            batch = collate(task, [item.feature for item in group], tokenizer)
            output, rest = model.encode({key: value.to(device) for key, value in batch.items()})
            for item, prediction in zip(group, model.head.predict(output, **rest), strict=True):
                found[item.position] = prediction
            if step is not None:
                step.advance(len(group))
    finally:
        model.train(training)
    return found


@dataclass(slots=True)
class _Numbered:
    position: int
    feature: Any

    def __len__(self) -> int:
        return len(self.feature)


def _chunks(total: int, size: int) -> list[int]:
    return [min(size, total - start) for start in range(0, total, size)]
