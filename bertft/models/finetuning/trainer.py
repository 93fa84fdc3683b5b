"""Parts of the Trainer.

Batches, optimiser, evaluation and callbacks.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Sampler
from transformers import PrinterCallback, Trainer, TrainerCallback
from transformers.trainer_callback import ProgressCallback

from bertft.models.finetuning.assembly import make_optimizer
from bertft.models.finetuning.config import FinetuneConfig, snapshot_folder
from bertft.models.tasks.base import Score, Task, TaskModel, Window, predict
from bertft.runs.digests import seal
from bertft.runs.files import appearing_folder, write_text_atomically
from bertft.runs.progress import Progress, Step


class LengthGrouped(Sampler[int]):
    """Indices in an order whose batches hold examples of similar length.

    A random order is cut into pools of 50 batches, each pool is sorted by length and cut into batches, and the batches
    are shuffled. An incomplete last batch stays last. The order depends only on seed and epoch, so that a resumed run
    sees the same batches.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = torch.tensor(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator)
        pools = order.split(50 * self.batch_size)
        order = torch.cat([pool[self.lengths[pool].argsort(stable=True)] for pool in pools])
        batches = list(order.split(self.batch_size))
        last = [batches.pop()] if len(batches[-1]) < self.batch_size else []
        shuffled = [batches[i] for i in torch.randperm(len(batches), generator=generator)]
        return iter(torch.cat([*shuffled, *last]).tolist())


class Evaluator:
    """Predictions and scores of a model; several processes share the examples, and each returns all results."""

    def __init__(self, task: Task, tokenizer: Any, spec: dict[str, Any], window: Window, progress: Progress) -> None:
        self.task, self.tokenizer, self.spec, self.window, self.progress = task, tokenizer, spec, window, progress

    def features(self, examples: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """Return this process's share of the examples, and the features of that share."""
        rank, world = rank_and_world()
        mine = list(examples[rank::world])
        return mine, self.task.features(self.tokenizer, mine, self.spec, self.window, training=False)

    def predictions(self, model: TaskModel, examples: Sequence[Any]) -> list[Any]:
        """Return one prediction for each example, in order."""
        _, world = rank_and_world()
        mine, features = self.features(examples)
        inputs = features if model.prefix is None else model.prefix.cached(features)
        with self.progress.step(f"evaluate {self.task.name}", total=len(features), unit="features") as step:
            outputs = predict(self.task, model, self.tokenizer, inputs, step=step)
        decoded = self.task.decode(mine, features, outputs)
        if world == 1:
            return decoded
        shares: list[Any] = [None] * world
        torch.distributed.all_gather_object(shares, decoded)
        predictions: list[Any] = [None] * len(examples)
        for rank, share in enumerate(shares):
            predictions[rank::world] = share
        return predictions

    def scores(self, model: TaskModel, examples: Sequence[Any]) -> dict[str, Score]:
        """Return the task's scores of the predictions, by measure."""
        return self.task.score(examples, self.predictions(model, examples))


class TaskTrainer(Trainer):
    """Hugging Face's Trainer with length-grouped batches, two learning rates and the task's evaluation."""

    optimizer: Any
    control: Any

    def __init__(self, config: FinetuneConfig, evaluator: Evaluator, select: Sequence[Any], **options: Any) -> None:
        super().__init__(**options)
        self.config = config
        self.evaluator = evaluator
        self.select = select
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthGrouped:
        data = self.train_dataset if train_dataset is None else train_dataset
        return LengthGrouped([len(feature) for feature in data], self.config.batch_size, self.config.seed)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Return the optimiser of `make_optimizer`, made at the first call."""
        if self.optimizer is None:
            self.optimizer = make_optimizer(self.model, self.config)
        return self.optimizer

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Score the model on the examples that choose the best epoch, and log the scores."""
        scores = self.evaluator.scores(self.model, self.select)
        metrics = {f"eval_{name}": score.value for name, score in scores.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save_checkpoint(self, *arguments: Any, **options: Any) -> None:
        super()._save_checkpoint(*arguments, **options)
        if self.args.should_save:
            seal(os.path.join(self.args.output_dir, f"checkpoint-{self.state.global_step}"))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Save only the weights; other files are written with the finished folder."""
        if self.args.should_save:
            from safetensors.torch import save_file

            output_dir = output_dir or self.args.output_dir
            os.makedirs(output_dir, exist_ok=True)
            weights = {key: value.contiguous() for key, value in self.model.state_dict().items()}
            save_file(weights, os.path.join(output_dir, "model.safetensors"), metadata={"format": "pt"})


class Reporter(TrainerCallback):
    """Callback that advances the progress bar and stores the seconds spent in ``clock``, across interruptions."""

    def __init__(self, progress: Progress, name: str, clock: Path, measure: str) -> None:
        self.progress, self.name, self.clock, self.measure = progress, name, clock, measure
        self.before = float(clock.read_text()) if clock.exists() else 0.0
        self.start = time.monotonic()
        self.bar: Step | None = None
        self.done = 0

    @property
    def seconds(self) -> float:
        """Seconds spent so far, those before an interruption included."""
        return self.before + time.monotonic() - self.start

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the progress bar at the step that a resumed run has reached."""
        self.bar = self.progress.step(f"fine-tune {self.name}", total=state.max_steps, unit="steps").__enter__()
        self.bar.advance(state.global_step)
        self.done = state.global_step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Advance the progress bar."""
        if self.bar is not None:
            self.bar.advance(state.global_step - self.done)
            self.done = state.global_step

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        """Show the score beside the progress bar."""
        if self.bar is not None and metrics:
            self.bar.note(f"epoch {state.epoch:.0f}: {self.measure} {metrics[f'eval_{self.measure}']:.4g}")

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the seconds spent."""
        if state.is_world_process_zero:
            write_text_atomically(self.clock, f"{self.seconds:.3f}\n")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the progress bar."""
        self.close()

    def close(self) -> None:
        """Close the progress bar if it is open."""
        if self.bar is not None:
            bar, self.bar = self.bar, None
            bar.__exit__(None, None, None)


class Snapshots(TrainerCallback):
    """Callback that saves the encoder as a model folder after each percentage of steps in ``config.snapshots``."""

    def __init__(self, config: FinetuneConfig, encoder: Any, tokenizer: Any) -> None:
        self.config, self.encoder, self.tokenizer = config, encoder, tokenizer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save the snapshot of 0 %."""
        self._save(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save a snapshot if one is due at this step."""
        self._save(state)

    def _save(self, state: Any) -> None:
        for percent in self.config.snapshots:
            folder = snapshot_folder(self.config, percent)
            due = state.global_step == math.ceil(percent * state.max_steps / 100)
            if due and state.is_world_process_zero and not folder.exists():
                with appearing_folder(folder) as fresh:
                    self.encoder.save_pretrained(fresh)
                    self.tokenizer.save_pretrained(fresh)


def rank_and_world() -> tuple[int, int]:
    """Return this process's rank and the number of processes; (0, 1) if training is not distributed."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
