"""Distances between all pairs of rows."""

from __future__ import annotations

import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.ops import parts, reference
from bertft.ops.autograd import first_order
from bertft.ops.metrics import METRICS, check_metric
from bertft.ops.native import cpu, dispatch
from bertft.ops.pairwise_gradient import PRODUCTS, gradients
from bertft.ops.precision import check_precision
from bertft.ops.rows import check_matrix, check_nan, check_rows, check_width, metric_rows_backward, raising_bad_row


def pairwise_distance(
    x: Tensor,
    y: Tensor | None = None,
    *,
    metric: str = "sqeuclidean",
    condensed: bool = False,
    nan: str = "raise",
    precision: str = "float32",
) -> Tensor:
    """Return ``out[..., i, j] = d(x[..., i, :], y[..., j, :])``.

    ``dot`` is the plain inner product; ``cosine`` and ``correlation`` are 1 minus the similarity; ``sqeuclidean`` is
    squared and not divided by D; ``euclidean`` is its root; ``manhattan`` is the sum of absolute differences.

    Args:
        x: (..., N, D) float64, float32, bfloat16 or float16; any strides. Leading dimensions are layers.
        y: (..., M, D) with the same leading dimensions. None compares x with itself at half the work; the result is
            exactly symmetric with a diagonal of exact zeros (``dot``: squared norms).
        metric: dot, cosine, correlation, sqeuclidean, euclidean or manhattan.
        condensed: without y, return only the pairs i < j, row by row, in the order of SciPy's ``pdist``.
        nan: ``raise`` `BadRow` for a row that is not finite, or has norm 0 under cosine or correlation; or
            ``propagate`` NaN.
        precision: ``float32``; ``fast``; or ``float64``, which converts the inputs (`bertft.ops.precision`). Errors, as
            a share of the largest distance: float32 1e-6; fast 2e-4, and 2e-3 where two dimensions dominate, where
            tensor cores serve, else as float32; float64 1e-14. Those of gradients: 1e-6, 1e-3, 1e-13.

    Returns:
        (..., N, M) or (..., N (N-1) / 2); float64 if an input or ``precision`` is, else float32 (halves are accumulated
        in float32). Equal rows are exactly 0 apart. Small distances between large vectors keep 1e-5 relative in float32
        (``fast`` 2e-3). Squares beyond the largest float32 overflow. With D = 0 all entries are 0. Differentiable once,
        with finite gradients: 0 at zero distance under ``euclidean``, and for equal components under ``manhattan``.
        Neither pass holds N x M x D numbers.

    Raises:
        BertftError: Shapes, types, devices or names do not fit, or D = 0 under cosine or correlation.
    """
    check_metric(metric, op="pairwise_distance")
    check = check_nan(nan, op="pairwise_distance")
    check_precision(precision, op="pairwise_distance")
    _check_shapes(x, y, metric, condensed)
    x, y = _of_one_type(x, y, precision)
    x3 = x.reshape(x.shape[:-2].numel(), *x.shape[-2:])
    y3 = None if y is None else y.reshape(len(x3), *y.shape[-2:])
    out = _distances(x3, y3, metric, condensed, check, fast=precision == "fast")
    return out.reshape(*x.shape[:-2], *out.shape[1:])


def _of_one_type(x: Tensor, y: Tensor | None, precision: str) -> tuple[Tensor, Tensor | None]:
    """Return both inputs in float64 if one of them or ``precision`` is, else in float32 if they differ in type."""
    if precision == "float64":
        return x.double(), None if y is None else y.double()
    if y is None or y.dtype == x.dtype:
        return x, y
    common = torch.float64 if torch.float64 in (x.dtype, y.dtype) else torch.float32
    return x.to(common), y.to(common)


