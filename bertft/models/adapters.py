"""PEFT adapters: train a LoRA, merge a saved adapter."""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bertft.data.location import Source, at_home
from bertft.errors import BertftError
from bertft.models.blocks import blocks
from bertft.models.names import ADAPTER_CONFIG, file_of_hub
from bertft.runs.extras import need

WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class Adapter:
    """An adapter as PEFT saves it: its name, configuration and weights, and the name of its base model."""

    name: str
    config: Any
    weights: dict[str, Tensor]
    base: str


def add_lora(model: nn.Module, rank: int) -> nn.Module:
    """Freeze ``model`` and add a LoRA of ``rank`` to each linear map of its blocks, in place (Hu et al. 2022).

    W becomes W + 2 BA with a random A (rank, D) and B = 0, so that the untrained LoRA leaves the output unchanged.
    Raises ``BertftError`` if peft is not installed or the blocks have no linear map.
    """
    need("peft", "finetune: lora")
    import peft

    inside = {id(module) for module in blocks(model).modules()}
    targets = [name for name, module in model.named_modules() if id(module) in inside and isinstance(module, nn.Linear)]
    if not targets:
        raise BertftError(f"finetune: lora needs linear maps in the blocks, found none in {type(model).__name__}")
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=targets)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft warns about the versions of its own dependencies
        peft.inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    return model


def merge_lora(model: nn.Module) -> nn.Module:
    """Merge the LoRA of `add_lora` into the weights, in place, and return the ordinary encoder."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            model.set_submodule(name, module.get_base_layer())
    model.requires_grad_(True)
    return model


def read_adapter(name: str) -> Adapter:
    """Read the adapter ``name``, a folder or a repository on the hub, from safetensors.

    Raises ``BertftError`` if peft is not installed, or if there is no readable adapter or it names no base model.
    """
    need("peft", f"{name}: an adapter")
    import peft
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = _folder_of(name)
    try:
        config = peft.PeftConfig.from_pretrained(str(folder))
        weights = load_file(folder / WEIGHTS)
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise BertftError(f"{name}: not a usable adapter: {' '.join(str(error).split())}") from None
    if not (base := config.base_model_name_or_path):
        raise BertftError(f"{folder / ADAPTER_CONFIG}: names no base model (base_model_name_or_path)")
    if config.revision and (hub := Source.parse(base, "model").hub):
        base = str(dataclasses.replace(hub, revision=config.revision))
    return Adapter(name, config, weights, base)


def _folder_of(name: str) -> Path:
    """Return the folder of an adapter; of one on the hub, the folder of the cache with both of its files."""
    hub = Source.parse(name, "model").pinned().hub
    if hub is None:
        return at_home(name)
    files = [file_of_hub(hub, file) for file in (ADAPTER_CONFIG, WEIGHTS)]
    for file, found in zip((ADAPTER_CONFIG, WEIGHTS), files, strict=True):
        if found is None:
            raise BertftError(f"{name}: expected {file} in the repository, found none on the hub or in its cache")
    assert files[0] is not None
    return files[0].parent


def apply_adapter(model: nn.Module, adapter: Adapter) -> nn.Module:
    """Merge ``adapter`` into its base ``model`` and return the encoder.

    Only adapters that can be merged into the weights are accepted (LoRA and its relatives). If the adapter was trained
    with a task's head (classification, language model), the weights of the head are ignored. Raises ``BertftError``
    for other adapters and for weights that do not fit the base.
    """
    import peft

    config = adapter.config
    config.task_type, config.modules_to_save, config.inference_mode = None, None, True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft warns about the versions of its own dependencies
        try:
            wrapped = peft.get_peft_model(model, config)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BertftError(f"{adapter.name}: does not fit its base: {' '.join(str(error).split())}") from None
        if not hasattr(wrapped.base_model, "merge_and_unload"):
            raise BertftError(
                f"{adapter.name}: expected an adapter that can be merged, as LoRA, found {config.peft_type.value}"
            )
        # With a head, the encoder is one attribute of the model: base_model.model.bert.encoder... there is
        # base_model.model.encoder... here.
        head = f"base_model.model.{model.base_model_prefix}."
        own = "base_model.model."
        weights = {
            own + key.removeprefix(head) if key.startswith(head) else key: value
            for key, value in adapter.weights.items()
        }
        try:
            outcome = peft.set_peft_model_state_dict(wrapped, weights)
        except RuntimeError as error:
            raise BertftError(f"{adapter.name}: does not fit its base: {' '.join(str(error).split())[:200]}") from None
        _check_keys(adapter, outcome)
        return wrapped.merge_and_unload()


def _check_keys(adapter: Adapter, outcome: Any) -> None:
    """Raise ``BertftError`` if LoRA weights are missing or have no place in the base model."""
    missing = [key for key in outcome.missing_keys if "lora_" in key]
    unexpected = [key for key in outcome.unexpected_keys if "lora_" in key]
    if missing or unexpected:
        raise BertftError(
            f"{adapter.name}: does not fit its base {adapter.config.base_model_name_or_path}: "
            f"{'no weights for ' + missing[0] if missing else 'no place for ' + unexpected[0]}"
        )
