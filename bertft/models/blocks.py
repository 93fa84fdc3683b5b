"""The inside of a Hugging Face encoder: its blocks, loading, freezing, truncating, reinitialising."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bertft.data.files import at_home
from bertft.errors import BertftError, lacks_memory, lacks_space
from bertft.runs.digests import refuse_changed_files
from bertft.runs.progress import downloading, waiting


def load_pretrained(name: str, *, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, Any]:
    """The encoder called ``name`` and its fast tokenizer: from safetensors, without remote code, nothing printed.

    ``name`` is a folder, a Hugging Face id (``id@revision`` for a branch, tag or commit) or ``builtin:minilm``; a
    folder with an adapter (`bertft.models.adapters`) is its base with the adapter merged in. A decoder (GPT-2, Llama) serves
    as an encoder that looks to the left alone. Anything else raises ``BertftError``.
    """
    from transformers import AutoModel, AutoTokenizer

    from bertft.models.adapters import is_adapter, load_adapter

    if is_adapter(str(name)):
        return load_adapter(str(name), dtype=dtype)
    with _located(name) as (where, revision), _seen_to_load(where, revision, str(name)):
        own = {"revision": revision, "trust_remote_code": False}
        tokenizer = AutoTokenizer.from_pretrained(where, use_fast=True, **own)
        model = AutoModel.from_pretrained(where, dtype=dtype, use_safetensors=True, **own)
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # what transformers makes where there are no files of one
        raise BertftError(f"model {name}: expected a tokenizer with a vocabulary, found none")
    if getattr(model.config, "is_encoder_decoder", False) or getattr(model.config, "is_decoder", False):
        raise BertftError(f"model {name}: expected a BERT-like encoder, found {type(model).__name__}")
    blocks(model)
    if not getattr(tokenizer, "is_fast", False):
        raise BertftError(f"model {name}: expected a fast tokenizer, found {type(tokenizer).__name__}")
    return model, tokenizer


def load_config(name: str) -> Any:
    """The configuration alone of what `load_pretrained` loads, adapters aside; the same is refused."""
    from transformers import AutoConfig

    with _located(name) as (where, revision):
        return AutoConfig.from_pretrained(where, revision=revision, trust_remote_code=False)


@contextlib.contextmanager
def _located(name: str) -> Iterator[tuple[str, str]]:
    """What ``from_pretrained`` takes for a model's name, and its revision; what that raises becomes one sentence."""
    from bertft.data.location import hub_name
    from bertft.data.sources import resolve_model

    refuse_changed_files(at_home(name))
    where, revision = resolve_model(str(name)), "main"
    if not Path(where).is_dir() and (hub := hub_name(where)) is not None:
        where, revision = hub.id, hub.revision or revision
    with quiet_transformers():
        try:
            yield where, revision
        except Exception as error:  # transformers and those below raise a dozen unrelated types for a damaged folder
            if lacks_memory(error) or lacks_space(error):  # no fault of the model's
                raise
            if "trust_remote_code" in str(error):
                raise BertftError(
                    f"model {name}: needs code of its own, and bertft runs none that comes with a model"
                ) from None
            if Path(where).is_dir():
                raise BertftError(f"model {name}: cannot be loaded: {' '.join(str(error).split())}") from error
            reason = str(error).strip().partition("\n")[0].split(" Check your internet")[0]
            raise BertftError(
                f"model {name}: no such folder, and not to be had from the Hugging Face hub ({reason})"
            ) from error


@contextlib.contextmanager
def _seen_to_load(where: str, revision: str, name: str) -> Iterator[None]:
    """For whoever watches: the hub's own bars around a model that comes from there, else a bar without an end."""
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
    """Silence transformers' log and progress bars inside, and restore them after."""
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
    """The longest input of ``model`` in pieces, special tokens included."""
    positions = int(getattr(model.config, "max_position_embeddings", 0) or 0)
    table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    if isinstance(table, nn.Embedding) and table.padding_idx is not None:
        positions -= table.padding_idx + 1  # RoBERTa's kin number positions from the padding's index on
    limits = [positions, int(min(tokenizer.model_max_length, 1_000_000))]
    return min(limit for limit in limits if limit > 0)


