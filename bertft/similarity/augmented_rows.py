"""Augmented rows.

Everything about pairs of stimuli is bilinear in them.

With the prepared rows u_i = row_i - mean, a_i = |u_i|^2 and p_i of `bertft.ops.moments.layout`, write

    z_i = [u_i, a_i, p_i, 1]   (D + 3)        w_i = [v_i, b_i, q_i, 1]   (E + 3)

Then an entry of the RDM form is K_ij = u_i.u_j + p_i + p_j = z_i' A z_j, and its diagonal is K_ii = a_i + 2 p_i = k .
z_i, with one A and k for every metric. The moments of two spaces are the matrices sum z z', sum w w' and sum z w', and
moving the provisional mean is a linear map of z.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bertft.ops import reference
from bertft.ops.moments.layout import Moments, Space, present

EXTRA = 3  # a, p and 1 behind the D dimensions


class Form(NamedTuple):
    """A bilinear form of augmented rows: u_i.u_j, and with ``rdm`` also p_i + p_j."""

    rdm: bool

    def apply(self, g: Tensor) -> Tensor:
        """Return A @ g for g (D+3, K)."""
        zero = torch.zeros_like(g[-1:])
        return torch.cat([g[:-EXTRA], zero, g[-1:], g[-2:-1]] if self.rdm else [g[:-EXTRA], zero, zero, zero])

    def diagonal(self, z: Tensor) -> Tensor:
        """Return K_ii (R,) of augmented rows z (R, D+3)."""
        return z[:, -3] + 2 * z[:, -2] if self.rdm else z[:, -3]

    def square(self, z: Tensor) -> Tensor:
        """Return z_i' A z_i (R,) of augmented rows z (R, D+3), which is K_ii unless the rows are means."""
        own = z[:, :-EXTRA].square().sum(1)
        return own + 2 * z[:, -2] if self.rdm else own

    def products(self, z: Tensor) -> Tensor:
        """Return K_ij (..., R, R) of augmented rows z (..., R, D+3), 0 on the diagonal."""
        u, p = z[..., :-EXTRA], z[..., -2]
        k = u @ u.mT + (p.unsqueeze(-1) + p.unsqueeze(-2)) if self.rdm else u @ u.mT
        k.diagonal(dim1=-2, dim2=-1).zero_()
        return k

    def vector(self, width: int) -> Tensor:
        """Return k (D+3,) with K_ii = k . z_i, for the augmented width D + 3."""
        k = torch.zeros(width, dtype=torch.float64)
        k[-3], k[-2] = 1.0, 2.0 if self.rdm else 0.0
        return k


RDM = Form(True)
LINEAR = Form(False)


def augment(x: Tensor, mean: Tensor, metric: str) -> Tensor:
    """Return augmented rows (R, D+3) float64 of vectors x (R, D) about the provisional ``mean`` (D,)."""
    u, p = reference.prepared_rows(x, mean, metric)
    return augmented(u, (u * u).sum(1), p)


def augmented(u: Tensor, a: Tensor, p: Tensor) -> Tensor:
    """Return augmented rows (R, D+3), in the precision of ``u``, from u (R, D), a (R,) and p (R,)."""
    return torch.cat([u, torch.stack([a, p, torch.ones_like(a)], dim=1).to(u.dtype)], dim=1)


def pack(m: Moments) -> tuple[Tensor, Tensor, Tensor]:
    """Return the moments of one pair of layers as sum z z' (D+3, D+3), sum w w' (E+3, E+3), sum z w' (D+3, E+3)."""
    x, y, xy = m.x, m.y, m.xy

    def block(core: Tensor, right: tuple[Tensor, ...], below: tuple[Tensor, ...], corner: list[list[Tensor]]) -> Tensor:
        top = torch.cat([core, torch.stack(right, dim=1)], dim=1)
        low = torch.cat([torch.stack(below), torch.stack([torch.stack(row) for row in corner])], dim=1)
        return torch.cat([top, low])

    def own(gram: Tensor, s: Space) -> Tensor:
        corner = [[s.aa, s.ap, s.a], [s.ap, s.pp, s.p], [s.a, s.p, s.n]]
        return block(gram, (s.au, s.pu, s.s), (s.au, s.pu, s.s), corner)

    corner = [[xy.ab, xy.qa, x.a], [xy.pb, xy.pq, x.p], [y.a, y.p, x.n]]
    cross = block(present(m.cross), (xy.bu, xy.qu, x.s), (xy.av, xy.pv, y.s), corner)
    return own(present(m.gram_x), x), own(present(m.gram_y), y), cross


def unpack(xx: Tensor, yy: Tensor, xy: Tensor) -> Moments:
    """Return the moments whose ``pack`` is given."""

    def own(g: Tensor) -> tuple[Tensor, Tensor]:
        au, pu, s = g[:-EXTRA, -3], g[:-EXTRA, -2], g[:-EXTRA, -1]
        rest = torch.stack([g[-1, -1], g[-3, -1], g[-2, -1], g[-3, -3], g[-3, -2], g[-2, -2]])
        return g[:-EXTRA, :-EXTRA], torch.cat([s, pu, au, rest])

    bu, qu, av, pv = xy[:-EXTRA, -3], xy[:-EXTRA, -2], xy[-3, :-EXTRA], xy[-2, :-EXTRA]
    rest = torch.stack([xy[-3, -3], xy[-2, -2], xy[-3, -2], xy[-2, -3]])
    (gram_x, stats_x), (gram_y, stats_y) = own(xx), own(yy)
    return Moments(gram_x, stats_x, xy[:-EXTRA, :-EXTRA], torch.cat([qu, bu, pv, av, rest]), gram_y, stats_y)


def translation(old: Tensor, new: Tensor, metric: str) -> Tensor:
    """Return T (D+3, D+3), which maps augmented rows about the mean ``old`` (D,) to those about ``new``: z' = T z.

    With step = old - new: u' = u + step and a' = a + 2 step.u + |step|^2. For the dot kinds p' = new.u' = p - step.u +
    new.step. For sqeuclidean p' = -a'/2 = p - step.u - |step|^2 / 2.
    """
    step = old - new
    d = len(step)
    t = torch.eye(d + EXTRA, dtype=torch.float64)
    t[:d, -1] = step
    t[-3, :d], t[-3, -1] = 2 * step, step @ step
    t[-2, :d], t[-2, -1] = -step, (-step @ step / 2 if metric == "sqeuclidean" else new @ step)
    return t
