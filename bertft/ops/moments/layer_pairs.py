"""Statistics in linear time of all layers of one model against all of another, by the sums of `cross_moments`."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bertft.ops.moments.cross_moments import cross_moments, provisional_mean
from bertft.ops.moments.formulas import self_pair
from bertft.ops.moments.layout import Moments, held
from bertft.ops.rows import with_sentence

Statistic = Callable[[Moments, Tensor, Tensor], Tensor]  # of two spaces' moments and provisional means, ()


def compare_layers(
    x: Tensor, y: Tensor | None, metrics: tuple[str, str], statistic: Statistic, *, op: str, float64: bool, check: bool
) -> Tensor:
    """``out[l, m] = statistic`` of x[l] and y[m]; x (L, N, D), y (M, N, E) or None for x -> (L, M) float64.

    Pair by pair of layers: d^2 memory. Differentiable; without y symmetric, at half the work. ``op`` is named in
    errors about rows.
    """
    options: dict[str, Any] = {"float64": float64, "nan": "raise" if check else "propagate"}
    mean_x = [provisional_mean(layer, metrics[0]) for layer in x]
    of_x: dict[int, tuple[Tensor, Tensor]] = {}
    if y is None:
        other, mean_y, of_y = x, mean_x, of_x
    else:
        other, mean_y, of_y = y, [provisional_mean(layer, metrics[1]) for layer in y], {}

    def space(
        layers: Tensor, k: int, mean: Tensor, metric: str, name: str, known: dict[int, tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        if k not in known:
            call = lambda: cross_moments(layers[k], mean_x=mean, metric=metric, **options)
            sums = with_sentence(call, op=op, x=f"{name} in layer {k}")
            known[k] = held(sums.gram_x), held(sums.stats_x)
        return known[k]

    def pair(k: int, m: int) -> Moments:
        sides = (x, k, mean_x[k], metrics[0], "x", of_x), (other, m, mean_y[m], metrics[1], "y", of_y)
        if y is None and k == m:
            return self_pair(*space(*sides[0]))
        fresh = y is not None and k not in of_x and m not in of_y  # both spaces' own sums in the same call
        means: dict[str, Any] = {"mean_x": mean_x[k], "mean_y": mean_y[m], "metric": metrics[0], "metric_y": metrics[1]}
        call = lambda: cross_moments(x[k], other[m], **means, grams=fresh, **options)
        sums = with_sentence(call, op=op, x=f"x in layer {k}", y=f"y in layer {m}")
        if fresh:
            of_x[k], of_y[m] = (held(sums.gram_x), held(sums.stats_x)), (held(sums.gram_y), held(sums.stats_y))
            return sums
        return Moments(*space(*sides[0]), sums.cross, sums.stats_xy, *space(*sides[1]))

    if not len(x) or not len(other):
        return x.new_zeros(len(x), len(other), dtype=torch.float64)
    found: dict[tuple[int, int], Tensor] = {}
    for k, m in sorted(itertools.product(range(len(x)), range(len(other))), key=lambda at: at[0] != at[1]):
        if y is None and m < k:
            continue
        found[k, m] = statistic(pair(k, m), mean_x[k], mean_y[m])
    at = lambda k, m: found[(k, m) if y is not None or k <= m else (m, k)]
    return torch.stack([torch.stack([at(k, m) for m in range(len(other))]) for k in range(len(x))])
