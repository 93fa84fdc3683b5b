"""Sums over stimuli, the linear-time step behind similarity."""

from __future__ import annotations

import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.ops import reference
from bertft.ops.autograd import first_order
from bertft.ops.full_precision import full_precision
from bertft.ops.metrics import LINEAR, METRICS, check_metric
from bertft.ops.moments.gradient import Rows, add_pair
from bertft.ops.moments.layout import Moments, Pair, Space
from bertft.ops.native import cpu, dispatch
from bertft.ops.precision import check_precision
from bertft.ops.rows import check_device, check_matrix, check_nan, check_rows, check_width, raising_bad_row

__all__ = ["Moments", "Pair", "Space", "cross_moments", "provisional_mean"]


def provisional_mean(x: Tensor, metric: str = "cosine", *, rows: int = 128) -> Tensor:
    """Return the mean (D,) float64 of the first ``rows`` rows of x (n, D) in the form in which ``metric`` takes them.

    It is rounded to float32, so that kernels of either precision subtract exactly the same vector. It has no gradient,
    because the statistics do not depend on it.
    """
    with torch.no_grad():
        u = reference.metric_rows(x[:rows].double(), check_metric(metric, LINEAR, op="provisional_mean"))
        return u.mean(0).float().double() if len(u) else x.new_zeros(x.shape[-1], dtype=torch.float64)


def cross_moments(
    x: Tensor,
    y: Tensor | None = None,
    *,
    mean_x: Tensor,
    mean_y: Tensor | None = None,
    metric: str = "cosine",
    metric_y: str | None = None,
    grams: bool = True,
    float64: bool = False,
    out: Moments | None = None,
    nan: str = "raise",
    precision: str = "float32",
) -> Moments:
    """Return the moments of one chunk of stimuli (`bertft.ops.moments.layout` defines them).

    Args:
        x: (n, D) float64, float32, bfloat16 or float16.
        y: (n, E), other vectors of the same stimuli.
        mean_x: (D,) provisional mean in the metric's own form (`provisional_mean`), the same for every chunk.
        mean_y: (E,), likewise.
        metric: dot, cosine, correlation or sqeuclidean.
        metric_y: that of y, by default ``metric``.
        grams: False leaves out U'U, V'V and the sums of single spaces.
        float64: float64 products (as for float64 input and up to 128 dimensions), not float32 ones summed in float64.
        out: moments to add to in place, without a gradient; they are returned.
        nan: ``raise`` `BadRow` for a row that is not finite, or has norm 0 under cosine or correlation; or
            ``propagate`` NaN. When it raises, ``out`` is unchanged.
        precision: ``float32``, ``fast`` or ``float64``, as ``float64`` (`bertft.ops.precision`). Errors of U'U, U'V and
            V'V, as a share of the largest entry: float32 1e-6; fast 4e-3 / sqrt n where tensor cores serve, else as
            float32; float64 1e-13. All other sums are float64. Gradients of ``fast`` are those of float32.

    Differentiable once in x and y, with n d^2 work. Raises BertftError for shapes that do not fit.
    """
    check_metric(metric, LINEAR, op="cross_moments")
    check = check_nan(nan, op="cross_moments")
    metric_y = check_metric(metric_y or metric, LINEAR, op="cross_moments (metric_y)")
    precision = check_precision(precision, op="cross_moments", float64=float64)
    float64, fast = precision == "float64", precision == "fast"
    _check_shapes(x, y, mean_x, mean_y, (metric, metric_y))
    together = {"y": y, "mean_x": mean_x, "mean_y": mean_y, **({} if out is None else out._asdict())}
    check_device("cross_moments", "x", x, **together)
    if not dispatch.serves(x):
        return _by_reference(x, y, mean_x, mean_y, (metric, metric_y), grams, check, out)
    means = (mean_x.double().contiguous(), None if mean_y is None else mean_y.double().contiguous())
    codes, filled = (METRICS.index(metric), METRICS.index(metric_y)), _filled(y, grams)
    if out is None:
        op = torch.ops.bertft.cross_moments
        with full_precision(x):
            sums = raising_bad_row(lambda: op(x, y, *means, *codes, grams, float64, check, fast))
        return Moments(*(t if kept else None for t, kept in zip(sums, filled, strict=True)))
    totals = [t if t is not None and kept else mean_x.new_empty(0) for t, kept in zip(out, filled, strict=True)]
    with torch.no_grad(), full_precision(x):
        add = torch.ops.bertft.cross_moments_add
        raising_bad_row(lambda: add(x, y, *means, *codes, float64, check, *totals, fast))
    return out


