"""Exact null of linear CKA for exchangeable stimuli.

If the rows of Y are permuted against those of X at random, |X'Y|_F^2 of the centred spaces has a known mean and
variance (Kazi-Aoual et al. 1995). With q_i = |x_i|^2, T = sum q, T2 = |X'X|_F^2, S2 = sum q^2 of X, and U, U2, R2 of Y,

    mean = T U / (n-1)
    var  = 2 ((n-1) T2 - T^2) ((n-1) U2 - U^2) / ((n-1)^2 (n+1) (n-2))
           + (n(n+1) S2 - (n-1)(T^2 + 2 T2)) (n(n+1) R2 - (n-1)(U^2 + 2 U2)) / ((n+1) n (n-1)(n-2)(n-3))

All of them follow from the sums of `CrossMoments`, so that no permutation is drawn. Tokens of one text are not
exchangeable; `bertft.similarity.compare.nulls` is their null.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.ops.moments.layout import Moments, Space, present, space_x, space_y


class Spread(NamedTuple):
    """Sums of one centred space, each (...) float64: sum |x_i|^2, |X'X|_F^2 and sum |x_i|^4."""

    trace: Tensor
    square: Tensor
    fourth: Tensor


def cka_null(m: Moments) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation (...) float64 of linear CKA (`measures.cka_biased`) under permutations.

    ``m`` are the moments of the metric whose rows are compared (``dot`` for the vectors themselves); leading dimensions
    are free. Debiased CKA has mean 0. Raises BertftError for fewer than 4 stimuli.
    """
    x, y = _spread(present(m.gram_x), space_x(m)), _spread(present(m.gram_y), space_y(m))
    n = space_x(m).n
    if not bool((n >= 4).all()):
        raise BertftError(f"cka_null: needs at least 4 stimuli, found {int(n.min())}")
    mean = x.trace * y.trace / (n - 1)
    second = ((n - 1) * x.square - x.trace**2) * ((n - 1) * y.square - y.trace**2)
    variance = 2 * second / ((n - 1) ** 2 * (n + 1) * (n - 2))
    variance = variance + _fourth(x, n) * _fourth(y, n) / ((n + 1) * n * (n - 1) * (n - 2) * (n - 3))
    scale = torch.sqrt(x.square * y.square)
    return mean / scale, variance.clamp(min=0).sqrt() / scale


def _fourth(s: Spread, n: Tensor) -> Tensor:
    return n * (n + 1) * s.fourth - (n - 1) * (s.trace**2 + 2 * s.square)


def _spread(gram: Tensor, s: Space) -> Spread:
    """Return the sums about the mean of all stimuli, from those about the provisional mean."""
    n, mean = s.n, s.s / s.n.unsqueeze(-1)
    centred = gram - s.s.unsqueeze(-1) * mean.unsqueeze(-2)
    beyond = (mean * mean).sum(-1)
    along = (mean.unsqueeze(-2) @ gram @ mean.unsqueeze(-1)).flatten(-2).squeeze(-1)
    # |u - mean|^4 with |u - mean|^2 = a - 2 u.mean + |mean|^2, summed over the stimuli
    fourth = s.aa + 4 * along - 4 * (s.au * mean).sum(-1) + 2 * beyond * s.a - 3 * n * beyond**2
    return Spread(s.a - n * beyond, centred.square().sum((-2, -1)), fourth)
