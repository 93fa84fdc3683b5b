"""Sums over stimuli from which every all-pairs statistic of two spaces follows in linear time.

For a metric with the form K_ij = u_i.u_j + p_i + p_j (see `bertft.ops.metrics`; L_ij = v_i.v_j + q_i + q_j for the
second space), with a_i = |u_i|^2 and b_i = |v_i|^2, `cross_moments` returns, all float64 and all plain sums over the
rows of the chunk, so that the sums of chunks, shards and processes *add* (`Moments.__add__`) as long as they share the
provisional means:

=============  ============  ==========================================================================
field          shape         content
=============  ============  ==========================================================================
``gram_x``     (D, D)        U'U (symmetric; computed at half cost, both triangles filled)
``stats_x``    (3 D + 6,)    sum u | sum p u | sum a u | n, sum a, sum p, sum a^2, sum a p, sum p^2
``cross``      (D, E)        U'V
``stats_xy``   (2 D+2 E+4,)  sum q u | sum b u | sum p v | sum a v | sum a b, sum p q, sum q a, sum p b
``gram_y``     (E, E)        V'V
``stats_y``    (3 E + 6,)    as stats_x, of v, q, b
=============  ============  ==========================================================================

`Space` and `Pair` name the parts. Rows: u_i = x_i - m with rows centred and/or normalised first for ``correlation`` and
``cosine``, p_i = m.u_i; for ``sqeuclidean`` p_i = -a_i / 2. Without y only the ``*_x`` fields are filled; with
``grams=False`` only ``cross`` and ``stats_xy`` (all layers against all). Fields left out are None.

Why a provisional mean: vectors of encoders share a large mean and a few huge dimensions, and without m the float32
products lose three to five digits. Any m gives the same statistics; `provisional_mean` of the first chunk is good.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Space(NamedTuple):
    """The sums of one space, named (views of ``stats_x`` or ``stats_y``)."""

    s: Tensor  # (..., D) sum u
    pu: Tensor  # (..., D) sum p u
    au: Tensor  # (..., D) sum a u
    n: Tensor  # (...) number of stimuli
    a: Tensor  # (...) sum a, and so on
    p: Tensor
    aa: Tensor
    ap: Tensor
    pp: Tensor


class Pair(NamedTuple):
    """The sums of two spaces, named (views of ``stats_xy``)."""

    qu: Tensor  # (..., D) sum q u
    bu: Tensor  # (..., D) sum b u
    pv: Tensor  # (..., E) sum p v
    av: Tensor  # (..., E) sum a v
    ab: Tensor  # (...) sum a b, and so on
    pq: Tensor
    qa: Tensor
    pb: Tensor


class Moments(NamedTuple):
    """What `cross_moments` returns; leading dimensions are free, so layers may be stacked."""

    gram_x: Tensor | None
    stats_x: Tensor | None
    cross: Tensor | None
    stats_xy: Tensor | None
    gram_y: Tensor | None
    stats_y: Tensor | None

    def __add__(self, other: Moments) -> Moments:  # type: ignore[override]
        """The moments of both sets of stimuli together."""
        return Moments(*(None if a is None or b is None else a + b for a, b in zip(self, other, strict=True)))

    @property
    def x(self) -> Space:
        """Named sums of the first space."""
        return space_x(self)

    @property
    def y(self) -> Space:
        """Named sums of the second space."""
        return space_y(self)

    @property
    def xy(self) -> Pair:
        """Named sums of both spaces."""
        return pair_xy(self)


# The same as functions: torch.compile of torch 2.10 cannot follow a property of a NamedTuple.


def space_x(m: Moments) -> Space:
    """Named sums of the first space."""
    return _space(held(m.stats_x))


def space_y(m: Moments) -> Space:
    """Named sums of the second space."""
    return _space(held(m.stats_y))


def pair_xy(m: Moments) -> Pair:
    """Named sums of both spaces."""
    d, e = held(m.cross).shape[-2:]
    *vectors, rest = held(m.stats_xy).split([d, d, e, e, 4], -1)
    return Pair(*vectors, *rest.unbind(-1))


def held(sums: Tensor | None) -> Tensor:
    """Sums that must be there."""
    assert sums is not None, "these sums were not asked for"
    return sums


def _space(stats: Tensor) -> Space:
    d = (stats.shape[-1] - 6) // 3
    *vectors, rest = stats.split([d, d, d, 6], -1)
    return Space(*vectors, *rest.unbind(-1))
