"""Layout of the sums behind linear-time similarity.

For a metric with the form K_ij = u_i.u_j + p_i + p_j (`bertft.ops.metrics`; L_ij = v_i.v_j + q_i + q_j for the second
space), and with a_i = |u_i|^2 and b_i = |v_i|^2, `cross_moments` returns these float64 sums over the rows of a chunk.
The sums of chunks, shards and processes *add* (`Moments.__add__`) as long as they share the provisional means:

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

`Space` and `Pair` name the parts. Rows are u_i = x_i - m, after centring and normalising x_i for ``correlation`` and
normalising it for ``cosine``. p_i = m.u_i, or -a_i / 2 for ``sqeuclidean``. Without y only the ``*_x`` fields are
filled. With ``grams=False`` only ``cross`` and ``stats_xy`` are, for all layers against all. Other fields are None.

Why a provisional mean: encoders' vectors share a large mean and a few huge dimensions, and without m the float32
products lose three to five digits. Any m gives the same statistics; the `provisional_mean` of the first chunk is good.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Space(NamedTuple):
    """Sums of one space by name (views of ``stats_x`` or ``stats_y``)."""

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
    """Sums of two spaces by name (views of ``stats_xy``)."""

    qu: Tensor  # (..., D) sum q u
    bu: Tensor  # (..., D) sum b u
    pv: Tensor  # (..., E) sum p v
    av: Tensor  # (..., E) sum a v
    ab: Tensor  # (...) sum a b, and so on
    pq: Tensor
    qa: Tensor
    pb: Tensor


class Moments(NamedTuple):
    """The result of `cross_moments`; leading dimensions are free, so layers may be stacked."""

    gram_x: Tensor | None
    stats_x: Tensor | None
    cross: Tensor | None
    stats_xy: Tensor | None
    gram_y: Tensor | None
    stats_y: Tensor | None

    def __add__(self, other: Moments) -> Moments:  # type: ignore[override]
        """Return the moments of both sets of stimuli together."""
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


# The same as functions, because torch.compile of torch 2.10 cannot follow properties of a NamedTuple.


def space_x(m: Moments) -> Space:
    """Return the sums of the first space by name."""
    return _space(present(m.stats_x))


def space_y(m: Moments) -> Space:
    """Return the sums of the second space by name."""
    return _space(present(m.stats_y))


def pair_xy(m: Moments) -> Pair:
    """Return the sums of both spaces by name."""
    d, e = present(m.cross).shape[-2:]
    *vectors, rest = present(m.stats_xy).split([d, d, e, e, 4], -1)
    return Pair(*vectors, *rest.unbind(-1))


def present(sums: Tensor | None) -> Tensor:
    """Return sums that the caller knows are present."""
    assert sums is not None, "these sums were not requested"
    return sums


def _space(stats: Tensor) -> Space:
    d = (stats.shape[-1] - 6) // 3
    *vectors, rest = stats.split([d, d, d, 6], -1)
    return Space(*vectors, *rest.unbind(-1))
