"""Fine-tuning of an encoder on any task.

The tasks are those of ``bertft.models.tasks``.

A finished folder holds the encoder (``AutoModel.from_pretrained`` loads it), its tokenizer, ``head.safetensors`` and
``bertft.json`` with configuration, label set, scores, versions and duration. It appears complete or not at all. During
training, checkpoints are kept in a hidden folder beside it; a run that was killed resumes from them with the same
result. A second process that asks for the same folder is refused. Under ``torchrun`` or ``accelerate launch`` the
processes share the batches and the evaluation, and rank 0 writes.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertft.data import sources
from bertft.errors import BertftError
from bertft.models.finetuning.card import read_card
from bertft.models.finetuning.config import FinetuneConfig, check_config, dev_name, dev_split, pinned
from bertft.models.finetuning.identity import differing_settings, identity_of
from bertft.models.tasks import get_task
from bertft.runs.digests import refuse_changed_files
from bertft.runs.locks import claimed
from bertft.runs.progress import SILENT, Progress
from bertft.runs.rows import Row

__all__ = ["FinetuneResult", "finetune", "score_rows"]


@dataclass(frozen=True)
class FinetuneResult:
    """A finished folder, its scores by measure, the same scores as rows with intervals, and the training's seconds."""

    folder: Path
    metrics: dict[str, float]
    rows: list[Row]
    seconds: float


def finetune(config: FinetuneConfig, *, progress: Progress = SILENT) -> FinetuneResult:
    """Fine-tune an encoder, score its best epoch on the dev data and write the folder ``config.out``.

    A folder that the same configuration has finished is returned at once, and a run that was killed resumes from its
    last epoch. Configurations are compared by the content of the model and the examples, not by their paths.

    Raises:
        BertftError: for bad settings or input, if the folder holds anything else, and if another process works on it.
    """
    task = get_task(config.task)
    check_config(config)
    config = pinned(config)
    with progress.step("read the corpora", total=2, unit="files") as bar:
        train = sources.load(task.kind, config.train, split="train", limit=config.max_train)
        bar.advance()
        dev = sources.load(task.kind, config.dev, split=dev_split(config), limit=config.max_dev)
        bar.advance()
    if not train or not dev:
        raise BertftError(f"finetune: {config.dev if train else config.train} has no examples, expected at least one")
    identity = identity_of(config, train, dev)
    if finished := _finished(config, identity):
        return finished

    from bertft.models.finetuning.training import train_and_save  # imports the Trainer, which takes seconds

    leads = os.environ.get("RANK", "0") == "0"  # set by torchrun; only rank 0 locks the folder
    with claimed(config.out) if leads else contextlib.nullcontext():
        if finished := _finished(config, identity):
            return finished
        card = train_and_save(task, config, train, dev, identity, progress)
    return _result(card, config)


def _finished(config: FinetuneConfig, identity: dict[str, Any]) -> FinetuneResult | None:
    """Return the result of this configuration if ``config.out`` holds it, and None if the folder is absent or empty."""
    out = Path(config.out)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    card = read_card(out)
    if different := differing_settings(card["identity"], identity):
        raise BertftError(
            f"{out}: holds another fine-tuned model (other {', '.join(different)}), expected an empty folder"
        )
    refuse_changed_files(out)
    return _result(card, config)


def _result(card: dict[str, Any], config: FinetuneConfig) -> FinetuneResult:
    rows = score_rows(card["scores"], config.task, dev_name(config), config.seed)
    return FinetuneResult(Path(config.out), {row.measure: row.value for row in rows}, rows, card["seconds"])


def score_rows(scores: dict[str, dict[str, Any]], task: str, data: str, seed: int) -> list[Row]:
    """Return ``card["scores"]`` as rows of one seed, with 95 % intervals over the dev examples."""
    return [
        Row(task, "finetune", data, None, name, s["value"], s["low"], s["high"], s["n"], seed)
        for name, s in scores.items()
    ]
