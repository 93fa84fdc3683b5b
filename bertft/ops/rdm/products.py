"""Sums over all pairs by matrix products, for GPUs.

A library's product is several times faster there than a tile that keeps the entries of all layers at hand. It takes
memory for the entries of a block of rows. With rows u, v in the metric's form less a provisional mean, and further
columns for p and 1,

    entry - shift = scale * [u, p, 1] [v, 1, p - shift / scale]'      (`bertft.ops.metrics`)

so that one product per layer gives a block's entries. One product per row of the block, summed over rows in float64,
then adds up all pairs of layers. Without a compiler, cards with fast tensor cores form the entries from float16 parts
(`bertft.ops.parts`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bertft.ops import parts
from bertft.ops.full_precision import full_precision
from bertft.ops.metrics import NORMALISED, SCALE
from bertft.ops.moments.formulas import metric_offset
from bertft.ops.reference import metric_rows
from bertft.ops.rows import check_rows

BYTES = 1 << 29  # for the entries of one block


def serves(metrics: tuple[str, str]) -> bool:
    """Return whether the entries of both metrics follow from products."""
    return "manhattan" not in metrics


class _Floats:
    """One side's entries by products in a type of their own: factors (L, N, D') of a block's entries less the shift.

    The factors of euclidean distances give their square, and leave out the shift.
    """

    def __init__(self, rows: Tensor, metric: str, dtype: torch.dtype) -> None:
        self.metric, (layers, n, d) = metric, rows.shape
        self.left = torch.zeros(layers, n, -(-(d + 2) // 4) * 4, dtype=dtype, device=rows.device)
        self.right = torch.zeros_like(self.left)
        self.shift = rows.new_zeros(layers, dtype=torch.float64)
        for k, layer in enumerate(rows):
            scale, wide, p, typical, self.shift[k] = _prepared(layer, metric, dtype)
            self.left[k, :, :d], self.right[k, :, :d] = wide * scale, wide
            self.left[k, :, d], self.right[k, :, d] = p * scale, 1
            self.left[k, :, d + 1] = scale
            self.right[k, :, d + 1] = p if metric == "euclidean" else p - typical / scale

    def write(self, first: int, height: int, out: Tensor) -> None:
        """Write the entries (L, height, N - first) of rows from ``first`` on and later columns."""
        torch.bmm(self.left[:, first : first + height], self.right[:, first:].mT, out=out)


class _Parts:
    """The same by float16 parts (`bertft.ops.parts`)."""

    def __init__(self, rows: Tensor, metric: str, dtype: torch.dtype, *, fast: bool) -> None:
        self.metric, self.fast = metric, fast
        self.layers: list[tuple[parts.Halves, Tensor, Tensor, float]] = []
        self.shift = rows.new_zeros(len(rows), dtype=torch.float64)
        for k, layer in enumerate(rows):
            scale, wide, p, typical, self.shift[k] = _prepared(layer, metric, dtype)
            halves, p = parts.halves(wide, parts.ascending(wide.nan_to_num(0, 0, 0)), fast=fast), p * scale
            second = p if metric == "euclidean" else p - typical
            self.layers.append((halves, p.float(), second.float(), scale))

    def write(self, first: int, height: int, out: Tensor) -> None:
        """Write the entries (L, height, N - first) of rows from ``first`` on and later columns."""
        for entries, (halves, p, q, scale) in zip(out, self.layers, strict=True):
            some, others = slice(first, first + height), slice(first, None)
            found = parts.product(halves.some(some), halves.some(others), fast=self.fast)
            torch.add(p[some, None], q[others], out=entries)
            entries.add_(found, alpha=scale)


def rdm_moments(
    x: Tensor,
    y: Tensor | None,
    metric_x: str,
    metric_y: str,
    dtype: torch.dtype,
    *,
    check: bool,
    size: int = BYTES,
    fast: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sums of `bertft.ops.reference.rdm_moments`, from products in ``dtype``.

    Sums (P,) of the entries of P matrices less their shift over the pairs i < j, products (P, P) and shifts (P,), all
    float64. ``size`` bounds the bytes of entries held at a time. In float32, a euclidean distance of nearly equal rows,
    below about 3e-4 of their distance from the mean, is rounding noise. Where tensor cores serve without a kernel,
    float32 products are sums of products of float16 parts; ``fast`` takes the high parts alone.
    """
    sides = [(x, metric_x, "x")] if y is None else [(x, metric_x, "x"), (y, metric_y, "y")]
    if check:
        for rows, metric, name in sides:
            _check(rows, metric, name)
    if dtype == torch.float32 and parts.serve(x, y):
        return sums_by_parts(x, y, metric_x, metric_y, size=size, fast=fast)
    with full_precision(x):
        return _summed([_Floats(rows, metric, dtype) for rows, metric, _ in sides], x, dtype, size)


