"""Gives a compiled op its shape rule and its gradient, once for torch.compile and once, faster, for eager code.

And what gradients need: products that autocast leaves alone, a second derivative that says it is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bertft.errors import BertftError


def differentiable(
    name: str, fake: Callable[..., Any], setup_context: Callable[..., None], backward: Callable[..., Any]
) -> Any:
    """Registers ``bertft::<name>`` with torch.library and returns the function to call it by.

    ``fake``, ``setup_context`` and ``backward`` are those of torch.library. Eager calls take a short way round the
    generic wrapper of torch.library, with the same two functions: it saves 50 of 75 microseconds. The function's
    attribute ``without_graph`` calls the op as under ``torch.no_grad()``.
    """
    op = getattr(torch.ops.bertft, name).default
    torch.library.register_fake(f"bertft::{name}", fake)
    torch.library.register_autograd(f"bertft::{name}", backward, setup_context=setup_context)

    def without_graph(*args: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return op(*args)

    class Eager(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *args: Any) -> Any:
            output = without_graph(*args)
            setup_context(ctx, args, output)
            return output

    Eager.__name__ = name
    setattr(Eager, "backward", staticmethod(backward))  # noqa: B010 (a method, to a type checker)

    def call(*args: Any) -> Any:
        if torch.compiler.is_compiling():
            return op(*args)
        if torch.is_grad_enabled() and any(isinstance(a, Tensor) and a.requires_grad for a in args):
            return Eager.apply(*args)
        return without_graph(*args)

    setattr(call, "without_graph", without_graph)  # noqa: B010
    return call


def product(a: Tensor, b: Tensor) -> Tensor:
    """a (..., N, K) @ b (..., K, M) with the same leading dimensions, in the type of both, forward and backward.

    Inside ``torch.autocast`` too, which would round float32 operands of ``@`` to half precision, and does so in a
    backward pass that runs there.
    """
    return _Product.apply(a, b)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return _as_they_are(a, b)

    @staticmethod
    def backward(ctx, grad):
        a, b = ctx.saved_tensors
        return (
            _as_they_are(grad, b.mT) if ctx.needs_input_grad[0] else None,
            _as_they_are(a.mT, grad) if ctx.needs_input_grad[1] else None,
        )


def _as_they_are(a: Tensor, b: Tensor) -> Tensor:
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
    """The ``gradients`` of ``op`` with respect to ``inputs``, unchanged; differentiating them raises BertftError.

    Kernels compute gradients in the forward pass, so that to autograd they are constants; this makes that loud.
    """
    if not torch.is_grad_enabled():
        return gradients
    return _FirstOrder.apply(op, len(gradients), *gradients, *inputs)
