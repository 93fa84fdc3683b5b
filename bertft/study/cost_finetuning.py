"""The cost of fine-tuning, from a few steps of the very model on some of the very examples."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bertft.cli.console import short
from bertft.data.sources import sample
from bertft.errors import BertftError
from bertft.models.blocks import load_pretrained
from bertft.models.devices import device_of
from bertft.models.finetuning.run import FinetuneConfig
from bertft.models.finetuning.trainer import make_optimizer
from bertft.models.finetuning.training import build_model, window_for
from bertft.models.frozen_cache import HIDDEN, Prefix, collate
from bertft.models.tasks import get_task
from bertft.models.tasks.base import Task, TaskModel, predict
from bertft.study.timing import Line, StageCost, line, placed, seconds_of, weights_of

SAMPLE = 256  # examples whose length stands for that of all
PIECES = 512  # word pieces that are timed together, at most
KEPT_CHECKPOINTS = 2  # the last and the best
WRITTEN = 250e6  # bytes of checkpoints that are written and digested in a second
REST = 2_000_000  # bytes of tokenizer, card and configuration


@dataclass(frozen=True)
class _Sampled:
    """Features of some examples, which stand for ``scale`` times as many."""

    features: list[Any]
    scale: float
    seconds: float  # to make them

    @property
    def count(self) -> float:
        return len(self.features) * self.scale

    @property
    def pieces(self) -> float:
        return sum(map(len, self.features)) * self.scale


def finetuning_cost(
    config: FinetuneConfig, train: Sequence[Any], dev: Sequence[Any], *, stage: str, held: int
) -> StageCost:
    """The cost of `bertft.models.finetuning.run.finetune` with ``config`` on these examples, in a process that holds ``held`` bytes.

    The step of the optimiser is timed with a small and a larger batch: a step costs a fixed time (the weights) and one
    a word piece. Evaluations, after every epoch and at the end, are timed on some dev examples. Memory: weights,
    gradients, Adam's two moments, what a batch of the longest features leaves for the backward pass, and the best
    weights when they are read back.
    """
    task, (encoder, tokenizer) = get_task(config.task), load_pretrained(config.model)
    device = device_of()
    window, spec = window_for(config, encoder, tokenizer), task.spec(train)

    def sampled(examples: Sequence[Any], training: bool) -> _Sampled:
        some = sample(examples, SAMPLE, 0)
        found: list[Any] = []
        seconds = seconds_of(lambda: found.append(task.features(tokenizer, some, spec, window, training=training)))
        return _Sampled(found[0], len(examples) / len(some), seconds)

    training, evaluation = sampled(train, True), sampled(dev, False)
    if not training.features:
        raise BertftError(f"finetune: {config.train} leaves no training feature at max_length {window.max_length}")
    model = build_model(task, encoder, spec, config).to(device)
    kept = weights_of(model)
    with _without_prefix(model, config, tokenizer):
        timed = _Timed(task, model, tokenizer, config, device)
        step, saved = timed.steps(training.features)
        forward = timed.evaluation(evaluation)
    steps = math.ceil(training.count / config.batch_size) * config.epochs
    select = min(config.max_select or len(dev), len(dev)) / len(dev)
    evaluated = evaluation.pieces * (config.epochs * select + 1)
    seconds = step.fixed * steps + step.per * training.pieces * config.epochs + forward * evaluated
    seconds += training.seconds * training.scale + evaluation.seconds * evaluation.scale * (config.epochs * select + 1)
    longest = sorted(map(len, training.features))[-(len(training.features) // 50) - 1]
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    scratch = KEPT_CHECKPOINTS * (kept + 2 * trained)
    seconds += config.epochs * (kept + 2 * trained) / WRITTEN
    if config.prefix_cache is not None and config.freeze >= 1:
        pieces = training.pieces + evaluation.pieces
        config_of: Any = encoder.config
        scratch += int(pieces) * int(config_of.hidden_size) * 4
    work = (
        f"{len(train):,} examples, {config.epochs} epoch{'s' if config.epochs > 1 else ''}, {steps:,} steps, "
        f"{short(training.pieces * config.epochs)} pieces; {short(evaluated)} to evaluate"
    )
    # weights, gradients, moments and the batch lie where the model does; the best weights are read back beside them
    memory = placed(held + kept, kept + 3 * trained + int(saved.at(longest * config.batch_size)))
    return StageCost(stage, work, seconds, kept + REST, scratch, *memory)


@contextlib.contextmanager
def _without_prefix(model: TaskModel, config: FinetuneConfig, tokenizer: Any) -> Iterator[None]:
    """Where the frozen blocks' output is kept for every epoch, the model without them, as training has it then."""
    if config.prefix_cache is None or config.freeze < 1:
        yield
        return
    model.prefix = Prefix(model.encoder, config.freeze, tokenizer, config.prefix_cache, "")
    with model.prefix.attached():
        yield
    model.prefix = None


