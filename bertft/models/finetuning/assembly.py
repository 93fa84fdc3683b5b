"""Window, model and optimizer of a fine-tuning, without the Trainer, which takes seconds to import."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from bertft.errors import BertftError
from bertft.models.adapters import add_lora
from bertft.models.blocks import freeze, frozen_modules, truncate
from bertft.models.finetuning.config import FinetuneConfig, default_length
from bertft.models.loading import window_size
from bertft.models.tasks.base import Task, TaskModel, Window


def window_for(config: FinetuneConfig, encoder: nn.Module, tokenizer: Any) -> Window:
    """Return the window that inputs are cut to: ``config.max_length``, else the task's default within the model's.

    Raises ``BertftError`` if ``max_length`` exceeds the model's window.
    """
    limit = window_size(encoder, tokenizer)
    length = config.max_length or min(default_length(config.task), limit)
    if length > limit:
        raise BertftError(f"finetune: max_length must be at most {limit}, the window of {config.model}, found {length}")
    return Window(length, config.stride)


def build_model(task: Task, encoder: nn.Module, spec: dict[str, Any], config: FinetuneConfig) -> TaskModel:
    """Truncate and freeze ``encoder`` in place as configured, and put a head drawn from the seed on it."""
    if config.truncate is not None:
        truncate(encoder, config.truncate)
    freeze(encoder, config.freeze)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        head = task.head(encoder, spec)
        if config.lora is not None:
            add_lora(encoder, config.lora)
    if isinstance(pooler := getattr(encoder, "pooler", None), nn.Module):
        pooler.requires_grad_(head.uses_pooler)  # distributed training fails on parameters without a gradient
    return TaskModel(encoder, head, frozen_modules(encoder, config.freeze))


def make_optimizer(model: TaskModel, config: FinetuneConfig) -> torch.optim.AdamW:
    """Return AdamW over the trained parameters: one rate for the encoder, one for the head; weight decay on matrices.

    Frozen parameters are left out.
    """
    groups = []
    for part, rate in ((model.encoder, config.learning_rate), (model.head, config.head_learning_rate)):
        trained = [p for p in part.parameters() if p.requires_grad]
        groups.append({"params": [p for p in trained if p.ndim > 1], "lr": rate, "weight_decay": config.weight_decay})
        groups.append({"params": [p for p in trained if p.ndim <= 1], "lr": rate, "weight_decay": 0.0})
    return torch.optim.AdamW([group for group in groups if group["params"]], fused=True)
