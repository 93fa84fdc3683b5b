"""Fine-tuning of every task of a study."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from bertft.data.sampling import sample
from bertft.data.sources import load
from bertft.errors import BertftError
from bertft.models.devices import device_of
from bertft.models.finetuning.assembly import build_model, make_optimizer, window_for
from bertft.models.finetuning.config import FinetuneConfig, dev_split
from bertft.models.finetuning.run import finetune
from bertft.models.frozen_cache import HIDDEN, FrozenCache, collate
from bertft.models.loading import load_pretrained
from bertft.models.tasks import get_task
from bertft.models.tasks.base import Task, TaskModel, predict
from bertft.runs.files import write_text_atomically
from bertft.runs.folder import CONFIG, RESULTS, Stage
from bertft.runs.progress import Progress
from bertft.runs.rows import Row, write_results
from bertft.runs.units import short
from bertft.study.analysis import Analysis
from bertft.study.inputs import Inputs
from bertft.study.timing import Line, StageCost, line, placed, seconds_of, weights_of

SAMPLE = 256  # examples whose lengths represent those of all
PIECES = 512  # word pieces timed together, at most
KEPT_CHECKPOINTS = 2  # the last and the best
WRITTEN = 250e6  # bytes of checkpoints written and digested in a second
OTHER_FILES = 2_000_000  # bytes of tokenizer, card and configuration


class Finetuning(Analysis[Inputs]):
    """Rows with the scores of each task on its dev data, and the tuned encoders in ``models/<task>``.

    Settings: `TaskConfig` by task (``tasks``).
    """

    name, order, tasks = "finetune", 10, ("finetune", "along")

    def stages(self, inputs: Inputs) -> list[Stage]:
        """Return a stage ``models/<task>`` for every task."""
        return [
            Stage(
                f"models/{name}",
                {"finetune": settings, **inputs.seeds},
                partial(self.work, inputs, name),
                product=f"models/{name}/config.json",
            )
            for name, settings in inputs.tuned.items()
        ]

    def check(self, inputs: Inputs) -> None:
        """Read the training and dev examples of every task."""
        for role in ("train", "dev"):
            for name in inputs.config.tasks:
                inputs.task(name, role)

    def work(self, inputs: Inputs, name: str) -> list[Row]:
        """Fine-tune on one task and return its scores."""
        result = finetune(inputs.driver(name), progress=inputs.progress)
        return [dataclasses.replace(row, model=name) for row in result.rows]

    def cost(self, inputs: Inputs, stages: Sequence[Stage], held: int) -> Iterator[StageCost]:
        """Yield the cost of each task."""
        for stage in stages:
            name = stage.name.partition("/")[2]
            examples = (inputs.task(name, "train"), inputs.task(name, "dev"))
            yield finetuning_cost(inputs.driver(name), *examples, stage=stage.name, held=held)


def run_finetune(chosen: dict[str, Any], out: Path, progress: Progress) -> str:
    """Run ``bertft finetune`` into ``out``; return the lines that summarise and locate the results."""
    result = finetune(FinetuneConfig(out=out, **chosen), progress=progress)
    # `finetune` makes and guards the folder; every run folder also has these two files.
    config = {"command": "finetune", **chosen}
    write_text_atomically(out / CONFIG, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    write_results(out / RESULTS, result.rows)
    scores = ", ".join(f"{name} {value:.4g}" for name, value in result.metrics.items())
    return f"{scores}\nThe encoder and its {RESULTS} are in {out.resolve()}"


def read_examples(config: FinetuneConfig) -> tuple[list[Any], list[Any]]:
    """Return the training and dev examples of a fine-tuning configuration; raise ``BertftError`` if one has none."""
    kind = get_task(config.task).kind
    train = load(kind, config.train, split="train", limit=config.max_train)
    dev = load(kind, config.dev, split=dev_split(config), limit=config.max_dev)
    if not train or not dev:
        raise BertftError(f"finetune: {config.dev if train else config.train} has no examples, expected at least one")
    return train, dev


@dataclass(frozen=True)
class _Sampled:
    """Features of a sample of examples.

    Attributes:
        features: of the sample.
        scale: examples in all, per sampled one.
        seconds: to make the features of the sample.
    """

    features: list[Any]
    scale: float
    seconds: float

    @property
    def count(self) -> float:
        return len(self.features) * self.scale

    @property
    def pieces(self) -> float:
        return sum(map(len, self.features)) * self.scale


def finetuning_cost(
    config: FinetuneConfig, train: Sequence[Any], dev: Sequence[Any], *, stage: str, held: int
) -> StageCost:
    """Return the cost of `finetune` with ``config`` on these examples, in a process that holds ``held`` bytes.

    Times an optimiser step on a small and a larger batch: a step has a fixed cost (the weights) and one per word piece.
    Times evaluation on some dev examples; it runs after every epoch and at the end. Memory counts the weights,
    gradients and Adam's two moments, the activations of a batch of the longest features, and the best weights while
    they are read back.
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
    with _without_prefix(model, config, tokenizer):
        timed = _Timed(task, model, tokenizer, config, device)
        step, saved = timed.steps(training.features)
        forward = timed.evaluation(evaluation)
    steps = math.ceil(training.count / config.batch_size) * config.epochs
    select = min(config.max_select or len(dev), len(dev)) / len(dev)
    evaluations = config.epochs * select + 1
    evaluated = evaluation.pieces * evaluations
    kept, trained = weights_of(model), weights_of(model, trained=True)
    checkpoint = kept + 2 * trained
    seconds = step.fixed * steps + step.per * training.pieces * config.epochs + forward * evaluated
    seconds += training.seconds * training.scale + evaluation.seconds * evaluation.scale * evaluations
    seconds += config.epochs * checkpoint / WRITTEN
    scratch = KEPT_CHECKPOINTS * checkpoint
    if config.prefix_cache is not None and config.freeze >= 1:
        hidden: Any = encoder.config
        scratch += int(training.pieces + evaluation.pieces) * int(hidden.hidden_size) * 4
    longest = sorted(map(len, training.features))[-(len(training.features) // 50) - 1]
    work = (
        f"{len(train):,} examples, {config.epochs} epoch{'s' if config.epochs > 1 else ''}, {steps:,} steps, "
        f"{short(training.pieces * config.epochs)} pieces; {short(evaluated)} to evaluate"
    )
    # weights, gradients, moments and activations are on the model's device; the best weights are read into memory
    memory = placed(held + kept, kept + 3 * trained + int(saved.at(longest * config.batch_size)))
    return StageCost(stage, work, seconds, kept + OTHER_FILES, scratch, *memory)


@contextlib.contextmanager
def _without_prefix(model: TaskModel, config: FinetuneConfig, tokenizer: Any) -> Iterator[None]:
    """Run the model as training does inside the block: without the frozen blocks if their output is cached."""
    if config.prefix_cache is None or config.freeze < 1:
        yield
        return
    model.prefix = FrozenCache(model.encoder, config.freeze, tokenizer, config.prefix_cache, "")
    with model.prefix.attached():
        yield
    model.prefix = None


class _Timed:
    """Timings of a task's model."""

    def __init__(self, task: Task, model: TaskModel, tokenizer: Any, config: FinetuneConfig, device: Any) -> None:
        self.task, self.model, self.tokenizer, self.config, self.device = task, model, tokenizer, config, device

    def batch(self, features: Sequence[Any]) -> dict[str, Tensor]:
        found = collate(self.task, features, self.tokenizer)
        if self.model.prefix is not None:
            encoder: Any = self.model.encoder
            found[HIDDEN] = torch.randn(*found["input_ids"].shape, encoder.config.hidden_size)
        return {name: value.to(self.device) for name, value in found.items()}

    def steps(self, features: Sequence[Any]) -> tuple[Line, Line]:
        """Return the seconds of a step and the bytes saved for its backward pass, both by the batch's word pieces.

        Batches hold features of about the mean length, neighbours in length as in training.
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
            self._step(batch, optimizer)  # the first step of a size allocates
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
        """Return the bytes that a forward pass saves for the backward pass, apart from the weights."""
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
            kept = self.model(**batch)["loss"]  # alive, so that no storage is freed and counted twice
        del kept
        return total

    def evaluation(self, sampled: _Sampled) -> float:
        """Return the seconds per word piece of predicting."""
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
    """Return some features of all lengths, at most about ``pieces`` word pieces in all, at least one feature."""
    mean = sum(map(len, features)) / len(features)
    count = min(len(features), max(1, int(pieces / mean)))
    ordered = sorted(features, key=len)
    return [ordered[int((i + 0.5) * len(ordered) / count)] for i in range(count)]
