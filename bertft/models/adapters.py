"""Adapters: what PEFT saves, merged into its base as a tuned encoder; and LoRA as a way to fine-tune."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import torch
from torch import nn

from bertft.data.files import at_home
from bertft.errors import BertftError

CONFIG = "adapter_config.json"


def is_adapter(name: str) -> bool:
    """Whether ``name`` is a folder that holds an adapter."""
    return "\0" not in name and (at_home(name) / CONFIG).is_file()


def add_lora(model: nn.Module, rank: int) -> nn.Module:
    """Freeze ``model`` and put a LoRA of ``rank`` on every linear map of its blocks, in place (Hu et al. 2022).

    W becomes W + 2 BA with A (rank, D) random and B zero, so that the encoder is what it was before it trains.
    """
    try:
        import peft
    except ImportError:
        raise BertftError("finetune: lora needs the package peft: pip install 'bertft[peft]'") from None
    from bertft.models.blocks import blocks

    inside = {id(module) for module in blocks(model).modules()}
    targets = [name for name, module in model.named_modules() if id(module) in inside and isinstance(module, nn.Linear)]
    if not targets:
        raise BertftError(f"finetune: lora needs linear maps in the blocks, found none in {type(model).__name__}")
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=targets)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's own, about the versions it sits on
        peft.inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    return model


def merge_lora(model: nn.Module) -> nn.Module:
    """Fold what `add_lora` added into the weights, in place: an ordinary encoder again."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            model.set_submodule(name, module.get_base_layer())
    model.requires_grad_(True)
    return model


def load_adapter(name: str, *, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, Any]:
    """The encoder that the adapter in the folder ``name`` makes of its base model, and the base's tokenizer.

    Of an adapter trained under a task's head (classification, a language model) the encoder's part is taken; weights
    that belong to the head are left out. Only adapters that can be merged into the base's weights, LoRA and its kin.
    Raises ``BertftError`` for any other, one whose weights do not fit the base, and where ``peft`` is not installed.
    """
    try:
        import peft
    except ImportError:
        raise BertftError(f"{name}: an adapter needs the package peft: pip install 'bertft[peft]'") from None
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from bertft.data.sources import hub_of
    from bertft.models.blocks import load_pretrained, quiet_transformers

    folder = at_home(name)
    try:
        config = peft.PeftConfig.from_pretrained(str(folder))
        weights = load_file(folder / "adapter_model.safetensors")
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise BertftError(f"{name}: not a usable adapter: {' '.join(str(error).split())}") from None
    if not (base := config.base_model_name_or_path):
        raise BertftError(f"{folder / CONFIG}: names no base model (base_model_name_or_path)")
    if config.revision and (hub := hub_of(base)):
        base = str(dataclasses.replace(hub, revision=config.revision))
    model, tokenizer = load_pretrained(base, dtype=dtype)
    config.task_type, config.modules_to_save, config.inference_mode = None, None, True
    with quiet_transformers(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's own, about the versions it sits on
        try:
            wrapped = peft.get_peft_model(model, config)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BertftError(f"{name}: does not fit its base: {' '.join(str(error).split())}") from None
        if not hasattr(wrapped.base_model, "merge_and_unload"):
            raise BertftError(
                f"{name}: expected an adapter that can be merged, as LoRA, found {config.peft_type.value}"
            )
        # under a head the encoder is one attribute of the whole: base_model.model.bert.encoder... is ours without bert
        head = f"base_model.model.{model.base_model_prefix}."
        own = "base_model.model."
        weights = {own + key.removeprefix(head) if key.startswith(head) else key: v for key, v in weights.items()}
        try:
            outcome = peft.set_peft_model_state_dict(wrapped, weights)
        except RuntimeError as error:
            raise BertftError(f"{name}: does not fit its base: {' '.join(str(error).split())[:200]}") from None
        missing = [key for key in outcome.missing_keys if "lora_" in key]
        lost = [key for key in outcome.unexpected_keys if "lora_" in key]
        if missing or lost:
            raise BertftError(
                f"{name}: does not fit its base {config.base_model_name_or_path}: "
                f"{'no weights for ' + missing[0] if missing else 'no place for ' + lost[0]}"
            )
        return wrapped.merge_and_unload(), tokenizer
