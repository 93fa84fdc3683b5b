"""Gradient of distances by matrix products, for GPUs.

The distances are those of `bertft.ops.pairwise_distance`.

With G the gradient of a distance, and W the derivative of an entry along the difference of its two rows,

    dot:  u_i gets  sum_j G_ij v_j  (cosine, correlation: minus that)
    else: x_i gets  sum_j W_ij (x_i - y_j),  W = 2 G (sqeuclidean) or G / d, 0 where d = 0 (euclidean)

On a GPU a product is several times faster than a kernel that recomputes each W, at the price of memory of the size of
the distances: a library's, or one over tensor cores (`bertft.ops.tensor_cores`).
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from bertft.ops.full_precision import full_precision
from bertft.ops.metrics import NORMALISED
from bertft.ops.reference import metric_rows
from bertft.ops.tensor_cores import product

PRODUCTS = ("dot", "cosine", "correlation", "sqeuclidean", "euclidean")


def by_products(
    grad: Tensor, x: Tensor, y: Tensor | None, out: Tensor, metric: str, *, fast: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the result of the op ``pairwise_distance_backward``: gradients of the rows in the metric's form.

    grad, out (B, N, M); x (B, N, D); y (B, M, D), or None for x with itself, whose second gradient is empty. ``fast``
    is that of `bertft.ops.tensor_cores.product`.
    """
    times = functools.partial(product, fast=fast)
    u = metric_rows(x.to(grad.dtype), metric)
    v = None if y is None else metric_rows(y.to(grad.dtype), metric)
    nothing = u.new_empty(0, 0, u.shape[-1])
    with full_precision(x):
        if metric in ("dot", *NORMALISED):
            weight = -grad if metric in NORMALISED else grad
            if v is None:
                return times(weight + weight.mT, u), nothing
            return times(weight, v), times(weight.mT, u)
        weight = 2 * grad if metric == "sqeuclidean" else torch.where(out > 0, grad / out, 0)
        centre = u.mean(1, keepdim=True)  # leaves differences unchanged, and less cancels
        u, v = u - centre, None if v is None else v - centre
        if v is None:
            weight = weight + weight.mT
            return weight.sum(-1, keepdim=True) * u - times(weight, u), nothing
        first = weight.sum(-1, keepdim=True) * u - times(weight, v)
        return first, weight.sum(1).unsqueeze(-1) * v - times(weight.mT, u)