def blocks(model: nn.Module) -> nn.ModuleList:
    """The list of the encoder's blocks: the first ``ModuleList`` with one entry a hidden layer."""
    return _find_blocks(model)[1]


def _find_blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    count = getattr(model.config, "num_hidden_layers", None)
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return name, module
    raise BertftError(
        f"{type(model).__name__}: expected an encoder with a list of {count} blocks, found none"
        " (models that share one block between layers are not supported)"
    )


def _of_transformers(model: nn.Module) -> Any:
    """The model, whose attributes beyond those of ``nn.Module`` no type checker knows."""
    return model


def embedding_modules(model: nn.Module) -> list[nn.Module]:
    """The modules that make layer 0."""
    modules = [getattr(model, name, None) for name in ("embeddings", "embeddings_project")]
    return [module for module in modules if isinstance(module, nn.Module)] or [
        _of_transformers(model).get_input_embeddings()
    ]


def embedding_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters that make layer 0."""
    for module in embedding_modules(model):
        yield from module.parameters()


def freeze(model: nn.Module, k: int) -> nn.Module:
    """Freeze the embeddings and blocks 1..k of ``model`` in place: their parameters ask for no gradient.

    ``k = -1`` freezes nothing, ``k = 0`` the embeddings alone. A frozen parameter is left out of the optimiser and
    stays bitwise the same. `frozen_modules` are what must stay in evaluation mode while the rest trains.
    """
    stack = blocks(model)
    if not -1 <= k <= len(stack):
        raise BertftError(f"freeze: k must lie in -1..{len(stack)}, found {k}")
    if k >= 0:
        for parameter in embedding_parameters(model):
            parameter.requires_grad_(False)
        for block in stack[:k]:
            block.requires_grad_(False)
    return model


def frozen_modules(model: nn.Module, k: int) -> list[nn.Module]:
    """What runs below block k + 1 (none for ``k = -1``): embeddings, blocks 1..k, and dropout outside all blocks.

    In evaluation mode they give the same output in every epoch, so that it can be computed once (`bertft.models.frozen_cache`).
    """
    if k < 0:
        return []
    stack = blocks(model)
    inside = {id(module) for module in stack.modules()}
    leaves = (m for m in model.modules() if id(m) not in inside and not any(True for _ in m.children()))
    return [
        *embedding_modules(model),
        *stack[:k],
        *(leaf for leaf in leaves if not any(p.requires_grad for p in leaf.parameters())),
    ]


class _StandIn(nn.Module):
    """In a block's place: passes its input on, or what ``source`` gives, in the form the block's output has.

    The block's attributes are its own (some encoders read them off), its parameters are not.
    """

    def __init__(self, block: nn.Module, extras: int | None, source: Callable[[], Tensor] | None) -> None:
        super().__init__()
        self.__dict__["block"] = block  # not a submodule
        self.extras, self.source = extras, source

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["block"], name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        hidden = hidden if self.source is None else self.source()
        return hidden if self.extras is None else (hidden, *[None] * self.extras)


@contextlib.contextmanager
def stand_in(model: nn.Module, k: int, source: Callable[[], Tensor]) -> Iterator[None]:
    """Inside, ``model`` has no blocks 1..k (k >= 1): ``source()`` gives what block k would, (B, P, D), at each pass.

    The embeddings still run; they tell the model its mask and positions.
    """
    stack = blocks(model)
    own = list(stack)
    extras = _extras(model, own[0])
    try:
        for i in range(k):
            stack[i] = _StandIn(own[i], extras, source if i == k - 1 else None)
        yield
    finally:
        for i in range(k):
            stack[i] = own[i]


def _extras(model: nn.Module, block: nn.Module) -> int | None:
    """How many entries beside the hidden states a block's output has; None where it is no tuple."""
    training = [module for module in model.modules() if module.training]
    device = next(model.parameters()).device
    try:
        with torch.inference_mode(), stopping_at(block) as found, contextlib.suppress(Reached):
            model.eval()(
                input_ids=torch.zeros(1, 2, dtype=torch.int64, device=device),
                attention_mask=torch.ones(1, 2, dtype=torch.int64, device=device),
            )
    finally:
        for module in training:
            module.training = True
    return len(found[0]) - 1 if isinstance(found[0], tuple) else None


