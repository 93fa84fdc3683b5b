"""Training, from a model and examples to a finished folder."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import platform
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from bertft.errors import BertftError
from bertft.models.adapters import merge_lora
from bertft.models.finetuning.assembly import build_model, window_for
from bertft.models.finetuning.card import FORMAT, model_card
from bertft.models.finetuning.config import PRECISIONS, FinetuneConfig
from bertft.models.finetuning.identity import on_the_hub, published
from bertft.models.finetuning.trainer import Evaluator, Reporter, Snapshots, TaskTrainer, rank_and_world
from bertft.models.frozen_cache import FrozenCache, collate
from bertft.models.loading import load_pretrained, quiet_transformers
from bertft.models.tasks.base import Score, Task, TaskModel, Window
from bertft.runs.digests import digest_of, is_intact, is_sealed
from bertft.runs.files import appearing_folder, write_text_atomically
from bertft.runs.progress import Progress
from bertft.runs.versions import package_versions


@dataclass
class _Prepared:
    """Inputs of the training, made before anything is written."""

    task: Task
    config: FinetuneConfig
    tokenizer: Any
    model: TaskModel
    features: list[Any]
    spec: dict[str, Any]
    window: Window
    trained_parameters: int


def train_and_save(
    task: Task,
    config: FinetuneConfig,
    train: Sequence[Any],
    dev: Sequence[Any],
    identity: dict[str, Any],
    progress: Progress,
) -> dict[str, Any]:
    """Train or resume, score on ``dev``, write the folder, and return the card that ``bertft.json`` holds."""
    out = Path(config.out)
    work = out.parent / f".{out.name}.training"
    prepared = _prepare(task, config, train, progress)
    model, tokenizer = prepared.model, prepared.tokenizer
    arguments = _arguments(config, work, task.select)
    _open_work_folder(work, identity)
    reporter = Reporter(progress, task.name, work / "seconds", task.select)
    evaluator = Evaluator(task, tokenizer, prepared.spec, prepared.window, progress)
    select = dev[: config.max_select]
    with _frozen_cached(prepared, evaluator, (select, dev), identity["model"], progress), quiet_transformers():
        trainer = TaskTrainer(
            config,
            evaluator,
            select,
            model=model,
            args=arguments,
            train_dataset=prepared.features,
            eval_dataset=select,
            data_collator=lambda rows: collate(task, rows, tokenizer),
            callbacks=[reporter, *([Snapshots(config, model.encoder, tokenizer)] if config.snapshots else [])],
        )
        try:
            trainer.train(resume_from_checkpoint=_last_checkpoint(work))
        finally:
            reporter.close()
        scores = evaluator.scores(trainer.model, dev)
    card = _card(prepared, identity, describe(scores, config.seed), trainer.state.log_history, reporter.seconds)
    if config.lora is not None:
        merge_lora(model.encoder)
    if trainer.args.should_save:
        write_folder(out, trainer.model, tokenizer, card)
        if (logs := work / "runs").is_dir():  # where TensorBoard's reporter writes
            shutil.copytree(logs, out.parent / f"{out.name}.logs", dirs_exist_ok=True)
        shutil.rmtree(work, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    return card


def _prepare(task: Task, config: FinetuneConfig, train: Sequence[Any], progress: Progress) -> _Prepared:
    """Load the encoder, tokenise the training examples and build the model; bad input is refused before any write."""
    encoder, tokenizer = load_pretrained(config.model)
    window = window_for(config, encoder, tokenizer)
    spec = task.spec(train)
    with progress.step(f"tokenise {task.name}", unit="examples") as bar:
        features = task.features(tokenizer, train, spec, window, training=True)
        bar.advance(len(train))
    if not features:
        raise BertftError(f"finetune: {config.train} leaves no training feature at max_length {window.max_length}")
    model = build_model(task, encoder, spec, config)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return _Prepared(task, config, tokenizer, model, features, spec, window, trained)


@contextlib.contextmanager
def _frozen_cached(
    prepared: _Prepared, evaluator: Evaluator, evaluated: Sequence[Sequence[Any]], digest: str, progress: Progress
) -> Iterator[None]:
    """Run only the trained blocks inside the context, on the cached output of the frozen ones.

    Without ``prefix_cache``, or with no frozen block, the whole model runs. ``evaluated`` are the sets of examples that
    will be scored: their features are cached now, while the model still has its frozen blocks.
    """
    config, model = prepared.config, prepared.model
    if config.prefix_cache is None or config.freeze < 1:
        yield
        return
    cache = FrozenCache(model.encoder, config.freeze, prepared.tokenizer, config.prefix_cache, digest, progress)
    model.prefix = cache
    prepared.features = cache.cached(prepared.features)
    for examples in evaluated:
        cache.cached(evaluator.features(examples)[1])
    with cache.attached():
        yield
    model.prefix = None


def _card(
    prepared: _Prepared,
    identity: dict[str, Any],
    scores: dict[str, dict[str, Any]],
    log: Sequence[dict[str, float]],
    seconds: float,
) -> dict[str, Any]:
    """Return the content of ``bertft.json``, without the digests of the folder's files."""
    versions = package_versions(("bertft", "torch", "transformers", "accelerate", "tokenizers", "numpy"))
    return {
        "format": FORMAT,
        "task": prepared.task.name,
        "config": published(prepared.config),
        "hub": on_the_hub(prepared.config),
        "identity": identity,
        "spec": prepared.spec,
        "window": dataclasses.asdict(prepared.window),
        "scores": scores,
        "history": [entry for entry in log if any(key.startswith("eval_") for key in entry)],
        "features": len(prepared.features),
        "trained_parameters": prepared.trained_parameters,
        "seconds": round(seconds, 1),
        "versions": {"bertft": versions.pop("bertft"), "python": platform.python_version(), **versions},
    }


