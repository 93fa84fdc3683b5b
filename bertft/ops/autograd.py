"""Gradients that kernels compute in the forward pass are constants to autograd: second derivatives must say so."""

from __future__ import annotations

import torch
from torch import Tensor

from bertft.errors import BertftError


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
    """The ``gradients`` of ``op`` with respect to ``inputs``, unchanged; differentiating them raises BertftError."""
    if not torch.is_grad_enabled():
        return gradients
    return _FirstOrder.apply(op, len(gradients), *gradients, *inputs)
