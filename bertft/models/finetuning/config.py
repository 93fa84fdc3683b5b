"""Settings of a fine-tuning run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from bertft.data import location
from bertft.errors import BertftError
from bertft.runs.settings import Amount, Count, Percent, Positive, Settings, Share, Size, Within, check

REPORTING = ("report_to", "logging_steps")  # settings that do not affect what is trained
PRECISIONS = ("bf16", "fp16", "tf32")


@dataclass(frozen=True)
class FinetuneConfig(Settings):
    """Settings of a fine-tuning run.

    Args:
        task: one of ``bertft.models.tasks.names()``.
        model: a folder, a Hugging Face id or ``builtin:minilm``. A branch, a tag (``id@revision``) or main on the hub
            is replaced by the commit it points to when the run begins.
        train: source of the training examples, see ``bertft.data.sources.load``; pinned to a commit like ``model``.
        dev: source of the dev examples, likewise.
        out: the folder to create.
        epochs: passes over the training examples.
        learning_rate: peak rate of the encoder, reached by a linear warm-up and followed by a linear decay to 0.
        head_learning_rate: peak rate of the head.
        batch_size: features (sentences, pairs or windows) for each process and step.
        max_length: longest input in word pieces, special tokens included (default: 512 for dep, 128 for mnli, 384 for
            squad, at most the model's window).
        stride: word pieces shared by two windows of one passage (squad).
        seed: of the head's weights, the order of the batches and dropout.
        freeze: freeze the embeddings and blocks 1..k (`bertft.models.blocks.freeze`); -1 freezes nothing.
        truncate: drop the blocks above k (`bertft.models.blocks.truncate`).
        lora: rank of a LoRA on each linear map of the blocks, trained instead of the encoder's own weights. The
            finished folder holds the merged encoder.
        snapshots: percentages of the steps after which the encoder is also saved, see `snapshot_folder`.
        prefix_cache: a folder for the output of the frozen blocks, shared between runs (`bertft.models.frozen_cache`).
        bf16: train in mixed precision, as Hugging Face's ``TrainingArguments``. Evaluation and the saved weights are
            float32 in any case.
        fp16: likewise.
        tf32: likewise.
        max_train: number of training examples, drawn at random but always the same.
        max_dev: number of dev examples, likewise.
        max_select: number of dev examples, from the first, that choose the best epoch (default: all). Scores are
            those of all.
        warmup: share of the steps in which the rates rise, in [0, 1).
        weight_decay: of matrices; vectors have none.
        max_grad_norm: gradients are clipped to this norm.
        dev_name: name of the dev data in rows.
        dev_split: split of a dev source that has several.
        report_to: reporters of the Trainer separated by commas (``tensorboard,wandb``), ``all`` that are installed, or
            ``none``. They receive the loss and the learning rate every ``logging_steps`` steps, and the scores after
            each epoch. The files of TensorBoard are moved to ``<out>.logs``.
        logging_steps: steps between reports.
    """

    task: str
    model: str
    train: str
    dev: str
    out: str | Path
    epochs: Size = 3
    learning_rate: Positive = 1e-4
    head_learning_rate: Positive = 1e-3
    batch_size: Size = 32
    max_length: Size | None = None
    stride: Count = 128
    seed: int = 1337
    freeze: Annotated[int, Within(ge=-1)] = -1
    truncate: int | None = None
    lora: Size | None = None
    snapshots: tuple[Percent, ...] = ()
    prefix_cache: str | Path | None = None
    bf16: bool = False
    fp16: bool = False
    tf32: bool = False
    max_train: Size | None = None
    max_dev: Size | None = None
    max_select: Size | None = None
    warmup: Share = 0.1
    weight_decay: Amount = 0.01
    max_grad_norm: Positive = 1.0
    dev_name: str | None = None
    dev_split: str | None = None
    report_to: str = "none"
    logging_steps: Size = 50


def check_config(config: FinetuneConfig) -> None:
    """Raise ``BertftError`` if a setting is out of range or two settings exclude each other."""
    check(config, "finetune")
    if config.bf16 and config.fp16:
        raise BertftError("finetune: expected bf16 or fp16, found both")
    if config.lora is not None and config.freeze >= 0:
        raise BertftError(f"finetune: lora trains every block, so it excludes freeze, found freeze {config.freeze}")
    if config.snapshots and (config.lora is not None or config.prefix_cache is not None):
        raise BertftError("finetune: snapshots save whole encoders, so they exclude lora and prefix_cache")


def pinned(config: FinetuneConfig) -> FinetuneConfig:
    """Return ``config`` with each repository on the hub pinned to its current commit."""
    return dataclasses.replace(
        config,
        model=location.pin(config.model, "model"),
        train=location.pin(config.train),
        dev=location.pin(config.dev),
    )


def data_name(source: str | Path) -> str:
    """Return the name of a source in rows: `bertft.data.location.data_name`, but with the options of built-in data."""
    return str(source) if str(source).startswith("builtin:") else location.data_name(source)


def dev_name(config: FinetuneConfig) -> str:
    """Return the name of the dev data in rows: ``config.dev_name``, else that of the file or folder (`data_name`)."""
    return config.dev_name or data_name(config.dev)


def dev_split(config: FinetuneConfig) -> str:
    """Return the split to read from a dev source with several: ``config.dev_split``, else the usual one of the task."""
    if config.dev_split is not None:
        return config.dev_split
    if str(config.dev).startswith("builtin:"):
        return "dev"
    return "validation_matched" if config.task == "mnli" else "validation"


def default_length(task: str) -> int:
    """Return the default of ``max_length`` for a task, in word pieces."""
    from bertft.models.tasks import get_task

    return get_task(task).max_length


def snapshot_folder(config: FinetuneConfig, percent: int) -> Path:
    """Return the folder of the encoder saved after ``percent`` of the steps."""
    out = Path(config.out)
    return out.parent / f"{out.name}.snapshots" / f"{percent:03d}"