def sums_by_parts(
    x: Tensor, y: Tensor | None, metric_x: str, metric_y: str, *, size: int = BYTES, fast: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Return `rdm_moments` from products of float16 parts."""
    sides = [(x, metric_x)] if y is None else [(x, metric_x), (y, metric_y)]
    with full_precision(x):
        made = [_Parts(rows, metric, torch.float32, fast=fast) for rows, metric in sides]
        return _summed(made, x, torch.float32, size)


def _summed(
    sides: Sequence[_Floats | _Parts], x: Tensor, dtype: torch.dtype, size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return sums and products over all pairs, and shifts, from the entries of blocks of rows."""
    P, N = sum(len(side.shift) for side in sides), x.shape[1]
    sums, products = (x.new_zeros(shape, dtype=torch.float64) for shape in ((P,), (P, P)))
    step = max(1, min(N, size // max(1, P * N * dtype.itemsize)))
    for first in range(0, N, step):
        height = min(step, N - first)
        entries = x.new_empty(P, height, N - first, dtype=dtype)
        place = 0
        for side in sides:
            own = entries[place : place + len(side.shift)]
            side.write(first, height, own)
            if side.metric == "euclidean":
                own.clamp_(min=0).sqrt_().sub_(side.shift.view(-1, 1, 1))
            place += len(side.shift)
        entries[:, :, :height].triu_(1)
        sums += entries.sum(2).sum(1, dtype=torch.float64)
        # Row by row: a single P x P product over millions of pairs would leave most of the GPU idle, and sum too many
        # numbers in float32.
        by_row = entries.transpose(0, 1)
        products += torch.bmm(by_row, by_row.mT).sum(0, dtype=torch.float64)
    return sums, (products + products.mT) / 2, torch.cat([side.shift for side in sides])


def _prepared(layer: Tensor, metric: str, dtype: torch.dtype) -> tuple[float, Tensor, Tensor, Tensor, Tensor]:
    """Return the metric's scale, rows u (N, D) and p (N,) float64, the mean of scale (u.v + p_u + p_v), and the shift.

    Float64 up to the difference from the mean, because rows that point in one direction would lose most of float32's
    digits in it. A layer at a time, because all layers would take more memory than a block. ``dtype`` is that of the
    provisional mean.
    """
    scale, n = SCALE.get(metric, -2.0), len(layer)
    wide = metric_rows(layer.double(), metric)
    mean = wide.mean(0).to(dtype).double()
    wide = wide - mean
    squares = wide.square().sum(-1)
    p = -squares / 2 if metric in ("sqeuclidean", "euclidean") else wide @ mean
    # The mean of scale K, from the sums of u.v and of p.
    total = (wide.sum(0).square().sum() - squares.sum()) / 2 + (n - 1) * p.sum()
    typical = total * scale / max(1, n * (n - 1) // 2)
    shift = typical.clamp(min=0).sqrt() if metric == "euclidean" else typical + metric_offset(metric, mean)
    return scale, wide, p, typical, shift


def _check(rows: Tensor, metric: str, name: str) -> None:
    """Run `check_rows`, which copies all rows to float64, only if a quick look finds a suspicious row."""
    if torch.compiler.is_compiling():
        return
    norm = torch.linalg.vector_norm(rows.float(), dim=-1)
    odd = ~norm.isfinite()
    if metric in NORMALISED:
        odd |= norm == 0
    if metric == "correlation":
        centred = rows.float() - rows.float().mean(-1, keepdim=True)
        odd |= torch.linalg.vector_norm(centred, dim=-1) <= 1e-4 * norm
    if bool(odd.any()):
        for k, layer in enumerate(rows):
            check_rows(layer, metric, op="rdm_correlation", name=name, layer=k)
