"""Float32 products on float16 tensor cores by a library, for GPUs without compiled kernels.

A row u of D columns times a power of two is hi + lo, two float16 numbers (csrc/cuda/split_rows.cu). With the row
w = [hi, lo, hi, hi],

    w[D:] . w'[:3 D] = lo.hi' + hi.lo' + hi.hi'

is one product of 3 D columns with float32 sums: `torch.bmm` with ``out_dtype=torch.float32``. Unlike the kernels' sums,
those of a library stay in the tensor cores, which cut towards zero. Small terms therefore come first, columns ascend by
variance, and rows of more than 1,024 columns are left to float32. By the model of the cores, at 768 columns, distances
err by 3e-7 of the largest (5e-7 where two dimensions dominate), and RSA by 1e-8.
"""

from __future__ import annotations

import functools
import os
from typing import NamedTuple

import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.ops import reference
from bertft.ops.full_precision import full_precision
from bertft.ops.metrics import NORMALISED
from bertft.ops.native import dispatch

MOST_COLUMNS = 1024
LEAST_ROWS, LEAST_COLUMNS = 256, 64  # as in csrc/bind_cuda_split.h
WORTHWHILE = 3.5  # rate of float16 products over that of float32 products
NEAR = 1 / 32  # share of |u|^2 + |v|^2 below which a difference of products has lost digits
BLOCK = 2048  # rows of distances at a time
REPAIRED = 1 << 22  # numbers of near pairs that are recomputed at a time


class Halves(NamedTuple):
    """Rows (N, D) as float16 parts."""

    w: Tensor  # (N, 4 D): [hi, lo, hi, hi], or (N, D): hi
    scale: Tensor  # (N,) float32; a row is scale (hi + lo)

    def some(self, rows: slice) -> Halves:
        """Return some of the rows."""
        return Halves(self.w[rows], self.scale[rows])


def serve(x: Tensor, y: Tensor | None = None) -> bool:
    """Return whether products of the rows of x (L, N, D), and of y, are taken by parts.

    They are on a GPU without compiled kernels whose float16 products are several times as fast as its float32 ones
    (``BERTFT_CORE`` overrides). While torch traces a graph the answer is no: it depends on the card.
    """
    rows = [x] if y is None else [x, y]
    if torch.compiler.is_compiling() or type(x) is not Tensor or not x.is_cuda or dispatch.serves(x):
        return False
    if any(t.dtype == torch.float64 or not 0 < t.shape[-1] <= MOST_COLUMNS for t in rows):
        return False
    choice = os.environ.get("BERTFT_CORE", "auto")
    if choice not in ("auto", "split", "plain"):
        raise BertftError(f"BERTFT_CORE must be split or plain, not {choice}")
    if choice != "auto":
        return choice == "split"
    least = min(t.shape[-1] for t in rows)
    return min(t.shape[-2] for t in rows) >= LEAST_ROWS and least >= LEAST_COLUMNS and rate(x.device) >= WORTHWHILE


@functools.cache
def rate(device: torch.device, side: int = 4096) -> float:
    """Return the rate of float16 products of ``side`` rows in units of that of float32 products."""
    wide = torch.ones(1, side, side, device=device)
    half, milliseconds = wide.half(), []
    with full_precision(wide):
        for run in (lambda: times(half, half), lambda: torch.bmm(wide, wide)):
            run()
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            run()
            stop.record()
            stop.synchronize()
            milliseconds.append(start.elapsed_time(stop))
    return milliseconds[1] / milliseconds[0]


def times(a: Tensor, b: Tensor) -> Tensor:
    """Return a (B, N, K) @ b (B, K, M) of float16 as float32."""
    return torch.bmm(a, b, out_dtype=torch.float32)


def ascending(u: Tensor) -> Tensor:
    """Return the order of the columns of u (N, D) in which their variances ascend."""
    return u.square().mean(0).argsort() if len(u) else torch.arange(u.shape[1], device=u.device)


