"""Forward hooks and placeholders on an encoder's blocks."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from bertft.models.blocks import blocks, find_blocks, set_module


class _Placeholder(nn.Module):
    """Stand-in for a block: its output is the input, or the result of ``source``, in the form of the block's.

    Attributes are looked up on the block (some encoders read them), but its parameters are not registered.
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
def replaced_blocks(model: nn.Module, k: int, source: Callable[[], Tensor]) -> Iterator[None]:
    """Remove blocks 1..k (k >= 1) of ``model`` inside the context; ``source()`` supplies block k's output instead.

    ``source`` is called once for each forward pass and returns hidden states (B, P, D). The embeddings still run,
    because the model derives its mask and positions from them.
    """
    stack = blocks(model)
    own = list(stack)
    extras = _extra_outputs(model, own[0])
    try:
        for i in range(k):
            stack[i] = _Placeholder(own[i], extras, source if i == k - 1 else None)
        yield
    finally:
        for i in range(k):
            stack[i] = own[i]


def _extra_outputs(model: nn.Module, block: nn.Module) -> int | None:
    """Return the number of outputs of a block beside the hidden states; None if the output is not a tuple."""
    training = [module for module in model.modules() if module.training]
    device = next(model.parameters()).device
    try:
        with torch.inference_mode(), stopping_at(block) as outputs, contextlib.suppress(Stopped):
            model.eval()(
                input_ids=torch.zeros(1, 2, dtype=torch.int64, device=device),
                attention_mask=torch.ones(1, 2, dtype=torch.int64, device=device),
            )
    finally:
        for module in training:
            module.training = True
    return len(outputs[0]) - 1 if isinstance(outputs[0], tuple) else None


class Stopped(Exception):
    """End of a forward pass by `stopping_at`."""


@contextlib.contextmanager
def stopping_at(block: nn.Module) -> Iterator[list[Any]]:
    """End each forward pass after ``block`` by raising `Stopped`, and append the block's output to the yielded list."""
    outputs: list[Any] = []

    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        outputs.append(output)
        raise Stopped

    handle = block.register_forward_hook(hook)
    try:
        yield outputs
    finally:
        handle.remove()


@contextlib.contextmanager
def listening(model: nn.Module, top: int, keep: Callable[[int, Tensor], None]) -> Iterator[nn.Module]:
    """Yield a view of ``model`` without the blocks above ``top`` that reports its hidden states.

    Each forward pass of the view calls ``keep(layer, hidden)`` for layers 0..top, with ``hidden`` (B, P, D). The hooks
    keep no tensor, and ``model`` itself does not change. If the model ends in a normalisation, the top layer of the
    whole encoder is its output, as in ``hidden_states[-1]``.
    """
    name, stack = find_blocks(model)
    view = model
    if top < len(stack):
        view = _shallow_copy(model, name.split("."))
        set_module(view, name, stack[:top])

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


def _shallow_copy(model: nn.Module, path: list[str]) -> nn.Module:
    """Copy ``model`` and the modules along ``path`` so that their children can be exchanged; share all parameters."""
    copied = copy.copy(model)
    copied._modules = dict(model._modules)
    copied._forward_hooks = copy.copy(model._forward_hooks)
    if len(path) > 1:
        copied._modules[path[0]] = _shallow_copy(model.get_submodule(path[0]), path[1:])
    return copied