def describe(scores: dict[str, Score], seed: int) -> dict[str, dict[str, Any]]:
    """Return scores as JSON: ``value``, the 95 % interval ``low`` to ``high``, and ``n``, the number of items.

    The interval is a percentile bootstrap of 1,000 resamples of the items, drawn with ``seed``.
    """
    described = {}
    for name, score in scores.items():
        low, high = score.interval(seed)
        described[name] = {"value": score.value, "low": low, "high": high, "n": len(score.numerators)}
    return described


def write_folder(out: Path, model: TaskModel, tokenizer: Any, card: dict[str, Any]) -> None:
    """Write the finished folder under a temporary name beside ``out``, then rename it."""
    from safetensors.torch import save_file

    with appearing_folder(out) as fresh:
        with quiet_transformers():
            encoder: Any = model.encoder
            encoder.save_pretrained(fresh)
            tokenizer.save_pretrained(fresh)
        save_file({k: v.contiguous().cpu() for k, v in model.head.state_dict().items()}, fresh / "head.safetensors")
        card = {**card, "sha256": {path.name: digest_of(path) for path in sorted(fresh.iterdir()) if path.is_file()}}
        (fresh / "bertft.json").write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf8")
        (fresh / "README.md").write_text(model_card(card), encoding="utf8")
        for path in filter(Path.is_file, fresh.iterdir()):
            path.chmod(0o644)  # safetensors makes its files readable by their owner only


def _arguments(config: FinetuneConfig, work: Path, select: str) -> TrainingArguments:
    if config.fp16 and not torch.accelerator.is_available():  # the Trainer would silently train in float32
        raise BertftError("finetune: fp16: expected a GPU, found none; a CPU has bf16")
    try:
        arguments = _training_arguments(config, work, select)
    except (ValueError, ImportError) as error:  # not supported by this device or this version of torch
        asked = ", ".join(name for name in PRECISIONS if getattr(config, name))
        raise BertftError(f"finetune: {asked or 'these settings'}: {' '.join(str(error).split())}") from None
    arguments._n_gpu = min(arguments.n_gpu, 1)  # DataParallel cannot scatter packed batches; use torchrun instead
    return arguments


def reporters(report_to: str) -> list[str]:
    """Return the Trainer's reporters that ``report_to`` names; raise ``BertftError`` if one is not installed."""
    from transformers.integrations import get_available_reporting_integrations

    available = get_available_reporting_integrations()
    if report_to in ("none", "all"):
        return available if report_to == "all" else []
    asked = [name.strip() for name in report_to.split(",")]
    if missing := [name for name in asked if name not in available]:
        installed = ", ".join(available) or "no reporter"
        raise BertftError(f"finetune: report_to: expected what is installed ({installed}), found {missing[0]!r}")
    return asked


def _training_arguments(config: FinetuneConfig, work: Path, select: str) -> TrainingArguments:
    asked = reporters(config.report_to)
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
        save_total_limit=1,  # the last one, and the best one if it is another
        load_best_model_at_end=True,
        metric_for_best_model=select,
        greater_is_better=True,
        logging_strategy="steps" if asked else "no",
        logging_steps=config.logging_steps,
        use_cpu=not torch.accelerator.is_available(),
        report_to=asked or "none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=torch.cuda.is_available(),
    )


def _open_work_folder(work: Path, identity: dict[str, Any]) -> None:
    """Keep the checkpoints of an interrupted run with the same identity, else start an empty folder (rank 0 only)."""
    rank, world = rank_and_world()
    if rank == 0:
        note = work / "identity.json"
        text = json.dumps(identity, indent=1)
        if not (note.exists() and note.read_text(encoding="utf8") == text):
            shutil.rmtree(work, ignore_errors=True)
            write_text_atomically(note, text)
        checkpoints = list(work.glob("checkpoint-*"))
        # A checkpoint without a manifest was not finished. If one is damaged, none is used: they refer to each other.
        damaged = any(is_sealed(folder) and not is_intact(folder) for folder in checkpoints)
        for folder in checkpoints:
            if damaged or not is_sealed(folder):
                shutil.rmtree(folder, ignore_errors=True)
    if world > 1:
        torch.distributed.barrier()


def _last_checkpoint(work: Path) -> str | None:
    checkpoints = sorted(work.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    return str(checkpoints[-1]) if checkpoints else None