def _distances(x3: Tensor, y3: Tensor | None, metric: str, condensed: bool, check: bool, *, fast: bool) -> Tensor:
    """Return the distances of x3 (L, N, D) and y3 (L, M, D) by the kernels, by parts, or by plain PyTorch."""
    served = dispatch.serves(x3) and x3.shape[-1] > 0  # the GPU's kernels would take an empty y for none
    nothing = y3 is not None and 0 in (x3.shape[1], y3.shape[1])  # the kernel does not run, so it checks no row
    if check and (nothing or not served):
        check_rows(x3, metric, op="pairwise_distance")
        if y3 is not None:
            check_rows(y3, metric, op="pairwise_distance", name="y")
    if served:
        op = torch.ops.bertft.pairwise_distance
        return raising_bad_row(lambda: op(x3, y3, METRICS.index(metric), condensed, check, fast))
    if metric in PRODUCTS and not _needs_gradient(x3, y3) and parts.serve(x3, y3):
        return parts.distance(x3, y3, metric, condensed=condensed, fast=fast)
    return reference.pairwise_distance(x3, y3, metric=metric, condensed=condensed)


def _needs_gradient(x: Tensor, y: Tensor | None) -> bool:
    return torch.is_grad_enabled() and (x.requires_grad or (y is not None and y.requires_grad))


def _check_shapes(x: Tensor, y: Tensor | None, metric: str, condensed: bool) -> None:
    check_matrix(x, "(..., N, D)", tuple(range(2, 64)), op="pairwise_distance", name="x")
    check_width(x, metric, op="pairwise_distance", name="x")
    if y is None:
        return
    check_matrix(y, "(..., M, D)", tuple(range(2, 64)), op="pairwise_distance", name="y")
    if y.shape[:-2] != x.shape[:-2] or y.shape[-1] != x.shape[-1]:
        raise BertftError(
            f"pairwise_distance: y must be {(*x.shape[:-2], 'M', x.shape[-1])} to go with x, found {tuple(y.shape)}"
        )
    if y.device != x.device:
        raise BertftError(f"pairwise_distance: x and y must be on one device, found {x.device} and {y.device}")
    if condensed:
        raise BertftError("pairwise_distance: condensed needs y=None, the pairs i < j of one set of rows")


def _register() -> None:
    """Register the shape rule and the gradient, which takes a few more passes over (N, D) for normalised rows."""

    def result(x):
        return torch.float64 if x.dtype == torch.float64 else torch.float32

    def fake(x, y, metric, condensed, check, fast=False):
        B, N, _ = x.shape
        shape = (B, N * (N - 1) // 2) if condensed else (B, N, N if y is None else y.shape[1])
        return x.new_empty(shape, dtype=result(x))

    def fake_backward(grad, x, y, out, metric, condensed):
        return x.new_empty(x.shape, dtype=result(x)), x.new_empty(
            (0, 0, x.shape[2]) if y is None else y.shape, dtype=result(x)
        )

    def setup_context(ctx, inputs, output):
        x, y, ctx.metric, ctx.condensed, _, ctx.fast = inputs
        ctx.save_for_backward(x, y, output if METRICS[ctx.metric] == "euclidean" else None)

    def backward(ctx, grad):
        x, y, out = ctx.saved_tensors
        metric = METRICS[ctx.metric]
        out = grad if out is None else out
        grads = gradients(grad, x, y, out, metric, condensed=ctx.condensed, fast=ctx.fast)
        grad_x = metric_rows_backward(x, grads[0], metric).to(x.dtype)
        grad_y = None if y is None else metric_rows_backward(y, grads[1], metric).to(y.dtype)
        return *first_order("pairwise_distance", (grad_x, grad_y), (x, *(() if y is None else (y,)))), *[None] * 4

    torch.library.register_fake("bertft::pairwise_distance", fake)
    torch.library.register_fake("bertft::pairwise_distance_backward", fake_backward)
    torch.library.register_autograd("bertft::pairwise_distance", backward, setup_context=setup_context)


cpu.on_load(_register)
