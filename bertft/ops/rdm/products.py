"""Sums over all pairs by matrix products, for GPUs.

A library's product is several times faster there than a tile that keeps the entries of all layers at hand. It takes
memory for the entries of a block of rows. With rows u, v in the metric's form less a provisional mean, and further
columns for p and 1,

    entry - shift = scale * [u, p, 1] [v, 1, p - shift / scale]'      (`bertft.ops.metrics`)

so that one product per layer gives a block's entries. One product per row of the block, summed over rows in float64,
then adds up all pairs of layers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bertft.ops.full_precision import full_precision
from bertft.ops.metrics import NORMALISED, SCALE
from bertft.ops.moments.formulas import metric_offset
from bertft.ops.reference import metric_rows
from bertft.ops.rows import check_rows

BYTES = 1 << 29  # for the entries of one block


def serves(metrics: tuple[str, str]) -> bool:
    """Return whether the entries of both metrics follow from products."""
    return "manhattan" not in metrics


def rdm_moments(
    x: Tensor, y: Tensor | None, metric_x: str, metric_y: str, dtype: torch.dtype, *, check: bool, size: int = BYTES
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sums of `bertft.ops.reference.rdm_moments`, from products in ``dtype``.

    Sums (P,) of the entries of P matrices less their shift over the pairs i < j, products (P, P) and shifts (P,), all
    float64. ``size`` bounds the bytes of entries held at a time. In float32, a euclidean distance of nearly equal rows,
    below about 3e-4 of their distance from the mean, is rounding noise.
    """
    sides = [(x, metric_x, "x")] if y is None else [(x, metric_x, "x"), (y, metric_y, "y")]
    if check:
        for rows, metric, name in sides:
            _check(rows, metric, name)
    with full_precision(x):
        factors = [_factors(rows, metric, dtype) for rows, metric, _ in sides]
        P, N = sum(len(left) for left, _, _ in factors), x.shape[1]
        sums, products = (x.new_zeros(shape, dtype=torch.float64) for shape in ((P,), (P, P)))
        step = max(1, min(N, size // max(1, P * N * dtype.itemsize)))
        for first in range(0, N, step):
            height = min(step, N - first)
            entries = x.new_empty(P, height, N - first, dtype=dtype)
            place = 0
            for (left, right, shift), (_, metric, _) in zip(factors, sides, strict=True):
                own = entries[place : place + len(left)]
                torch.bmm(left[:, first : first + height], right[:, first:].mT, out=own)
                if metric == "euclidean":
                    own.clamp_(min=0).sqrt_().sub_(shift.view(-1, 1, 1))
                place += len(left)
            entries[:, :, :height].triu_(1)
            sums += entries.sum(2).sum(1, dtype=torch.float64)
            # Row by row: a single P x P product over millions of pairs would leave most of the GPU idle, and sum too
            # many numbers in float32.
            by_row = entries.transpose(0, 1)
            products += torch.bmm(by_row, by_row.mT).sum(0, dtype=torch.float64)
    return sums, (products + products.mT) / 2, torch.cat([shift for _, _, shift in factors])


def _factors(rows: Tensor, metric: str, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return the factors (L, N, D') of a block's entries less the shift, and the shift (L,) float64.

    The factors of euclidean distances give their square, and leave out the shift.
    """
    scale, (layers, n, d) = SCALE.get(metric, -2.0), rows.shape
    left = torch.zeros(layers, n, -(-(d + 2) // 4) * 4, dtype=dtype, device=rows.device)
    right = torch.zeros_like(left)
    shift = rows.new_zeros(layers, dtype=torch.float64)
    # Float64 up to the difference from the mean, because rows that point in one direction would lose most of float32's
    # digits in it. Layer by layer, because all layers would take more memory than a block.
    for k, layer in enumerate(rows):
        wide = metric_rows(layer.double(), metric)
        mean = wide.mean(0).to(dtype).double()
        wide = wide - mean
        squares = wide.square().sum(-1)
        p = -squares / 2 if metric in ("sqeuclidean", "euclidean") else wide @ mean
        # The mean of scale K, from the sums of u.v and of p.
        total = (wide.sum(0).square().sum() - squares.sum()) / 2 + (n - 1) * p.sum()
        typical = total * scale / max(1, n * (n - 1) // 2)
        left[k, :, :d], right[k, :, :d] = wide * scale, wide
        left[k, :, d], right[k, :, d] = p * scale, 1
        left[k, :, d + 1], right[k, :, d + 1] = scale, p if metric == "euclidean" else p - typical / scale
        shift[k] = typical.clamp(min=0).sqrt() if metric == "euclidean" else typical + metric_offset(metric, mean)
    return left, right, shift


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
