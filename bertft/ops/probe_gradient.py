"""Shape rule and gradient of ``bertft::probe_loss``.

Its forward pass computes the gradients.
"""

from __future__ import annotations

import torch

from bertft.errors import BertftError
from bertft.ops.autograd import first_order


def fake(h, weight, distance_rank, distances, depths, lengths, with_weight, with_h):
    """Return tensors of the shapes and types of the op's results."""
    (L, T, D), R = h.shape, weight.shape[2]
    # Not a sum of comparisons: torch 2.10 adds symbolic booleans through sympy, which has deprecated that.
    kinds = (1 if distance_rank > 0 else 0) + (1 if distance_rank < R else 0)
    return (
        weight.new_empty(L, 2),
        weight.new_empty(L if with_weight else 0, D, R),
        weight.new_empty(kinds if with_h else 0, L, T, D),
    )


def setup_context(ctx, inputs, output):
    """Keep the gradients that the forward pass computed."""
    h, weight, ctx.distance_rank, *_, with_weight, with_h = inputs
    ctx.flags, ctx.h_dtype = (with_weight, with_h), h.dtype
    ctx.mark_non_differentiable(output[1], output[2])
    ctx.save_for_backward(output[1], output[2], h, weight)


def backward(ctx, grad, _, __):
    """Return the gradients of all inputs: those of the forward pass, scaled by ``grad`` (L, 2)."""
    grad_weight, grad_h, h, weight = ctx.saved_tensors
    needs = ctx.needs_input_grad
    if (needs[1] and not ctx.flags[0]) or (needs[0] and not ctx.flags[1]):
        raise BertftError("bertft::probe_loss was called without the gradient that backward now needs")
    widths = (ctx.distance_rank, weight.shape[2] - ctx.distance_rank)
    kinds = [kind for kind, width in enumerate(widths) if width > 0]
    out_h = out_weight = None
    if needs[1] and len(kinds) == 1:
        out_weight = grad_weight * grad[:, kinds[0], None, None]
    elif needs[1]:
        columns = torch.cat([grad[:, kind, None].expand(-1, width) for kind, width in enumerate(widths)], dim=1)
        out_weight = grad_weight * columns.unsqueeze(1)
    if needs[0]:
        out_h = sum(grad_h[slot] * grad[:, kind, None, None] for slot, kind in enumerate(kinds)).to(ctx.h_dtype)
    return *first_order("probe_loss", (out_h, out_weight), (h, weight)), None, None, None, None, None, None
