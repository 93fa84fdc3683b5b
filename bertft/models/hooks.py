"""Forward hooks and placeholders on an encoder's blocks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from bertft.models.blocks import blocks, try_out


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
    with torch.inference_mode(), stopping_at(block) as outputs, contextlib.suppress(Stopped):
        try_out(model)
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
def listening(model: nn.Module, top: int, keep: Callable[[int, Tensor], None]) -> Iterator[Callable[..., None]]:
    """Yield a forward pass of ``model`` that ends at layer ``top`` and reports its hidden states.

    Each call, with the model's inputs, calls ``keep(layer, hidden)`` for layers 0..top, with ``hidden`` (B, P, D).
    Layer k is the input of block k + 1. The last layer is the model's output, after the final normalisation if there
    is one, as in ``hidden_states[-1]``. The blocks above ``top`` do not run, and no tensor is kept.
    """
    stack = blocks(model)
    reached = 0

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal reached
        keep(reached, args[0] if args else kwargs["hidden_states"])
        if reached == top:
            raise Stopped
        reached += 1

    def run(**inputs: Any) -> None:
        nonlocal reached
        reached = 0
        with contextlib.suppress(Stopped):
            keep(top, model(**inputs)[0])

    handles = [block.register_forward_pre_hook(before, with_kwargs=True) for block in dict.fromkeys(stack)]
    try:
        yield run
    finally:
        for handle in handles:
            handle.remove()
