"""Sums over all pairs of stimuli from plain matrix products, block of rows by block of rows: the way of a GPU.

A product of a library is several times faster there than a tile that must keep the entries of all layers at hand, and
memory takes the entries of a block of rows: with rows u, v in the metric's form less a provisional mean, and columns
for p and 1 beside them,

    entry - shift = scale * [u, p, 1] [v, 1, p - shift / scale]'      (`bertft.ops.metrics`)

so that one product a layer makes a block's entries, and one of float64 over the block adds up all pairs of layers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bertft.ops.full_precision import full_precision
from bertft.ops.metrics import NORMALISED, SCALE
from bertft.ops.moment_formulas import metric_offset
from bertft.ops.reference import metric_rows
from bertft.ops.rows import check_rows

BYTES = 1 << 29  # of the entries of one block, in float32 and float64


def serves(metrics: tuple[str, str]) -> bool:
    """Whether the entries of both metrics follow from products."""
    return "manhattan" not in metrics


def rdm_moments(
    x: Tensor, y: Tensor | None, metric_x: str, metric_y: str, dtype: torch.dtype, *, check: bool, size: int = BYTES
) -> tuple[Tensor, Tensor, Tensor]:
    """What `bertft.ops.reference.rdm_moments` returns, from products in ``dtype``.

    Sums (P,) of the entries of P matrices less their shift over the pairs i < j, products (P, P) and shifts (P,), all
    float64. ``size`` bytes of entries at a time.
    """
    sides = [(x, metric_x, "x")] if y is None else [(x, metric_x, "x"), (y, metric_y, "y")]
    if check:
        for rows, metric, name in sides:
            _check(rows, metric, name)
    with full_precision(x):
        factors = [_factors(rows, metric, dtype) for rows, metric, _ in sides]
        P, N = sum(len(left) for left, _, _ in factors), x.shape[1]
        sums, products = (x.new_zeros(shape, dtype=torch.float64) for shape in ((P,), (P, P)))
        step = max(1, min(N, size // max(1, P * N * (dtype.itemsize + 8))))
        for first in range(0, N, step):
            height, width = min(step, N - first), N - first
            wide = x.new_empty(P, height, width, dtype=torch.float64)
            place = 0
            for (left, right, shift), (_, metric, _) in zip(factors, sides, strict=True):
                entries = torch.bmm(left[:, first : first + height], right[:, first:].mT)
                if metric == "euclidean":
                    entries = entries.clamp_(min=0).sqrt_().sub_(shift.view(-1, 1, 1))
                entries[:, :, :height].triu_(1)
                wide[place : place + len(left)] = entries
                place += len(left)
            sums += wide.sum((1, 2))
            # Row by row of the block: a single product of P x P over millions would leave most of the GPU idle.
            by_row = wide.transpose(0, 1)
            products += torch.bmm(by_row, by_row.mT).sum(0)
    return sums, products, torch.cat([shift for _, _, shift in factors])


def _factors(rows: Tensor, metric: str, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Left and right factor (L, N, D') of a block's entries less the shift, and the shift (L,) float64.

    The shift of euclidean distances is not in the factors, whose product is their square.
    """
    squared = metric in ("sqeuclidean", "euclidean")
    scale, (layers, n, d) = SCALE.get(metric, -2.0), rows.shape
    left = torch.zeros(layers, n, -(-(d + 2) // 4) * 4, dtype=dtype, device=rows.device)
    right = torch.zeros_like(left)
    shift = rows.new_zeros(layers, dtype=torch.float64)
    for k, layer in enumerate(rows):  # a layer at a time: float64 of all would be as large as a block
        u = metric_rows(layer.to(dtype), metric)
        mean = u.mean(0, dtype=torch.float64).to(dtype)
        u = u - mean
        wide, mean = u.double(), mean.double()
        p = -wide.square().sum(-1) / 2 if squared else wide @ mean
        # The mean of scale K, from the sums of u.v and of p.
        total = (wide.sum(0).square().sum() - wide.square().sum()) / 2 + (n - 1) * p.sum()
        typical = total * scale / max(1, n * (n - 1) // 2)
        left[k, :, :d], right[k, :, :d] = u * scale, u
        left[k, :, d], right[k, :, d] = p * scale, 1
        left[k, :, d + 1], right[k, :, d + 1] = scale, p if metric == "euclidean" else p - typical / scale
        if metric == "euclidean":
            shift[k] = typical.clamp(min=0).sqrt()
        else:
            shift[k] = typical + metric_offset(metric, mean)
    return left, right, shift


def _check(rows: Tensor, metric: str, name: str) -> None:
    """`bertft.ops.rows.check_rows`, which takes float64 of all rows, only where a quick look finds something odd."""
    norm = torch.linalg.vector_norm(rows, dim=-1, dtype=torch.float32)
    odd = ~norm.isfinite()
    if metric in NORMALISED:
        odd |= norm == 0
    if metric == "correlation":
        centred = rows - rows.mean(-1, keepdim=True)
        odd |= torch.linalg.vector_norm(centred, dim=-1, dtype=torch.float32) <= 1e-4 * norm
    if bool(odd.any()):
        for k, layer in enumerate(rows):
            check_rows(layer, metric, op="rdm_correlation", name=f"{name} in layer {k}")
