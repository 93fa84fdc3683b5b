"""The Trainer behind ``bertft.finetune``: batches by length, two learning rates, sharded evaluation, checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Sampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import ProgressCallback

from bertft.adapters import add_lora, merge_lora
from bertft.blocks import freeze, frozen_modules, load_pretrained, quiet_transformers, truncate, window_size
from bertft.errors import BertftError
from bertft.finetune import FORMAT, PRECISIONS, FinetuneConfig, default_length, snapshot_folder, versions
from bertft.model_card import model_card
from bertft.prefix import Prefix, collate
from bertft.progress import Progress, Step
from bertft.results import write_text_atomically
from bertft.seal import digest_of, is_intact, is_sealed, seal
from bertft.tasks.base import Score, Task, TaskModel, Window, predict


class LengthGrouped(Sampler[int]):
    """Indices whose runs of ``batch_size`` are of similar length, in an order that depends on seed and epoch alone.

    A random order is cut into pools of 50 batches, each pool sorted by length and cut into batches, and the batches
    are shuffled. The last, incomplete batch stays last.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = torch.tensor(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
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
    """Scores a model on dev examples; under several processes each predicts its share and all get all scores."""

    def __init__(self, task: Task, tokenizer: Any, spec: dict[str, Any], window: Window, progress: Progress) -> None:
        self.task, self.tokenizer, self.spec, self.window, self.progress = task, tokenizer, spec, window, progress

    def features(self, examples: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """This process's share of the examples, and their features."""
        rank, world = _rank_and_world()
        mine = list(examples[rank::world])
        return mine, self.task.features(self.tokenizer, mine, self.spec, self.window, training=False)

    def predictions(self, model: TaskModel, examples: Sequence[Any]) -> list[Any]:
        """One prediction an example, in order."""
        _, world = _rank_and_world()
        mine, features = self.features(examples)
        held = features if model.prefix is None else model.prefix.hold(features)
        with self.progress.step(f"evaluate {self.task.name}", total=len(features), unit="features") as step:
            outputs = predict(self.task, model, self.tokenizer, held, step=step)
        decoded = self.task.decode(mine, features, outputs)
        if world == 1:
            return decoded
        shares: list[Any] = [None] * world
        torch.distributed.all_gather_object(shares, decoded)
        found: list[Any] = [None] * len(examples)
        for other, share in enumerate(shares):
            found[other::world] = share
        return found

    def scores(self, model: TaskModel, examples: Sequence[Any]) -> dict[str, Score]:
        return self.task.score(examples, self.predictions(model, examples))


class _TaskTrainer(Trainer):
    """The Trainer with our sampler, optimiser groups and evaluation."""

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
        if self.optimizer is None:
            self.optimizer = make_optimizer(self.model, self.config)
        return self.optimizer

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
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
        """The weights alone; the finished folder has the rest."""
        if self.args.should_save:
            from safetensors.torch import save_file

            output_dir = output_dir or self.args.output_dir
            os.makedirs(output_dir, exist_ok=True)
            weights = {key: value.contiguous() for key, value in self.model.state_dict().items()}
            save_file(weights, os.path.join(output_dir, "model.safetensors"), metadata={"format": "pt"})


def make_optimizer(model: TaskModel, config: FinetuneConfig) -> torch.optim.AdamW:
    """AdamW over what is not frozen: encoder and head at their own rates, weight decay on matrices only."""
    groups = []
    for part, rate in ((model.encoder, config.learning_rate), (model.head, config.head_learning_rate)):
        trained = [p for p in part.parameters() if p.requires_grad]
        groups.append({"params": [p for p in trained if p.ndim > 1], "lr": rate, "weight_decay": config.weight_decay})
        groups.append({"params": [p for p in trained if p.ndim <= 1], "lr": rate, "weight_decay": 0.0})
    return torch.optim.AdamW([group for group in groups if group["params"]], fused=True)


class _Reporter(TrainerCallback):
    """Moves the progress bar; remembers the seconds spent, over interruptions too."""

    def __init__(self, progress: Progress, name: str, clock: Path, measure: str) -> None:
        self.progress, self.name, self.clock, self.measure = progress, name, clock, measure
        self.before = float(clock.read_text()) if clock.exists() else 0.0
        self.start = time.monotonic()
        self.bar: Step | None = None
        self.done = 0

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self.start

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar = self.progress.step(f"fine-tune {self.name}", total=state.max_steps, unit="steps").__enter__()
        self.bar.advance(state.global_step)
        self.done = state.global_step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.advance(state.global_step - self.done)
            self.done = state.global_step

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        if self.bar is not None and metrics:
            self.bar.note(f"epoch {state.epoch:.0f}: {self.measure} {metrics[f'eval_{self.measure}']:.4g}")

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            write_text_atomically(self.clock, f"{self.seconds:.3f}\n")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.close()

    def close(self) -> None:
        if self.bar is not None:
            bar, self.bar = self.bar, None
            bar.__exit__(None, None, None)


class _Snapshots(TrainerCallback):
    """Saves the encoder once certain shares of the steps are done, as a model folder each."""

    def __init__(self, config: FinetuneConfig, encoder: Any, tokenizer: Any) -> None:
        self.config, self.encoder, self.tokenizer = config, encoder, tokenizer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._save(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._save(state)

    def _save(self, state: Any) -> None:
        for percent in self.config.snapshots:
            folder = snapshot_folder(self.config, percent)
            due = state.global_step == math.ceil(percent * state.max_steps / 100)
            if due and state.is_world_process_zero and not folder.exists():
                fresh = folder.parent / f".{folder.name}.{os.getpid()}"
                self.encoder.save_pretrained(fresh)
                self.tokenizer.save_pretrained(fresh)
                os.replace(fresh, folder)


def train_and_save(
    task: Task,
    config: FinetuneConfig,
    train: Sequence[Any],
    dev: Sequence[Any],
    identity: dict[str, Any],
    progress: Progress,
) -> dict[str, Any]:
    """Train, score on dev, write the folder; returns the card that ``bertft.json`` holds."""
    out = Path(config.out)
    work = out.parent / f".{out.name}.training"
    encoder, tokenizer = load_pretrained(config.model)
    window = window_for(config, encoder, tokenizer)
    # Features first: bad examples are found before anything is written.
    spec = task.spec(train)
    with progress.step(f"tokenise {task.name}", unit="examples") as bar:
        features = task.features(tokenizer, train, spec, window, training=True)
        bar.advance(len(train))
    if not features:
        raise BertftError(f"finetune: {config.train} leaves no training feature at max_length {window.max_length}")
    model = build_model(task, encoder, spec, config)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    arguments = _arguments(config, work, task.select)
    _open_work_folder(work, identity)
    reporter = _Reporter(progress, task.name, work / "seconds", task.select)
    evaluator = Evaluator(task, tokenizer, spec, window, progress)
    select = dev[: config.max_select]
    with contextlib.ExitStack() as during:
        if config.prefix_cache is not None and config.freeze >= 1:
            model.prefix = Prefix(encoder, config.freeze, tokenizer, config.prefix_cache, identity["model"], progress)
            features = model.prefix.hold(features)
            for examples in (select, dev):
                model.prefix.hold(evaluator.features(examples)[1])
            during.enter_context(model.prefix.attached())
        during.enter_context(quiet_transformers())
        trainer = _TaskTrainer(
            config,
            evaluator,
            select,
            model=model,
            args=arguments,
            train_dataset=features,
            eval_dataset=select,
            data_collator=lambda rows: collate(task, rows, tokenizer),
            callbacks=[reporter, *([_Snapshots(config, encoder, tokenizer)] if config.snapshots else [])],
        )
        try:
            trainer.train(resume_from_checkpoint=_last_checkpoint(work))
        finally:
            reporter.close()
        scores = evaluator.scores(trainer.model, dev)
    model.prefix = None
    card = {
        "format": FORMAT,
        "task": task.name,
        "config": {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(config).items()},
        "identity": identity,
        "spec": spec,
        "window": dataclasses.asdict(window),
        "scores": describe(scores, config.seed),
        "history": [entry for entry in trainer.state.log_history if any(key.startswith("eval_") for key in entry)],
        "features": len(features),
        "trained_parameters": trained,
        "seconds": round(reporter.seconds, 1),
        "versions": versions(),
    }
    if config.lora is not None:
        merge_lora(encoder)
    if trainer.args.should_save:
        write_folder(out, trainer.model, tokenizer, card)
        shutil.rmtree(work, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    return card


def describe(scores: dict[str, Score], seed: int) -> dict[str, dict[str, Any]]:
    """Scores as JSON: value, the 95 % interval of 1,000 seeded resamples of the items, and the number of items."""
    found = {}
    for name, score in scores.items():
        low, high = score.interval(seed)
        found[name] = {"value": score.value, "low": low, "high": high, "n": len(score.numerators)}
    return found


def build_model(task: Task, encoder: nn.Module, spec: dict[str, Any], config: FinetuneConfig) -> TaskModel:
    """Encoder, cut and frozen as asked, under a head drawn from the seed."""
    if config.truncate is not None:
        truncate(encoder, config.truncate)
    freeze(encoder, config.freeze)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        head = task.head(encoder, spec)
        if config.lora is not None:
            add_lora(encoder, config.lora)
    if isinstance(pooler := getattr(encoder, "pooler", None), nn.Module):
        pooler.requires_grad_(head.uses_pooler)  # if no gradient reaches it, several processes do not forgive that
    return TaskModel(encoder, head, frozen_modules(encoder, config.freeze))


def write_folder(out: Path, model: TaskModel, tokenizer: Any, card: dict[str, Any]) -> None:
    """The finished folder, made beside its place and renamed into it."""
    from safetensors.torch import save_file

    fresh = out.parent / f".{out.name}.{os.getpid()}"
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        with quiet_transformers():
            encoder: Any = model.encoder
            encoder.save_pretrained(fresh)
            tokenizer.save_pretrained(fresh)
        save_file({k: v.contiguous().cpu() for k, v in model.head.state_dict().items()}, fresh / "head.safetensors")
        card = {**card, "sha256": {path.name: digest_of(path) for path in sorted(fresh.glob("*.safetensors"))}}
        (fresh / "bertft.json").write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf8")
        (fresh / "README.md").write_text(model_card(card), encoding="utf8")
        for path in fresh.iterdir():
            path.chmod(0o644)  # safetensors writes files that only their owner reads
        os.replace(fresh, out)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def window_for(config: FinetuneConfig, encoder: nn.Module, tokenizer: Any) -> Window:
    """How inputs are cut: as asked, or the task's usual length, at most the model's window."""
    limit = window_size(encoder, tokenizer)
    length = config.max_length or min(default_length(config.task), limit)
    if length > limit:
        raise BertftError(f"finetune: max_length must be at most {limit}, the window of {config.model}, found {length}")
    return Window(length, config.stride)


def _arguments(config: FinetuneConfig, work: Path, select: str) -> TrainingArguments:
    if config.fp16 and not torch.accelerator.is_available():  # the Trainer would train in float32 and say nothing
        raise BertftError("finetune: fp16: expected a GPU, found none; a CPU has bf16")
    try:
        arguments = _training_arguments(config, work, select)
    except (ValueError, ImportError) as error:  # what this device or this torch does not have
        asked = ", ".join(name for name in PRECISIONS if getattr(config, name))
        raise BertftError(f"finetune: {asked or 'these settings'}: {' '.join(str(error).split())}") from None
    arguments._n_gpu = min(arguments.n_gpu, 1)  # packed batches cannot be scattered: torchrun drives several devices
    return arguments


def _training_arguments(config: FinetuneConfig, work: Path, select: str) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(work),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,
        lr_scheduler_type="linear",
        warmup_steps=config.warmup,
        max_grad_norm=config.max_grad_norm,
        bf16=config.bf16,
        fp16=config.fp16,
        tf32=config.tf32 or None,
        seed=config.seed,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,  # the last one, and the best where that is another
        load_best_model_at_end=True,
        metric_for_best_model=select,
        greater_is_better=True,
        logging_strategy="no",
        use_cpu=not torch.accelerator.is_available(),
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=torch.cuda.is_available(),
    )


def _open_work_folder(work: Path, identity: dict[str, Any]) -> None:
    """Keep the folder of an interrupted run of this very configuration, else start an empty one (rank zero)."""
    rank, world = _rank_and_world()
    if rank == 0:
        note = work / "identity.json"
        text = json.dumps(identity, indent=1)
        if not (note.exists() and note.read_text(encoding="utf8") == text):
            shutil.rmtree(work, ignore_errors=True)
            write_text_atomically(note, text)
        found = list(work.glob("checkpoint-*"))
        # One without a seal was being written; of damaged ones none is trusted, for they speak of each other.
        damaged = any(is_sealed(folder) and not is_intact(folder) for folder in found)
        for folder in found:
            if damaged or not is_sealed(folder):
                shutil.rmtree(folder, ignore_errors=True)
    if world > 1:
        torch.distributed.barrier()


def _last_checkpoint(work: Path) -> str | None:
    found = sorted(work.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    return str(found[-1]) if found else None


def _rank_and_world() -> tuple[int, int]:
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