class _Timed:
    """A task's model, timed."""

    def __init__(self, task: Task, model: TaskModel, tokenizer: Any, config: FinetuneConfig, device: Any) -> None:
        self.task, self.model, self.tokenizer, self.config, self.device = task, model, tokenizer, config, device

    def batch(self, features: Sequence[Any]) -> dict[str, Tensor]:
        found = collate(self.task, features, self.tokenizer)
        if self.model.prefix is not None:
            encoder: Any = self.model.encoder
            found[HIDDEN] = torch.randn(*found["input_ids"].shape, encoder.config.hidden_size)
        return {name: value.to(self.device) for name, value in found.items()}

    def steps(self, features: Sequence[Any]) -> tuple[Line, Line]:
        """Seconds of a step, and bytes kept for its backward pass, both by the batch's word pieces.

        Batches are neighbours in length around the mean, as those of the training are.
        """
        ordered = sorted(features, key=len)
        mean = sum(map(len, ordered)) / len(ordered)
        middle = min(range(len(ordered)), key=lambda i: abs(len(ordered[i]) - mean))
        most = min(self.config.batch_size, len(ordered), max(2, int(PIECES / mean)))
        points = []
        optimizer = make_optimizer(self.model, self.config)
        for size in (max(1, most // 4), most):
            start = min(max(0, middle - size // 2), len(ordered) - size)
            batch = self.batch(ordered[start : start + size])
            kept = self._saved(batch)
            self._step(batch, optimizer)  # the first one of a size finds nothing prepared
            points.append((batch["input_ids"].numel(), seconds_of(partial(self._step, batch, optimizer)), kept))
        (little, shorter, fewer), (much, longer, more) = points
        return line(little, shorter, much, longer), line(little, fewer, much, more)

    def _step(self, batch: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
        self.model.train()
        self.model(**batch)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()

    def _saved(self, batch: dict[str, Tensor]) -> int:
        """Bytes that a forward pass keeps for the backward pass, apart from the weights."""
        seen = {p.untyped_storage().data_ptr() for p in self.model.parameters()}
        total = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal total
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in seen:
                seen.add(storage.data_ptr())
                total += storage.nbytes()
            return tensor

        self.model.train()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            kept = self.model(**batch)["loss"]  # held, so that no storage is freed and counted again
        del kept
        return total

    def evaluation(self, sampled: _Sampled) -> float:
        """Seconds a word piece of predicting."""
        chosen = _spread(sampled.features, PIECES)
        if self.model.prefix is None:
            seconds = seconds_of(lambda: predict(self.task, self.model, self.tokenizer, chosen))
        else:
            batch = self.batch(chosen)
            seconds = seconds_of(lambda: self._forward(batch))
        return seconds / sum(map(len, chosen))

    @torch.no_grad()
    def _forward(self, batch: dict[str, Tensor]) -> None:
        self.model.eval()
        self.model(**batch)


def _spread(features: Sequence[Any], pieces: int) -> list[Any]:
    """Some features of every length, ``pieces`` in all or a little less; one at least."""
    mean = sum(map(len, features)) / len(features)
    count = min(len(features), max(1, int(pieces / mean)))
    ordered = sorted(features, key=len)
    return [ordered[int((i + 0.5) * len(ordered) / count)] for i in range(count)]
