"""Distances between all pairs of rows."""

from __future__ import annotations

import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.ops import reference
from bertft.ops.autograd import first_order
from bertft.ops.metrics import METRICS, check_metric
from bertft.ops.native import cpu as extension
from bertft.ops.pairwise_gradient import PRODUCTS, by_products
from bertft.ops.rows import check_matrix, check_nan, check_rows, metric_rows_backward, with_sentence


def pairwise_distance(
    x: Tensor,
    y: Tensor | None = None,
    *,
    metric: str = "sqeuclidean",
    condensed: bool = False,
    nan: str = "raise",
) -> Tensor:
    """``out[..., i, j] = d(x[..., i, :], y[..., j, :])``.

    ``dot`` is the plain inner product, ``cosine`` and ``correlation`` are 1 minus the similarity, ``sqeuclidean`` is
    squared and divided by nothing, ``euclidean`` is its root, ``manhattan`` the sum of absolute differences.

    Args:
        x: (..., N, D) float64, float32, bfloat16 or float16; any strides. Leading dimensions are layers.
        y: (..., M, D) with the same leading dimensions; None compares x with itself at half the work, exactly
            symmetric, with a diagonal of exact zeros (``dot``: squared norms).
        metric: dot, cosine, correlation, sqeuclidean, euclidean or manhattan.
        condensed: without y, only the pairs i < j, row by row, as SciPy's ``pdist`` orders them.
        nan: ``raise`` an error that names layer and row for a row that is not finite, or that has norm 0 under cosine
            or correlation; or ``propagate`` NaN.

    Returns:
        (..., N, M) or (..., N (N-1) / 2); float64 where an input is, else float32 (also for the halves, accumulated in
        float32). Equal rows are exactly 0 apart; small distances between large vectors keep 1e-5 relative in float32.
        Squares beyond the largest float32 overflow. Differentiable once, with finite gradients: 0 at zero distance of
        ``euclidean`` and at equal components of ``manhattan``. Nothing of size N x M x D exists in either pass.
    """
    check_metric(metric, op="pairwise_distance")
    check = check_nan(nan, op="pairwise_distance")
    check_matrix(x, "(..., N, D)", tuple(range(2, 64)), op="pairwise_distance", name="x")
    if y is not None:
        check_matrix(y, "(..., M, D)", tuple(range(2, 64)), op="pairwise_distance", name="y")
        if y.shape[:-2] != x.shape[:-2] or y.shape[-1] != x.shape[-1]:
            raise BertftError(
                f"pairwise_distance: y must be {(*x.shape[:-2], 'M', x.shape[-1])} to go with x, found {tuple(y.shape)}"
            )
        if y.device != x.device:
            raise BertftError(f"pairwise_distance: x and y must be on one device, found {x.device} and {y.device}")
        if condensed:
            raise BertftError("pairwise_distance: condensed needs y=None, the pairs i < j of one set of rows")
        if y.dtype != x.dtype:
            common = torch.float64 if torch.float64 in (x.dtype, y.dtype) else torch.float32
            x, y = x.to(common), y.to(common)
    lead = x.shape[:-2]
    layers = lead.numel()
    x3 = x.reshape(layers, *x.shape[-2:])
    y3 = None if y is None else y.reshape(layers, *y.shape[-2:])
    served = extension.serves(x)
    nothing = y3 is not None and 0 in (x3.shape[1], y3.shape[1])  # the kernel is not run, and so looks at no row
    if check and (nothing or not served):
        check_rows(x3, metric, op="pairwise_distance")
        if y3 is not None:
            check_rows(y3, metric, op="pairwise_distance", name="y")
    if served:
        op = torch.ops.bertft.pairwise_distance
        out = with_sentence(lambda: op(x3, y3, METRICS.index(metric), condensed, check))
    else:
        out = reference.pairwise_distance(x3, y3, metric=metric, condensed=condensed)
    return out.reshape(*lead, *out.shape[1:])


def _register() -> None:
    """Shape rule and gradient; the gradient of bringing rows into the metric's form is a few passes over (N, D)."""

    def result(x):
        return torch.float64 if x.dtype == torch.float64 else torch.float32

    def fake(x, y, metric, condensed, check):
        B, N, _ = x.shape
        shape = (B, N * (N - 1) // 2) if condensed else (B, N, N if y is None else y.shape[1])
        return x.new_empty(shape, dtype=result(x))

    def fake_backward(grad, x, y, out, metric, condensed):
        return x.new_empty(x.shape, dtype=result(x)), x.new_empty(
            (0, 0, x.shape[2]) if y is None else y.shape, dtype=result(x)
        )

    def setup_context(ctx, inputs, output):
        x, y, ctx.metric, ctx.condensed, _ = inputs
        ctx.save_for_backward(x, y, output if METRICS[ctx.metric] == "euclidean" else None)

    def backward(ctx, grad):
        x, y, out = ctx.saved_tensors
        metric = METRICS[ctx.metric]
        out = grad if out is None else out
        if grad.is_cuda and metric in PRODUCTS and not ctx.condensed:
            grads = by_products(grad, x, y, out, metric)
        else:
            grads = torch.ops.bertft.pairwise_distance_backward(grad, x, y, out, ctx.metric, ctx.condensed)
        grad_x = metric_rows_backward(x, grads[0], metric).to(x.dtype)
        grad_y = None if y is None else metric_rows_backward(y, grads[1], metric).to(y.dtype)
        return *first_order("pairwise_distance", (grad_x, grad_y), (x, *(() if y is None else (y,)))), None, None, None

    torch.library.register_fake("bertft::pairwise_distance", fake)
    torch.library.register_fake("bertft::pairwise_distance_backward", fake_backward)
    torch.library.register_autograd("bertft::pairwise_distance", backward, setup_context=setup_context)


extension.on_load(_register)
