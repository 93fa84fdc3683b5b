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

from bertft.ops.moments.layout import Moments
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
