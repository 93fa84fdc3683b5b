"""Blocks of an encoder: find, freeze, truncate, reinitialise."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from bertft.errors import BertftError

CARRYING = {"t5", "mt5"}  # kinds of models whose first block computes the position bias of all others


def blocks(model: nn.Module) -> nn.ModuleList:
    """Return the encoder's blocks: the first ``ModuleList`` with one entry for each hidden layer.

    A model that calls one block for several layers (ALBERT) has it several times in the list, which is then not the
    model's own. Raises ``BertftError`` if there is none.
    """
    return find_blocks(model)[1]


def find_blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Return the name of the list of blocks within ``model``, and the list; see `blocks`."""
    config: Any = model.config
    count, groups = getattr(config, "num_hidden_layers", None), getattr(config, "num_hidden_groups", None)
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == (count if groups is None else groups):
            return name, module if groups is None else _repeated(module, config.num_hidden_layers)
    raise BertftError(f"{type(model).__name__}: expected an encoder with a list of {count} blocks, found none")


def _repeated(groups: nn.ModuleList, count: int) -> nn.ModuleList:
    """Return the block of each of ``count`` layers, where each of ``groups`` serves as many layers in a row."""
    return nn.ModuleList(groups[int(layer / (count / len(groups)))] for layer in range(count))


def shares_blocks(model: nn.Module) -> bool:
    """Return whether several layers of ``model`` are computed by one block."""
    return getattr(model.config, "num_hidden_groups", None) is not None


def set_module(model: nn.Module, name: str, value: nn.Module) -> None:
    """Replace the submodule ``name`` (with dots) of ``model`` by ``value``."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, value)


def _of_transformers(value: Any) -> Any:
    """Return ``value`` as Any: type checkers do not know the attributes that transformers adds to ``nn.Module``."""
    return value


def embedding_modules(model: nn.Module) -> list[nn.Module]:
    """Return the modules that compute layer 0."""
    modules = [getattr(model, name, None) for name in ("embeddings", "embeddings_project")]
    modules.append(getattr(getattr(model, "encoder", None), "embedding_hidden_mapping_in", None))
    return [module for module in modules if isinstance(module, nn.Module)] or [
        _of_transformers(model).get_input_embeddings()
    ]


def embedding_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the parameters of the modules that compute layer 0."""
    for module in embedding_modules(model):
        yield from module.parameters()


def freeze(model: nn.Module, k: int) -> nn.Module:
    """Freeze the embeddings and blocks 1..k of ``model`` in place and return it.

    ``k = -1`` freezes nothing, ``k = 0`` only the embeddings. Frozen parameters do not require a gradient, so the
    optimiser leaves them out and they stay bitwise the same. They include parameters outside the blocks that layer k
    depends on, such as the position bias that all of MPNet's blocks read: else layer k would change. The modules that
    must stay in evaluation mode during training are `frozen_modules`.

    Raises ``BertftError`` for a ``k`` outside -1..number of blocks, and above 0 if the blocks are not separate.
    """
    stack, config = blocks(model), _of_transformers(model.config)
    if not -1 <= k <= len(stack):
        raise BertftError(f"freeze: k must lie in -1..{len(stack)}, found {k}")
    if k > 0 and (shares_blocks(model) or config.model_type in CARRYING):
        why = "one block serves several layers" if shares_blocks(model) else "the first block serves all others"
        raise BertftError(f"freeze: k must be -1 or 0 for {type(model).__name__}, where {why}, found {k}")
    if k >= 0:
        for parameter in (*embedding_parameters(model), *_read_by(model, k)):
            parameter.requires_grad_(False)
        for block in stack[:k]:
            block.requires_grad_(False)
    return model


def _read_by(model: nn.Module, k: int) -> list[nn.Parameter]:
    """Return the trained parameters outside all blocks on which layer k depends."""
    stack = blocks(model)
    inside = {id(parameter) for parameter in stack.parameters()}
    outside = [p for p in model.parameters() if p.requires_grad and id(p) not in inside]
    found: list[Any] = []

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found.append(args[0] if args else kwargs["hidden_states"])

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)

    handle = (
        stack[k - 1].register_forward_hook(after) if k else stack[0].register_forward_pre_hook(before, with_kwargs=True)
    )
    try:
        with torch.enable_grad():
            try_out(model)
    finally:
        handle.remove()
    if not (outside and found[0].requires_grad):
        return []
    gradients = torch.autograd.grad(found[0].square().sum(), outside, allow_unused=True)
    return [parameter for parameter, gradient in zip(outside, gradients, strict=True) if gradient is not None]


def try_out(model: nn.Module) -> None:
    """Run two tokens through ``model`` in evaluation mode, for hooks to see, and restore its modes.

    Dropout would use random numbers.
    """
    training = [module for module in model.modules() if module.training]
    ids = torch.zeros(1, 2, dtype=torch.int64, device=next(model.parameters()).device)
    try:
        model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids))
    finally:
        for module in training:
            module.training = True


def frozen_modules(model: nn.Module, k: int) -> list[nn.Module]:
    """Return the modules that run below block k + 1: embeddings, blocks 1..k, and dropout outside all blocks.

    The list is empty for ``k = -1``. In evaluation mode these modules give the same output in every epoch, so that it
    can be computed once (`bertft.models.frozen_cache`).
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


def truncate(model: nn.Module, k: int) -> nn.Module:
    """Drop the blocks above block k of ``model`` in place and return it; ``k = 0`` leaves only the embeddings.

    The configuration changes with it, so that the saved model loads with k blocks. Raises ``BertftError`` for a ``k``
    outside 0..number of blocks.
    """
    name, stack = find_blocks(model)
    if not 0 <= k <= len(stack):
        raise BertftError(f"truncate: k must lie in 0..{len(stack)}, found {k}")
    if not shares_blocks(model):
        set_module(model, name, stack[:k])
    elif len(set(stack)) > 1:
        raise BertftError(f"truncate: expected blocks of their own or one for all layers, found {type(model).__name__}")
    config: Any = copy.deepcopy(model.config)
    config.num_hidden_layers = k
    if getattr(config, "layer_types", None):
        config.layer_types = list(config.layer_types)[:k]
    for module in model.modules():  # some blocks' owners read it
        if getattr(module, "config", None) is model.config and module is not model:
            module.config = config
    model.config = config
    return model


def reinitialise(model: nn.Module, seed: int) -> nn.Module:
    """Return a new encoder of the same architecture with random weights drawn from ``seed``.

    Device, dtype and training mode are those of ``model``, which does not change.
    """
    from transformers import MODEL_FOR_TEXT_ENCODING_MAPPING, AutoModel, AutoModelForTextEncoding

    encodes: Any = MODEL_FOR_TEXT_ENCODING_MAPPING.get(type(model.config), None) is type(model)
    kind: Any = AutoModelForTextEncoding if encodes else AutoModel
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = kind.from_config(copy.deepcopy(model.config), trust_remote_code=False)
    example = next(model.parameters())
    return fresh.to(device=example.device, dtype=example.dtype).train(model.training)