def halves(u: Tensor, order: Tensor, *, fast: bool = False) -> Halves:
    """Return the rows u (N, D) float64 as parts of their columns in ``order``; ``fast`` leaves out the low ones."""
    u = u[:, order]
    largest = u.abs().amax(1)
    exponent = torch.where((largest > 0) & largest.isfinite(), 14 - torch.frexp(largest)[1], 0).double()
    scaled = u * torch.exp2(exponent).unsqueeze(1)  # now the largest element is in [2^13, 2^14)
    hi = scaled.half()
    scale = torch.exp2(-exponent).float()
    if fast:
        return Halves(hi, scale)
    lo = (scaled - hi.double()).half()
    return Halves(torch.cat([hi, lo, hi, hi], 1), scale)


def product(left: Halves, right: Halves, *, fast: bool = False) -> Tensor:
    """Return the products (N, M) float32 of all rows of ``left`` and ``right``."""
    a, b = left.w, right.w
    if not fast:
        d = a.shape[1] // 4
        a, b = a[:, d:], b[:, : 3 * d]
    return times(a[None], b[None].mT)[0].mul_(left.scale[:, None]).mul_(right.scale)


def distance(x: Tensor, y: Tensor | None, metric: str, *, condensed: bool, fast: bool = False) -> Tensor:
    """Return `bertft.ops.pairwise_distance` of x (B, N, D) and y (B, M, D), or x again, without a gradient.

    Not for manhattan. Pairs nearer than `NEAR` are recomputed by differences in float64: equal rows are exactly 0
    apart.
    """
    layers = [_layer(layer, None if y is None else y[k], metric, fast) for k, layer in enumerate(x)]
    n, m = x.shape[1], x.shape[1] if y is None else y.shape[1]
    out = torch.stack(layers) if layers else x.new_zeros(0, n, m, dtype=torch.float32)
    return reference.condense(out) if condensed else out


def _layer(x: Tensor, y: Tensor | None, metric: str, fast: bool) -> Tensor:
    u = reference.metric_rows(x.double(), metric)
    mean = u[torch.isfinite(u).all(1)][:128].mean(0).nan_to_num()
    rows = (u - mean, (u if y is None else reference.metric_rows(y.double(), metric)) - mean)
    order = ascending(rows[0].nan_to_num(0, 0, 0))
    left = halves(rows[0], order, fast=fast)
    right = left if y is None else halves(rows[1], order, fast=fast)
    beta = [_beta(side, mean, metric) for side in rows]
    out = torch.empty(len(rows[0]), len(rows[1]), device=x.device)
    for first in range(0, len(out), BLOCK):
        some, others = slice(first, first + BLOCK), slice(first if y is None else 0, None)
        tile = product(left.some(some), right.some(others), fast=fast)
        tile = _finish(tile, beta[0][some], beta[1][others], (rows[0][some], rows[1][others]), metric)
        if y is None:
            height = tile.shape[0]
            upper = tile[:, :height].triu(0 if metric == "dot" else 1)
            tile[:, :height] = upper + upper.triu(1).mT
            out[others, some] = tile.mT
        out[some, others] = tile
    return out


def _beta(rows: Tensor, mean: Tensor, metric: str) -> Tensor:
    """Return what a row adds to its entries, (N,) float32: csrc/cuda/split_gram.cu has the table."""
    if metric == "dot":
        return (rows @ mean + mean @ mean / 2).float()
    return (rows.square().sum(1) / (2 if metric in NORMALISED else 1)).float()


def _finish(tile: Tensor, left: Tensor, right: Tensor, rows: tuple[Tensor, Tensor], metric: str) -> Tensor:
    """Return the distances of a tile of products; near rows are taken anew."""
    if metric == "dot":
        return tile.add_(left[:, None]).add_(right)
    both = left[:, None] + right
    tile = tile.mul_(-1.0 if metric in NORMALISED else -2.0).add_(both)
    near = (tile < NEAR * both).nonzero()
    for some in near.split(max(1, REPAIRED // max(1, rows[0].shape[1]))):
        i, j = some.unbind(1)
        square = (rows[0][i] - rows[1][j]).square().sum(1)
        tile[i, j] = (square / 2 if metric in NORMALISED else square).float()
    return tile.sqrt_() if metric == "euclidean" else tile
