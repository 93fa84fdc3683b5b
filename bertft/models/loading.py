"""Pretrained encoders and their tokenizers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bertft.data.location import Source, at_home, hub_name
from bertft.errors import BertftError, lacks_memory, lacks_space
from bertft.models import adapters
from bertft.models.blocks import blocks
from bertft.models.names import is_adapter, not_available, refuse_unreachable, resolve_model
from bertft.runs.digests import refuse_changed_files
from bertft.runs.progress import downloading, waiting


def load_pretrained(
    name: str, *, dtype: torch.dtype = torch.float32, device_map: str | None = None
) -> tuple[nn.Module, Any]:
    """Load the encoder ``name`` and its fast tokenizer from safetensors, without remote code and without output.

    Args:
        name: a folder, a Hugging Face id (``id@revision`` for a branch, tag or commit) or ``builtin:minilm``. A folder
            with an adapter (`bertft.models.adapters`) stands for its base model with the adapter merged into it.
        dtype: of the weights.
        device_map: how accelerate spreads the blocks over the devices, such as ``auto``; None leaves them on the CPU.

    A decoder-only model (GPT-2, Llama) is accepted as an encoder that sees only the words to the left. Of a T5 only the
    encoder is loaded.

    Raises:
        BertftError: if there is no such model, or it is not an encoder or decoder of text with a fast tokenizer.
    """
    from transformers import AutoConfig, AutoTokenizer

    if is_adapter(str(name)):
        adapter = adapters.read_adapter(str(name))
        model, tokenizer = load_pretrained(adapter.base, dtype=dtype, device_map=device_map)
        with quiet_transformers():
            return adapters.apply_adapter(model, adapter), tokenizer
    with _located(name) as (where, revision), show_loading(where, revision, str(name)):
        own = {"revision": revision, "trust_remote_code": False}
        kind = model_class(AutoConfig.from_pretrained(where, **own), name)
        tokenizer = AutoTokenizer.from_pretrained(where, use_fast=True, **own)
        spread = {} if device_map is None else {"device_map": device_map}
        model = kind.from_pretrained(where, dtype=dtype, use_safetensors=True, **own, **spread)
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # transformers makes an empty one if its files are missing
        raise BertftError(f"model {name}: expected a tokenizer with a vocabulary, found none")
    blocks(model)
    if not getattr(tokenizer, "is_fast", False):
        raise BertftError(f"model {name}: expected a fast tokenizer, found {type(tokenizer).__name__}")
    return model, tokenizer


_READ = {"image": "images", "audio": "audio", "video": "videos", "time": "time series", "text": "text"}
_MODALITIES = {"pixel_values": ("image",), "input_values": ("audio",), "input_features": ("audio",)}


def model_class(config: Any, name: str) -> Any:
    """Return the class whose ``from_pretrained`` loads the model ``name`` with this configuration.

    Raises:
        BertftError: if the model reads anything but text, or is an encoder with a decoder that cannot be separated.
    """
    from transformers import MODEL_FOR_TEXT_ENCODING_MAPPING, MODEL_MAPPING, AutoModel, AutoModelForTextEncoding

    kinds: Any = MODEL_MAPPING.get(type(config), None)
    kind: Any = kinds[0] if isinstance(kinds, tuple) else kinds
    found = config.model_type if kind is None else kind.__name__
    reads: Any = getattr(kind, "input_modalities", None) or _MODALITIES.get(
        getattr(kind, "main_input_name", ""), "text"
    )
    reads = (reads,) if isinstance(reads, str) else tuple(reads)
    if set(reads) != {"text"}:
        read = " and ".join(_READ.get(entry, entry) for entry in reads)
        raise BertftError(f"model {name}: expected a model that reads text, found {found}, which reads {read}")
    if getattr(config, "is_encoder_decoder", False):
        if type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING:
            return AutoModelForTextEncoding
        raise BertftError(
            f"model {name}: expected an encoder or a decoder, found {found}, which is both "
            "(of such models, the encoders of the T5 family can be loaded)"
        )
    if getattr(config, "is_decoder", False):
        raise BertftError(f"model {name}: expected a BERT-like encoder, found {found} with is_decoder in its config")
    width = getattr(config, "hidden_size", None)
    if getattr(config, "word_embed_proj_dim", width) != width:
        raise BertftError(
            f"model {name}: expected layers of one width, found {found}, whose last layer has "
            f"{config.word_embed_proj_dim} dimensions and the others {width}"
        )
    return AutoModel


def load_config(name: str) -> Any:
    """Load only the configuration of the model ``name``; raises as `load_pretrained`. Adapters are not accepted."""
    from transformers import AutoConfig

    with _located(name) as (where, revision):
        return AutoConfig.from_pretrained(where, revision=revision, trust_remote_code=False)


def load_skeleton(name: str, *, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return the model ``name`` without weights, on the meta device, from its configuration alone.

    An adapter stands for its base model. Raises as `load_pretrained`.
    """
    if is_adapter(str(name)):
        return load_skeleton(adapters.read_adapter(str(name)).base, dtype=dtype)
    config = load_config(str(name))
    with quiet_transformers(), torch.device("meta"):
        model: nn.Module = model_class(config, str(name)).from_config(config, trust_remote_code=False)
    return model.to(dtype)


