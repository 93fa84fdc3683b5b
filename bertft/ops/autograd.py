"""Compiled ops registered with autograd and torch.compile.

Also the tools of their gradients: products that autocast leaves alone, and an error for missing second derivatives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bertft.errors import BertftError


def register(
    name: str, fake: Callable[..., Any], setup_context: Callable[..., None], backward: Callable[..., Any]
) -> None:
    """Give ``bertft::<name>`` a shape rule and a gradient, for torch.compile.

    ``fake``, ``setup_context`` and ``backward`` are those of torch.library. An eager call pays 50 microseconds for its
    generic wrapper, and none for a torch.autograd.Function around `without_graph`.
    """
    torch.library.register_fake(f"bertft::{name}", fake)
    torch.library.register_autograd(f"bertft::{name}", backward, setup_context=setup_context)


def without_graph(name: str, *args: Any) -> Any:
    """Return the results of ``bertft::<name>``, which autograd does not see."""
    op = _OPS.get(name)
    if op is None:
        op = _OPS[name] = getattr(torch.ops.bertft, name).default
    with torch._C._AutoDispatchBelowAutograd():
        return op(*args)


_OPS: dict[str, Any] = {}  # to look them up in torch.ops costs a microsecond


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return a (..., N, K) @ b (..., K, M), with the same leading dimensions, in the dtype of both operands.

    ``torch.autocast`` changes neither the product nor its gradient. It would round float32 operands of ``@`` to half
    precision, also in a backward pass that runs inside it.
    """
    return _Product.apply(a, b)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return _without_autocast(a, b)

    @staticmethod
    def backward(ctx, grad):
        a, b = ctx.saved_tensors
        return (
            _without_autocast(grad, b.mT) if ctx.needs_input_grad[0] else None,
            _without_autocast(a.mT, grad) if ctx.needs_input_grad[1] else None,
        )


def _without_autocast(a: Tensor, b: Tensor) -> Tensor:
    if not torch.is_autocast_enabled(a.device.type):  # entering the context costs more than a small product
        return a @ b
    with torch.autocast(a.device.type, enabled=False):
        return a @ b


class _FirstOrder(torch.autograd.Function):
    @staticmethod
    def forward(ctx, op, count, *tensors):
        ctx.op = op
        return tuple(None if t is None else t.view_as(t) for t in tensors[:count])

    @staticmethod
    def backward(ctx, *grads):
        raise BertftError(
            f"{ctx.op}: second derivatives are not implemented; differentiate bertft.ops.reference.{ctx.op} instead"
        )


def first_order(op: str, gradients: tuple[Tensor | None, ...], inputs: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
    """Return the ``gradients`` of ``op`` unchanged, such that differentiating them raises BertftError.

    Kernels compute gradients in the forward pass, so autograd would take them for constants and silently return a wrong
    second derivative.
    """
    if not torch.is_grad_enabled():
        return gradients
    return _FirstOrder.apply(op, len(gradients), *gradients, *inputs)
