"""Shape rule and gradient of ``bertft::probe_loss``.

Its forward pass computes the gradients. torch.compile takes `fake`, `setup_context` and `backward`; eager calls take
`Eager`, which costs a tenth of a millisecond less.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.ops.autograd import first_order, without_graph

BOTH = -1  # losses (L, 2) of distances (0) and depths (1)


def fake(h, weight, distance_rank, distances, depths, lengths, with_weight, with_h, *options):
    """Return tensors of the shapes and types of the op's results. ``options``: fast and, if not by default, kind."""
    (L, T, D), R = h.shape, weight.shape[2]
    kind = options[1] if len(options) > 1 else BOTH
    # Not a sum of comparisons: torch 2.10 adds symbolic booleans through sympy, which has deprecated that.
    kinds = (1 if distance_rank > 0 else 0) + (1 if distance_rank < R else 0) if kind == BOTH else 1
    return (
        weight.new_empty(L, 2) if kind == BOTH else weight.new_empty(L),
        weight.new_empty(L if with_weight else 0, D, R),
        weight.new_empty(kinds if with_h else 0, L, T, D),
    )


def setup_context(ctx, inputs, output):
    """Keep the gradients that the forward pass computed."""
    h, weight, ctx.distance_rank, _, _, _, *flags, _, ctx.kind, _ = inputs
    ctx.flags, ctx.h_dtype = flags, h.dtype
    ctx.mark_non_differentiable(output[1], output[2])
    ctx.save_for_backward(output[1], output[2], h, weight)


def backward(ctx, grad, _, __):
    """Return the gradients of all inputs: those of the forward pass, scaled by ``grad``, which is like the loss."""
    grad_weight, grad_h, h, weight = ctx.saved_tensors
    needs = ctx.needs_input_grad
    if (needs[1] and not ctx.flags[0]) or (needs[0] and not ctx.flags[1]):
        raise BertftError("bertft::probe_loss was called without the gradient that backward now needs")
    widths = (ctx.distance_rank, weight.shape[2] - ctx.distance_rank)
    out_h, out_weight = _scaled(grad_h if needs[0] else None, grad_weight if needs[1] else None, grad, widths, ctx.kind)
    out_h = None if out_h is None else out_h.to(ctx.h_dtype)
    return *first_order("probe_loss", (out_h, out_weight), (h, weight)), *[None] * 9


class Eager(torch.autograd.Function):
    """The op with its losses as the only output.

    Autograd keeps no record of the gradients of the forward pass, and the last backward pass over a graph hands them
    over without a copy. Autograd looks at each argument, which takes longer than to unpack ``rest``.
    """

    boxed_grads_call = False  # torch asks for it, and a missing name costs an AttributeError

    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, rest: tuple[Any, ...]) -> Tensor:
        """Return the losses, (L, 2) or (L,). ``rest`` are the other arguments of the op, all of them."""
        loss, *ctx.gradients = without_graph("probe_loss", h, weight, *rest)
        ctx.settings = rest[0], rest[4], rest[5], rest[7]
        ctx.save_for_backward(h, weight)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Return the gradients of all inputs, scaled by ``grad``, which is like the output."""
        h, weight = ctx.saved_tensors
        out_weight, out_h = ctx.gradients
        distance_rank, with_weight, with_h, kind = ctx.settings
        out_weight, out_h = out_weight if with_weight else None, out_h if with_h else None
        if kind != BOTH and _is_one(grad) and not torch._C._autograd._get_current_graph_task_keep_graph():
            ctx.gradients = None  # else the engine would not take them for its own, but copy them
            out_h = None if out_h is None else out_h[0]
        else:
            out_h, out_weight = _scaled(out_h, out_weight, grad, (distance_rank, weight.shape[2] - distance_rank), kind)
        if out_h is not None and out_h.dtype != h.dtype:
            out_h = out_h.to(h.dtype)
        if torch.is_grad_enabled():
            out_h, out_weight = first_order("probe_loss", (out_h, out_weight), (h, weight))
        return out_h, out_weight, None


def eager(h: Tensor, weight: Tensor, *rest: Any) -> Tensor:
    """Return `Eager`'s loss of the op's arguments."""
    if torch._C._are_functorch_transforms_active():
        return Eager.apply(h, weight, rest)
    return _apply(h, weight, rest)


# What Eager.apply calls after some Python for functorch, which costs as much as the rest of the call.
_apply: Any = super(torch.autograd.Function, Eager).apply


def _is_one(grad: Tensor) -> bool:
    """Return whether an upstream gradient on the CPU is 1 for all layers. One of a GPU would be waited for."""
    if not grad.is_cpu or type(grad) is not Tensor:
        return False
    try:
        values = grad.tolist()
        return values.count(1.0) == len(values)
    except RuntimeError:  # torch.vmap has no values
        return False


def _scaled(
    grad_h: Tensor | None, grad_weight: Tensor | None, grad: Tensor, widths: tuple[int, int], kind: int
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients in h (K, L, T, D), summed over its K kinds, and in weight (L, D, R).

    Each kind is multiplied by its part of ``grad``, (L,) of a single ``kind`` or (L, 2) of both; ``widths`` are the
    columns of both kinds.
    """
    factors = [grad]
    if kind == BOTH:
        kinds = [k for k in (0, 1) if widths[k] > 0]
        factors = [grad[:, k] for k in kinds]
    if grad_h is not None:
        grad_h = sum(own * factor[:, None, None] for own, factor in zip(grad_h, factors, strict=True))
    if grad_weight is not None and len(factors) == 1:
        grad_weight = grad_weight * factors[0][:, None, None]
    elif grad_weight is not None:
        wide = [factor[:, None].expand(-1, width) for factor, width in zip(factors, widths, strict=True)]
        grad_weight = grad_weight * torch.cat(wide, dim=1).unsqueeze(1)
    return grad_h, grad_weight