def _check_shapes(x: Tensor, y: Tensor | None, mean_x: Tensor, mean_y: Tensor | None, metrics: tuple[str, str]) -> None:
    check_matrix(x, "(n, D)", (2,), op="cross_moments", name="x")
    check_width(x, metrics[0], op="cross_moments", name="x")
    if mean_x.shape != x.shape[1:]:
        raise BertftError(f"cross_moments: mean_x must be ({x.shape[1]},) to go with x, found {tuple(mean_x.shape)}")
    if y is not None:
        check_matrix(y, "(n, E)", (2,), op="cross_moments", name="y")
        check_width(y, metrics[1], op="cross_moments", name="y")
        if len(y) != len(x):
            raise BertftError(f"cross_moments: x and y must hold the same stimuli, found {len(x)} and {len(y)} rows")
        if mean_y is None or mean_y.shape != y.shape[1:]:
            found = None if mean_y is None else tuple(mean_y.shape)
            raise BertftError(f"cross_moments: mean_y must be ({y.shape[1]},) to go with y, found {found}")


def _by_reference(
    x: Tensor,
    y: Tensor | None,
    mean_x: Tensor,
    mean_y: Tensor | None,
    metrics: tuple[str, str],
    grams: bool,
    check: bool,
    out: Moments | None,
) -> Moments:
    for rows, kind, name in ((x, metrics[0], "x"), (y, metrics[1], "y")):
        if rows is not None and check:
            check_rows(rows, kind, op="cross_moments", name=name)
    chunk = Moments(*reference.cross_moments(x, y, mean_x, mean_y, *metrics, grams=grams))
    if out is None:
        return chunk
    for total, part in zip(out, chunk, strict=True):
        if total is not None and part is not None:
            total += part.detach()
    return out


def _filled(y: Tensor | None, grams: bool) -> tuple[bool, ...]:
    """Return which of the six fields a call fills."""
    both, single = y is not None, grams or y is None
    return single, single, both, both, both and grams, both and grams


def _register() -> None:
    """Register shape rules and the gradient, which prepares the rows again and costs as much as the sums."""

    def fake(x, y, mean_x, mean_y, metric_x, metric_y, grams, *_):
        D, E = x.shape[1], 0 if y is None else y.shape[1]
        shapes = ((D, D), (3 * D + 6,), (D, E), (2 * (D + E) + 4,), (E, E), (3 * E + 6,))
        filled = _filled(y, grams)
        return tuple(
            x.new_empty(shape if kept else [0] * len(shape), dtype=torch.float64)
            for shape, kept in zip(shapes, filled, strict=True)
        )

    def fake_add(*_):
        return None

    def setup_context(ctx, inputs, output):
        x, y, mean_x, mean_y, ctx.metric_x, ctx.metric_y, _, ctx.float64, *_ = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, y, mean_x, mean_y)

    def backward(ctx, *grads):
        x, y, mean_x, mean_y = ctx.saved_tensors
        metrics = METRICS[ctx.metric_x], METRICS[ctx.metric_y]
        wide = ctx.float64 or torch.float64 in (x.dtype, None if y is None else y.dtype)
        dtype = torch.float64 if wide else torch.float32
        g = Moments(*(None if t is None or t.numel() == 0 else t.to(dtype) for t in grads))
        with torch.autocast(x.device.type, enabled=False), full_precision(x):  # backward may run inside it
            first = Rows(x, mean_x, metrics[0], dtype)
            second = None if y is None else Rows(y, mean_y, metrics[1], dtype)
            first.add_space(g.gram_x, g.stats_x)
            if second is not None:
                second.add_space(g.gram_y, g.stats_y)
                add_pair(first, second, g.cross, g.stats_xy)
            out = (first.gradient(), None if second is None else second.gradient())
        return *first_order("cross_moments", out, (x, *(() if y is None else (y,)))), *[None] * 8

    torch.library.register_fake("bertft::cross_moments", fake)
    torch.library.register_fake("bertft::cross_moments_add", fake_add)
    torch.library.register_autograd("bertft::cross_moments", backward, setup_context=setup_context)


cpu.on_load(_register)
