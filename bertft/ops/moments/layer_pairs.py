"""Linear-time statistics of all pairs of layers."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bertft.errors import BadRow
from bertft.ops.moments.cross_moments import cross_moments, provisional_mean
from bertft.ops.moments.formulas import self_pair
from bertft.ops.moments.layout import Moments, present

Statistic = Callable[[Moments, Tensor, Tensor], Tensor]  # of two spaces' moments and provisional means, ()
Sums = tuple[Tensor, Tensor]  # gram and stats of one space


class _Layers:
    """The layers (L, N, D) of one space, their provisional means, and the sums of those seen so far."""

    def __init__(self, x: Tensor, metric: str, side: str, options: dict[str, Any]) -> None:
        self.x, self.metric, self.side, self.options = x, metric, side, options
        self.means = [provisional_mean(layer, metric) for layer in x]
        self.sums: dict[int, Sums] = {}

    def of(self, k: int, op: str) -> Sums:
        """Return the sums of layer k alone, computed once."""
        if k not in self.sums:
            call = lambda: cross_moments(self.x[k], mean_x=self.means[k], metric=self.metric, **self.options)
            found = _naming(call, op, {"x": (self.side, k)})
            self.sums[k] = present(found.gram_x), present(found.stats_x)
        return self.sums[k]


def compare_layers(
    x: Tensor, y: Tensor | None, metrics: tuple[str, str], statistic: Statistic, *, op: str, precision: str, check: bool
) -> Tensor:
    """Return ``out[l, m] = statistic`` of x[l] and y[m] as (L, M) float64; y None stands for x.

    Takes one pair of layers at a time, so memory is that of d^2 sums. Differentiable. Without y the result is symmetric
    at half the work.

    Args:
        x: (L, N, D).
        y: (M, N, E), or None to compare x with itself.
        metrics: how the rows of x and of y are prepared.
        statistic: a function of two layers' moments and provisional means.
        op: the function that errors about rows name.
        precision: of the products, as in `cross_moments`.
        check: raise `BadRow` for rows that the metrics cannot take, instead of propagating NaN.
    """
    options: dict[str, Any] = {"precision": precision, "nan": "raise" if check else "propagate"}
    first = _Layers(x, metrics[0], "x", options)
    second = first if y is None else _Layers(y, metrics[1], "y", options)
    rows, columns = len(first.x), len(second.x)
    if not rows or not columns:
        return x.new_zeros(rows, columns, dtype=torch.float64)
    found: dict[tuple[int, int], Tensor] = {}
    # A pair of equal index takes the sums of both its layers in one call, so those come first.
    for k, m in sorted(itertools.product(range(rows), range(columns)), key=lambda at: at[0] != at[1]):
        if y is not None or k <= m:
            found[k, m] = statistic(_moments(first, second, k, m, op), first.means[k], second.means[m])
    at = lambda k, m: found[(k, m) if y is not None or k <= m else (m, k)]
    return torch.stack([torch.stack([at(k, m) for m in range(columns)]) for k in range(rows)])


def _moments(first: _Layers, second: _Layers, k: int, m: int, op: str) -> Moments:
    """Return the moments of one pair of layers; the sums of a single layer are taken once."""
    if first is second and k == m:
        return self_pair(*first.of(k, op))
    fresh = first is not second and k not in first.sums and m not in second.sums
    means: dict[str, Any] = {"mean_x": first.means[k], "mean_y": second.means[m]}
    kinds: dict[str, Any] = {"metric": first.metric, "metric_y": second.metric}
    call = lambda: cross_moments(first.x[k], second.x[m], **means, **kinds, grams=fresh, **first.options)
    sums = _naming(call, op, {"x": ("x", k), "y": ("y", m)})
    if fresh:
        first.sums[k] = present(sums.gram_x), present(sums.stats_x)
        second.sums[m] = present(sums.gram_y), present(sums.stats_y)
        return sums
    return Moments(*first.of(k, op), sums.cross, sums.stats_xy, *second.of(m, op))


def _naming(call: Callable[[], Moments], op: str, sides: dict[str, tuple[str, int]]) -> Moments:
    """Return ``call()``; a `BadRow` names ``op``, and the side and layer that ``sides`` gives for the call's side."""
    if torch.compiler.is_compiling():
        return call()
    try:
        return call()
    except BadRow as bad:
        side, layer = sides[bad.side]
        raise dataclasses.replace(bad, op=op, side=side, layer=layer) from None
