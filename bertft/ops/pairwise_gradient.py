"""Gradient of distances on a GPU, by matrix products.

The distances are those of `bertft.ops.pairwise_distance`.

With G the gradient of a distance, and W the derivative of an entry along the difference of its two rows,

    dot:  u_i gets  sum_j G_ij v_j  (cosine, correlation: minus that)
    else: x_i gets  sum_j W_ij (x_i - y_j),  W = 2 G (sqeuclidean) or G / d, 0 where d = 0 (euclidean)

On a GPU a product is several times faster than a kernel that recomputes each W, at the price of memory of the size of
the distances. Where tensor cores serve, it is one of halves (``csrc/cuda/split_gradient.cu``), else a library's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bertft.ops.full_precision import full_precision
from bertft.ops.metrics import METRICS, NORMALISED
from bertft.ops.reference import metric_rows
from bertft.ops.tensor_cores import serve

PRODUCTS = ("dot", "cosine", "correlation", "sqeuclidean", "euclidean")


def gradients(
    grad: Tensor, x: Tensor, y: Tensor | None, out: Tensor, metric: str, *, condensed: bool = False, fast: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the gradients of x (B, N, D) and y (B, M, D) in the metric's form, from those of their distances.

    grad and out are (B, N, M), or ``condensed``; ``out`` is read for ``euclidean`` only. y may be None: x with itself,
    and the second gradient is empty. The gradients of ``cosine`` and ``correlation`` may have a part along their rows,
    which `bertft.ops.rows.metric_rows_backward` removes. ``fast`` rounds operands to float16 where tensor cores serve
    (`bertft.ops.precision`).
    """
    code = METRICS.index(metric)
    if metric in PRODUCTS and _on_tensor_cores(grad, x, y):
        return torch.ops.bertft.split_gradient(grad, x, y, out, code, condensed, fast)
    if metric in PRODUCTS and grad.is_cuda and not condensed:
        return by_products(grad, x, y, out, metric)
    return torch.ops.bertft.pairwise_distance_backward(grad, x, y, out, code, condensed)


def _on_tensor_cores(grad: Tensor, x: Tensor, y: Tensor | None) -> bool:
    return grad.dtype == torch.float32 and serve(x, y) and (y is None or serve(y, x))


def by_products(grad: Tensor, x: Tensor, y: Tensor | None, out: Tensor, metric: str) -> tuple[Tensor, Tensor]:
    """Return the result of the op ``pairwise_distance_backward``: gradients of the rows in the metric's form.

    grad, out (B, N, M); x (B, N, D); y (B, M, D), or None for x with itself, whose second gradient is empty.
    """
    u = metric_rows(x.to(grad.dtype), metric)
    v = None if y is None else metric_rows(y.to(grad.dtype), metric)
    nothing = u.new_empty(0, 0, u.shape[-1])
    with full_precision(x):
        if metric in ("dot", *NORMALISED):
            weight = -grad if metric in NORMALISED else grad
            if v is None:
                return torch.bmm(weight + weight.mT, u), nothing
            return torch.bmm(weight, v), torch.bmm(weight.mT, u)
        weight = 2 * grad if metric == "sqeuclidean" else torch.where(out > 0, grad / out, 0)
        centre = u.mean(1, keepdim=True)  # leaves differences unchanged, and less cancels
        u, v = u - centre, None if v is None else v - centre
        if v is None:
            weight = weight + weight.mT
            return weight.sum(-1, keepdim=True) * u - torch.bmm(weight, u), nothing
        first = weight.sum(-1, keepdim=True) * u - torch.bmm(weight, v)
        return first, weight.sum(1).unsqueeze(-1) * v - torch.bmm(weight.mT, u)
