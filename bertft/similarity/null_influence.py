"""Influence of a text on the null of a similarity.

The null of texts that trade places is a functional of the law of texts: the measure of a pair of stimuli (x of one
text, y of another). Text t takes part in two roles. With g(x, y) the projection of a pair of stimuli
(`bertft.similarity.influence`), averaged over the texts s that t may trade with,

    cross(i) = mean over s of g(x_i, y_s) + mean over s of g(x_s, y_i) - mean over the class of g

A text more also makes its class larger by one, which counts once and not once a role: hence the last term. Products of
augmented rows are bilinear, so that the mean over s is the product with the mean row of the other texts, and no trade
is drawn. What a space has of its own does not change when texts trade places.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bertft.ops.moments.formulas import PairSums, compare_sums, pair_sums
from bertft.ops.moments.layout import Moments, present
from bertft.similarity.augmented_rows import LINEAR, RDM, Form
from bertft.similarity.influence import Entries, cka_influence, rsa_influence
from bertft.similarity.traded_texts import TradedTexts


def rsa_null_influence(m: Moments, z: Tensor, w: Tensor, texts: TradedTexts, form: Entries | None = None) -> Tensor:
    """Return the influence (R,) of augmented rows z (R, D+3), w (R, E+3) on the mean of RSA while ``texts`` trade.

    ``m`` are the moments of the rows. RSA is that of `bertft.similarity.influence.rsa_influence`.
    """
    return rsa_influence(m, z, w, form, _cross(RDM, z, w, texts))


def cka_null_influence(m: Moments, z: Tensor, w: Tensor, texts: TradedTexts) -> Tensor:
    """Return the influence (R,) of rows z, w about their means on the mean of debiased CKA while ``texts`` trade."""
    return cka_influence(m, z, w, _cross(LINEAR, z, w, texts))


def _cross(form: Form, z: Tensor, w: Tensor, texts: TradedTexts) -> Tensor:
    """Return the sum over j != i of K_ij L_ij (R,), averaged over the trades of ``texts``, of both roles of i."""
    z_of_others, w_of_others = texts.others(z), texts.others(w)
    xy = (z.mT @ w_of_others).double()
    core = form.apply(form.apply(xy).mT).mT.to(z.dtype)
    of_x = ((z @ core) * w_of_others).sum(1) - form.diagonal(z) * form.square(w_of_others)
    of_y = ((z_of_others @ core) * w).sum(1) - form.square(z_of_others) * form.diagonal(w)
    return _of_both_roles(of_x.double(), of_y.double(), texts)


def without_pairs_of_a_text(
    m: Moments, z: Tensor, w: Tensor, texts: TradedTexts, form: Form, entries: Entries | None = None
) -> tuple[float, float]:
    """Return by how much a measure, and its mean while ``texts`` trade, change if no pair is of one text.

    Stimuli of one text are alike, and one pair in S of S texts is of one text. So the measure of S texts differs from
    that of more. ``form`` is `RDM` for RSA with ``entries``, and `LINEAR` for debiased CKA of rows about their means.
    """
    pairs, of_texts = float(m.x.n) * (float(m.x.n) - 1), 0.0
    totals, inside, traded = _totals(m, form), torch.zeros(5, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for a, b in zip(texts.blocks(z), texts.blocks(w), strict=True):
        k, l = (form.products(t).double() for t in (a, b))  # noqa: E741
        of_texts += k.numel() - len(k) * k.shape[1]
        mean = (l.sum(0) - l) / (len(l) - 1)
        inside += torch.stack([k.sum(), l.sum(), (k * k).sum(), (k * l).sum(), (l * l).sum()])
        traded += (k * mean).sum()
    if form is LINEAR:
        inside[:2] = 0
    cross = float(_cross(form, z, w, texts).sum()) * (1 - of_texts / pairs)
    found = []
    for kl, kl_inside in ((totals[3], inside[3]), (cross + traded, traded)):
        whole, own = totals.clone(), inside.clone()
        whole[3], own[3] = kl, kl_inside
        of_all, between = whole / pairs, (whole - own) / (pairs - of_texts)
        found.append(_compared(between, entries) - _compared(of_all, entries))
    return found[0], found[1]


def _totals(m: Moments, form: Form) -> Tensor:
    """Return the sums over pairs i != j of K, L, K K, K L and L L (5,)."""
    if form is RDM:
        return torch.stack([*pair_sums(m)[1:]])
    squares = [present(t).square().sum() for t in (m.gram_x, m.cross, m.gram_y)]
    zero = torch.zeros_like(squares[0])
    return torch.stack([zero, zero, squares[0] - m.x.aa, squares[1] - m.xy.ab, squares[2] - m.y.aa])


def _compared(averages: Tensor, entries: Entries | None) -> float:
    sums = PairSums(torch.ones_like(averages[0]), *averages)
    scale, offset = zip(*entries, strict=True) if entries else ((1.0, 1.0), (0.0, 0.0))
    return float(compare_sums(sums, compare="cosine" if entries else "pearson", scale=scale, offset=offset))


def matrix_influence(a: Tensor, b: Tensor, size: float) -> Tensor:
    """Return the influence (R,) on sum_ij a_ij b_ij / ``size``, for matrices (R, R) of pairs about their means.

    The diagonals are 0. The spread of each matrix belongs to the measure, in ``size``.
    """
    return _of_matrices(a, b, size, torch.linalg.vecdot(a, b).double())


def matrix_null_influence(a: Tensor, b: Tensor, size: float, texts: TradedTexts) -> Tensor:
    """Return the influence (R,) on the mean of the same product while ``texts`` trade."""
    first = torch.linalg.vecdot(a, texts.others(texts.others(b).mT).mT).double()
    second = torch.linalg.vecdot(texts.others(texts.others(a).mT).mT, b).double()
    return _of_matrices(a, b, size, _of_both_roles(first, second, texts))


def _of_both_roles(first: Tensor, second: Tensor, texts: TradedTexts) -> Tensor:
    both = first + second
    return both - texts.common(both) / 2


def _of_matrices(a: Tensor, b: Tensor, size: float, cross: Tensor) -> Tensor:
    """Return the influence (R,) from ``cross`` (R,), the sums over j of a_ij b_ij."""
    n, value = len(a), float(cross.sum()) / size
    spreads = [n * total / total.sum() for total in (torch.linalg.vecdot(t, t).double() for t in (a, b))]
    return 2 * (n * cross / size) - value * (spreads[0] + spreads[1])
