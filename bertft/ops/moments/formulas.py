"""Statistics over all pairs of stimuli from `Moments`.

No pair is enumerated. Everything is float64, differentiable, and free in leading dimensions: moments of L stacked
layers give (L,). With K_ij = u_i.u_j + p_i + p_j and sums over the P = n (n - 1) ordered pairs i != j,

    sum K   = |sum u|^2 - sum a + 2 (n-1) sum p
    sum K L = |U'V|^2 - sum ab + 2 [(sum q u).(sum u) - sum qa] + 2 [(sum p v).(sum v) - sum pb]
              + 2 (n-2) sum pq + 2 sum p sum q

An entry of the dissimilarity matrix is ``scale K + offset`` (`bertft.ops.metrics`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.ops.metrics import SCALE
from bertft.ops.moments.layout import Moments, Pair, Space, pair_xy, present, space_x, space_y


class PairSums(NamedTuple):
    """Sums over the ordered pairs i != j, each (...) float64; ``pairs`` is their number n (n - 1)."""

    pairs: Tensor
    k: Tensor
    l: Tensor  # noqa: E741 (the letter of the formula)
    kk: Tensor
    kl: Tensor
    ll: Tensor


def _sum(s: Space) -> Tensor:
    return (s.s * s.s).sum(-1) - s.a + 2 * (s.n - 1) * s.p


def _squares(cross: Tensor) -> Tensor:
    """Return the sum of squares of (..., D, E) as (...), without a temporary of that size."""
    return torch.linalg.vector_norm(cross, dim=(-2, -1)) ** 2


def _product(cross: Tensor, x: Space, y: Space, xy: Pair) -> Tensor:
    return (
        _squares(cross)
        - xy.ab
        + 2 * ((xy.qu * x.s).sum(-1) - xy.qa)
        + 2 * ((xy.pv * y.s).sum(-1) - xy.pb)
        + 2 * (x.n - 2) * xy.pq
        + 2 * x.p * y.p
    )


def _with_itself(s: Space) -> Pair:
    return Pair(s.pu, s.au, s.pu, s.au, s.aa, s.pp, s.ap, s.ap)


def self_product(gram: Tensor, s: Space) -> Tensor:
    """Return sum K K (...) of one space: the product formula with L = K."""
    return _product(gram, s, s, _with_itself(s))


def self_pair(gram: Tensor, stats: Tensor) -> Moments:
    """Return the moments of one space taken twice."""
    xy = _with_itself(Moments(gram, stats, None, None, None, None).x)
    both = torch.cat([*xy[:4], torch.stack(xy[4:], -1)], -1)
    return Moments(gram, stats, gram, both, gram, stats)


def pair_sums(m: Moments) -> PairSums:
    """Return the sums over pairs behind Pearson and cosine comparisons."""
    x, y = space_x(m), space_y(m)
    kk, ll = self_product(present(m.gram_x), x), self_product(present(m.gram_y), y)
    return PairSums(x.n * (x.n - 1), _sum(x), _sum(y), kk, _product(present(m.cross), x, y, pair_xy(m)), ll)


def compare_sums(
    s: PairSums,
    *,
    compare: str = "pearson",
    scale: tuple[float, float] = (1.0, 1.0),
    offset: tuple[Tensor | float, Tensor | float] = (0.0, 0.0),
) -> Tensor:
    """Return Pearson or cosine of the matrices with entries scale K + offset as (...); NaN if a matrix is constant."""
    (sx, sy), (tx, ty) = scale, offset
    if compare == "pearson":
        sign = 1.0 if sx * sy > 0 else -1.0
        kk, ll = s.kk - s.k * s.k / s.pairs, s.ll - s.l * s.l / s.pairs
        return sign * (s.kl - s.k * s.l / s.pairs) / torch.sqrt(kk * ll)
    if compare == "cosine":
        kk = sx * sx * s.kk + 2 * sx * tx * s.k + tx * tx * s.pairs
        ll = sy * sy * s.ll + 2 * sy * ty * s.l + ty * ty * s.pairs
        return (sx * sy * s.kl + sx * ty * s.k + sy * tx * s.l + tx * ty * s.pairs) / torch.sqrt(kk * ll)
    raise BertftError(f"compare must be pearson or cosine on the linear-time route, not {compare!r}")


def metric_offset(metric: str, mean: Tensor) -> Tensor | float:
    """Return the ``offset`` of entries for the provisional mean (..., D), which the cosine comparison needs."""
    square = (mean.double() ** 2).sum(-1)
    return {"dot": square, "cosine": 1 - square, "correlation": 1 - square}.get(metric, 0.0)


def rsa_from_moments(
    m: Moments,
    *,
    metric: str = "cosine",
    metric_y: str | None = None,
    compare: str = "pearson",
    mean_x: Tensor | None = None,
    mean_y: Tensor | None = None,
) -> Tensor:
    """Return RSA (...) from moments: the comparison of the upper triangles of the two full matrices.

    ``metric`` and ``metric_y`` are those of the moments. ``compare`` is pearson or cosine. Cosine depends on shifts and
    therefore needs the provisional means.
    """
    metric_y = metric_y or metric
    scale = (SCALE[metric], SCALE[metric_y])
    if compare == "pearson":
        return compare_sums(pair_sums(m), scale=scale)
    if mean_x is None or mean_y is None:
        raise BertftError("rsa_from_moments: compare='cosine' needs mean_x and mean_y, the provisional means")
    offset = (metric_offset(metric, mean_x), metric_offset(metric_y, mean_y))
    return compare_sums(pair_sums(m), compare=compare, scale=scale, offset=offset)


def _hsic(cross: Tensor, x: Space, y: Space, bu: Tensor, av: Tensor, ab: Tensor) -> Tensor:
    """Return the unbiased HSIC (Song et al. 2012) of the linear kernels U U' and V V'."""
    n = x.n
    t = _squares(cross) - ab
    k = (x.s * x.s).sum(-1) - x.a
    l = (y.s * y.s).sum(-1) - y.a  # noqa: E741
    kl = (x.s.unsqueeze(-2) @ cross @ y.s.unsqueeze(-1)).flatten(-2).squeeze(-1)
    kl = kl - (bu * x.s).sum(-1) - (av * y.s).sum(-1) + ab
    return (t + k * l / ((n - 1) * (n - 2)) - 2 * kl / (n - 2)) / (n * (n - 3))


def cka_from_moments(m: Moments, *, debiased: bool = True) -> Tensor:
    """Return linear CKA (...) of the rows u and v, debiased (Kornblith et al. 2019, Song et al. 2012) or plain.

    Moments of the metric ``dot`` have the vectors themselves as rows. Debiased CKA needs n >= 4.
    """
    x, y, cross, gram_x, gram_y = space_x(m), space_y(m), present(m.cross), present(m.gram_x), present(m.gram_y)
    if debiased:
        pair = pair_xy(m)
        xy = _hsic(cross, x, y, pair.bu, pair.av, pair.ab)
        xx = _hsic(gram_x, x, x, x.au, x.au, x.aa)
        yy = _hsic(gram_y, y, y, y.au, y.au, y.aa)
    else:
        xy, xx, yy = (
            ((c - s.s.unsqueeze(-1) * t.s.unsqueeze(-2) / x.n.unsqueeze(-1).unsqueeze(-1)) ** 2).sum((-2, -1))
            for c, s, t in ((cross, x, y), (gram_x, x, x), (gram_y, y, y))
        )
    return xy / torch.sqrt(xx * yy)


def local_pearson(u: Tensor, p: Tensor, v: Tensor, q: Tensor, m: Moments) -> Tensor:
    """Return the correlation (B,) of each stimulus's row of K with its row of L, over all other stimuli.

    u (B, D), p (B,), v (B, E) and q (B,) float64 are prepared rows (`reference.prepared_rows` with the provisional
    means) of some of the stimuli behind the unstacked moments ``m``.
    """
    x, y = _Rows(u, (u * u).sum(-1), p, space_x(m)), _Rows(v, (v * v).sum(-1), q, space_y(m))
    kl = _row_products(present(m.cross), x, y, pair_xy(m))
    kk = _row_products(present(m.gram_x), x, x, _with_itself(x.sums))
    ll = _row_products(present(m.gram_y), y, y, _with_itself(y.sums))
    k, l = _row_sums(x), _row_sums(y)  # noqa: E741
    pairs = x.sums.n - 1
    return (kl - k * l / pairs) / torch.sqrt((kk - k * k / pairs) * (ll - l * l / pairs))


class _Rows(NamedTuple):
    """Prepared rows of one space, and the sums over all stimuli of that space."""

    u: Tensor  # (B, D)
    a: Tensor  # (B,) |u|^2
    p: Tensor  # (B,)
    sums: Space


def _row_sums(x: _Rows) -> Tensor:
    """Return sum_j K_ij (B,) over j other than i."""
    return x.u @ x.sums.s - x.a + (x.sums.n - 2) * x.p + x.sums.p


def _row_products(cross: Tensor, x: _Rows, y: _Rows, xy: Pair) -> Tensor:
    """Return sum_j K_ij L_ij (B,) over j other than i."""
    (u, a, p, of_x), (v, b, q, of_y) = x, y
    bilinear = ((u @ cross) * v).sum(-1) + q * (u @ of_x.s) + u @ xy.qu + p * (v @ of_y.s) + v @ xy.pv
    return bilinear + of_x.n * p * q + p * of_y.p + q * of_x.p + xy.pq - (a + 2 * p) * (b + 2 * q)