@contextlib.contextmanager
def _located(name: str) -> Iterator[tuple[str, str]]:
    """Yield the name that ``from_pretrained`` takes and the revision; raise its errors as ``BertftError``."""
    refuse_changed_files(at_home(name))
    where, revision = resolve_model(str(name)), "main"
    if not Path(where).is_dir() and (hub := hub_name(where)) is not None:
        refuse_unreachable(Source.parse(where, "model"))
        where, revision = hub.id, hub.revision or revision
    with quiet_transformers():
        try:
            yield where, revision
        except BertftError:
            raise
        except Exception as error:  # for a damaged folder, a dozen unrelated types
            if lacks_memory(error) or lacks_space(error):  # not the model's fault
                raise
            if "trust_remote_code" in str(error):
                raise BertftError(
                    f"model {name}: needs its own code, and bertft never runs code that comes with a model"
                ) from None
            if Path(where).is_dir():
                raise BertftError(f"model {name}: cannot be loaded: {' '.join(str(error).split())}") from error
            reason = str(error).strip().partition("\n")[0].split(" Check your internet")[0]
            raise not_available(name, reason) from error


@contextlib.contextmanager
def show_loading(where: str, revision: str, name: str) -> Iterator[None]:
    """Show progress: the hub's own bars while a model is downloaded, else a bar without a total."""
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    here = Path(where).is_dir() or isinstance(try_to_load_from_cache(where, "config.json", revision=revision), str)
    if here or constants.HF_HUB_OFFLINE:
        with waiting(f"load {name}"):
            yield
        return
    with downloading(f"{name} from the Hugging Face hub") as watched:
        bars = watched and not constants.HF_HUB_DISABLE_PROGRESS_BARS
        if bars:
            enable_progress_bars()  # `quiet_transformers` has switched them off
        try:
            yield
        finally:
            if bars:
                disable_progress_bars()


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' log and progress bars inside the context, and restore them afterwards."""
    from transformers.utils import logging as hf_logging

    level, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()


def window_size(model: nn.Module, tokenizer: Any) -> int:
    """Return the length of the longest input of ``model`` in word pieces, special tokens included."""
    positions = int(getattr(model.config, "max_position_embeddings", 0) or 0)
    table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    if isinstance(table, nn.Embedding) and table.padding_idx is not None:
        positions -= table.padding_idx + 1  # RoBERTa and its relatives count positions from the padding index
    limits = [positions, int(min(tokenizer.model_max_length, 1_000_000))]
    return min(limit for limit in limits if limit > 0)
