"""Protocol of a task, its model and its scores."""

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
from bertft.runs.intervals import ratio_interval

if TYPE_CHECKING:
    from bertft.models.frozen_cache import FrozenCache

ENCODER_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True, slots=True)
class Window:
    """Size and stride of the windows of inputs.

    ``max_length`` is the most pieces of an input, special tokens included; ``stride`` the number of pieces that
    neighbouring windows of one passage share (QA).
    """

    max_length: int
    stride: int = 64


@dataclass(slots=True)
class Score:
    """One measure as a ratio of sums over items: ``sum(numerators) / sum(denominators)``.

    Items are sentences, pairs or questions; the bootstrap resamples them.
    """

    numerators: np.ndarray
    denominators: np.ndarray
    value: float = field(init=False)

    def __post_init__(self) -> None:
        self.value = float(self.numerators.sum() / max(self.denominators.sum(), 1e-300))

    def interval(self, seed: int, *, resamples: int = 1000, level: float = 0.95) -> tuple[float, float]:
        """Return the ends of a percentile bootstrap interval over the items. It depends on ``seed`` only."""
        return ratio_interval(self.numerators, self.denominators, seed, resamples=resamples, level=level)


class Head(nn.Module, abc.ABC):
    """The layers that a task puts on the encoder.

    ``forward(output, **batch)`` returns ``{"loss": scalar}``. ``output`` is the encoder's, ``batch`` the tensors that
    `Task.collate` adds to the encoder's inputs.
    """

    uses_pooler = False

    @abc.abstractmethod
    def predict(self, output: Any, *args: Any, **batch: Any) -> list[Any]:
        """Return one prediction per feature of the batch."""


class Task(Protocol):
    """Features, head and metrics of one task."""

    name: str
    kind: str  # of examples, as `bertft.data.sources.load` takes it
    select: str  # the measure that selects the best checkpoint
    max_length: int  # default for the most pieces of an input

    def spec(self, train: Sequence[Any]) -> dict[str, Any]:
        """Return the head's facts about the training data (its label set), as JSON values."""
        ...

    def head(self, model: Any, spec: Mapping[str, Any]) -> Head:
        """Return a new head for the encoder ``model``."""
        ...

    def features(
        self, tokenizer: Any, examples: Sequence[Any], spec: Mapping[str, Any], window: Window, *, training: bool
    ) -> list[Any]:
        """Return tokenised examples: the encoder's ``inputs`` by name, and ``len`` in pieces.

        A passage that needs several windows has several features.
        """
        ...

    def collate(self, features: Sequence[Any], tokenizer: Any) -> dict[str, Tensor]:
        """Return a padded batch: the encoder's inputs and the head's tensors."""
        ...

    def decode(self, examples: Sequence[Any], features: Sequence[Any], outputs: Sequence[Any]) -> list[Any]:
        """Return one prediction per example from the head's predictions of all features."""
        ...

    def score(self, examples: Sequence[Any], predictions: Sequence[Any]) -> dict[str, Score]:
        """Return the task's measures by name."""
        ...


class TaskModel(nn.Module):
    """Encoder and head as one module for the Trainer."""

    accepts_loss_kwargs = False  # tells the Trainer that the loss is a mean over this batch

    def __init__(self, encoder: nn.Module, head: Head, frozen: Sequence[nn.Module] = ()) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.frozen = tuple(frozen)  # parts of the encoder that stay in evaluation mode
        self.prefix: FrozenCache | None = None  # cached output of the frozen blocks, if any

    def train(self, mode: bool = True) -> TaskModel:
        """Set training mode, except for the frozen parts."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def encode(self, batch: Mapping[str, Tensor]) -> tuple[Any, dict[str, Tensor]]:
        """Run the encoder; return its output and the tensors of ``batch`` for the head."""
        if self.prefix is not None:
            self.prefix.feed(batch[HIDDEN])
        output = self.encoder(**{key: batch[key] for key in ENCODER_INPUTS if key in batch})
        return output, {key: value for key, value in batch.items() if key not in (*ENCODER_INPUTS, HIDDEN)}

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        """Return a dictionary with the scalar ``loss`` of a batch."""
        output, for_head = self.encode(batch)
        return self.head(output, **for_head)


@torch.no_grad()
def predict(
    task: Task, model: TaskModel, tokenizer: Any, features: Sequence[Any], *, batch_tokens: int = 4096, step: Any = None
) -> list[Any]:
    """Return the head's prediction of every feature, in order, from length-sorted batches; restore training mode."""
    device = next(model.parameters()).device
    predictions: list[Any] = [None] * len(features)
    training = model.training
    model.eval()
    try:
        for group in length_sorted_batches([_Indexed(i, f) for i, f in enumerate(features)], batch_tokens):
            batch = collate(task, [item.feature for item in group], tokenizer)
            output, for_head = model.encode({key: value.to(device) for key, value in batch.items()})
            for item, prediction in zip(group, model.head.predict(output, **for_head), strict=True):
                predictions[item.position] = prediction
            if step is not None:
                step.advance(len(group))
    finally:
        model.train(training)
    return predictions


@dataclass(slots=True)
class _Indexed:
    position: int
    feature: Any

    def __len__(self) -> int:
        return len(self.feature)
