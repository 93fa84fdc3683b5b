"""The work behind ``bertft.models.finetuning.run``: a run of the Trainer that can be cut off, and the folder it ends in."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainingArguments

from bertft.errors import BertftError
from bertft.models.adapters import add_lora, merge_lora
from bertft.models.blocks import freeze, frozen_modules, load_pretrained, quiet_transformers, truncate, window_size
from bertft.models.finetuning.card import model_card
from bertft.models.finetuning.run import (
    FORMAT,
    PRECISIONS,
    FinetuneConfig,
    default_length,
    on_the_hub,
    published,
    versions,
)
from bertft.models.finetuning.trainer import Evaluator, Reporter, Snapshots, TaskTrainer, rank_and_world
from bertft.models.frozen_cache import Prefix, collate
from bertft.models.tasks.base import Score, Task, TaskModel, Window
from bertft.runs.digests import digest_of, is_intact, is_sealed
from bertft.runs.progress import Progress
from bertft.runs.rows import appearing_folder, write_text_atomically


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
    reporter = Reporter(progress, task.name, work / "seconds", task.select)
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
        trainer = TaskTrainer(
            config,
            evaluator,
            select,
            model=model,
            args=arguments,
            train_dataset=features,
            eval_dataset=select,
            data_collator=lambda rows: collate(task, rows, tokenizer),
            callbacks=[reporter, *([Snapshots(config, encoder, tokenizer)] if config.snapshots else [])],
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
        "config": published(config),
        "hub": on_the_hub(config),
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
        if (logs := work / "runs").is_dir():  # where TensorBoard's reporter writes
            shutil.copytree(logs, out.parent / f"{out.name}.logs", dirs_exist_ok=True)
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
            path.chmod(0o644)  # safetensors writes files that only their owner reads


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


def reporters(report_to: str) -> list[str]:
    """The Trainer's reporters that are asked for, each seen to be there."""
    from transformers.integrations import get_available_reporting_integrations

    there = get_available_reporting_integrations()
    if report_to in ("none", "all"):
        return there if report_to == "all" else []
    asked = [name.strip() for name in report_to.split(",")]
    if missing := [name for name in asked if name not in there]:
        installed = ", ".join(there) or "no reporter"
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
        save_total_limit=1,  # the last one, and the best where that is another
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
    """Keep the folder of an interrupted run of this very configuration, else start an empty one (rank zero)."""
    rank, world = rank_and_world()
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