class Reached(Exception):
    """The block whose output was wanted has run: what comes after it need not."""


@contextlib.contextmanager
def stopping_at(block: nn.Module) -> Iterator[list[Any]]:
    """Inside, a forward pass ends after ``block`` with `Reached` and leaves the block's output in the list."""
    found: list[Any] = []

    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        found.append(output)
        raise Reached

    handle = block.register_forward_hook(hook)
    try:
        yield found
    finally:
        handle.remove()


def truncate(model: nn.Module, k: int) -> nn.Module:
    """Drop the blocks above block k of ``model`` in place, so that its output is block k's; k = 0 leaves embeddings.

    The config follows, so that the saved model loads with the same number of blocks.
    """
    name, stack = _find_blocks(model)
    if not 0 <= k <= len(stack):
        raise BertftError(f"truncate: k must lie in 0..{len(stack)}, found {k}")
    _set_module(model, name, stack[:k])
    config: Any = copy.deepcopy(model.config)
    config.num_hidden_layers = k
    if getattr(config, "layer_types", None):
        config.layer_types = list(config.layer_types)[:k]
    model.config = config
    return model


def reinitialise(model: nn.Module, seed: int) -> nn.Module:
    """A new encoder of the same architecture with random weights drawn from ``seed``; ``model`` is left alone."""
    from transformers import AutoModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = AutoModel.from_config(copy.deepcopy(model.config), trust_remote_code=False)
    example = next(model.parameters())
    return fresh.to(device=example.device, dtype=example.dtype).train(model.training)


@contextlib.contextmanager
def listening(model: nn.Module, top: int, keep: Callable[[int, Tensor], None]) -> Iterator[nn.Module]:
    """A view of ``model`` without the blocks above ``top``; while it runs, ``keep(layer, hidden)`` gets layers 0..top.

    Nothing is held beyond the call, ``model`` itself is not changed. The top layer of the whole encoder comes after a
    closing normalisation where the model has one, as in ``hidden_states[-1]``.
    """
    name, stack = _find_blocks(model)
    view = model
    if top < len(stack):
        view = _shallow_copy(model, name.split("."))
        _set_module(view, name, stack[:top])

    def first(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        keep(0, args[0] if args else kwargs["hidden_states"])

    def after(layer: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            keep(layer, output[0] if isinstance(output, tuple) else output)

        return hook

    def last(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        keep(top, output[0])

    handles = [block.register_forward_hook(after(i)) for i, block in enumerate(stack[: max(top - 1, 0)], start=1)]
    if top > 0:
        handles.append(stack[0].register_forward_pre_hook(first, with_kwargs=True))
    handles.append(view.register_forward_hook(last))
    try:
        yield view
    finally:
        for handle in handles:
            handle.remove()


def _set_module(model: nn.Module, name: str, value: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, value)


def _shallow_copy(model: nn.Module, path: list[str]) -> nn.Module:
    """A copy of ``model`` that shares all parameters; modules along ``path`` may get other children."""
    copied = copy.copy(model)
    copied._modules = dict(model._modules)
    copied._forward_hooks = copy.copy(model._forward_hooks)
    if len(path) > 1:
        copied._modules[path[0]] = _shallow_copy(model.get_submodule(path[0]), path[1:])
    return copied
