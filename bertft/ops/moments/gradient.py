"""Gradients of the sums with respect to the rows.

The sums are those of `bertft.ops.moments.layout`. The gradients take n d^2 work in plain matrix products.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bertft.ops import reference
from bertft.ops.rows import metric_rows_backward


class Rows:
    """One space's rows u, p and a, and the gradients accumulated on them."""

    def __init__(self, x: Tensor, mean: Tensor, metric: str, dtype: torch.dtype) -> None:
        self.x, self.metric, self.mean = x, metric, mean.to(dtype)
        rows = (
            reference.metric_rows(x.double(), metric) - mean
        )  # float64, because these are differences of nearly equal numbers
        self.u = rows.to(dtype)
        self.a = (self.u * self.u).sum(-1)
        self.p = -self.a / 2 if metric == "sqeuclidean" else self.u @ self.mean
        self.of_u = torch.zeros_like(self.u)
        self.of_p, self.of_a = torch.zeros_like(self.a), torch.zeros_like(self.a)

    def weighted(self, weights: tuple[Tensor | None, ...], grads: tuple[Tensor, ...]) -> list[Tensor]:
        """Add the gradient of ``sum_i w_i u_i`` to u for each weight (None: 1); return the gradients of the weights."""
        stacked = torch.stack(grads)
        ones = torch.ones_like(self.p)
        self.of_u += torch.stack([ones if w is None else w for w in weights], 1) @ stacked
        return list((self.u @ stacked.mT).unbind(1))

    def add_space(self, gram: Tensor | None, stats: Tensor | None) -> None:
        """Add the gradients of ``gram_x`` and ``stats_x``."""
        if gram is not None:
            self.of_u += self.u @ (gram + gram.mT)
        if stats is not None:
            d = self.u.shape[1]
            s, pu, au, rest = stats.split([d, d, d, 6])
            _, of_p, of_a = self.weighted((None, self.p, self.a), (s, pu, au))
            _, a, p, aa, ap, pp = rest.unbind()
            self.of_p += of_p + p + ap * self.a + 2 * pp * self.p
            self.of_a += of_a + a + ap * self.p + 2 * aa * self.a

    def gradient(self) -> Tensor:
        """Return the gradient with respect to x in its dtype; p and a are functions of u, and u of x."""
        of_a = self.of_a - self.of_p / 2 if self.metric == "sqeuclidean" else self.of_a
        of_u = self.of_u + 2 * of_a.unsqueeze(1) * self.u
        if self.metric != "sqeuclidean":
            of_u = of_u + self.of_p.unsqueeze(1) * self.mean
        return metric_rows_backward(self.x, of_u, self.metric).to(self.x.dtype)


def add_pair(x: Rows, y: Rows, cross: Tensor | None, stats: Tensor | None) -> None:
    """Add the gradients of ``cross`` and ``stats_xy`` to both spaces."""
    if cross is not None:
        x.of_u += y.u @ cross.mT
        y.of_u += x.u @ cross
    if stats is not None:
        d, e = x.u.shape[1], y.u.shape[1]
        qu, bu, pv, av, rest = stats.split([d, d, e, e, 4])
        ab, pq, qa, pb = rest.unbind()
        of_q, of_b = x.weighted((y.p, y.a), (qu, bu))
        of_p, of_a = y.weighted((x.p, x.a), (pv, av))
        x.of_p += of_p + pq * y.p + pb * y.a
        x.of_a += of_a + ab * y.a + qa * y.p
        y.of_p += of_q + pq * x.p + qa * x.a
        y.of_a += of_b + ab * x.a + pb * x.p
