"""Intervals for streamed similarity: the infinitesimal jackknife from a reservoir of whole sentences.

RSA and CKA are smooth functions f of averages S_k over pairs (CKA also over triples) of stimuli. Given the final sums,
the projection of stimulus i on each average is exact in D^2 work, for instance

    g_KL(i) = sum over j != i of K_ij L_ij = z_i' A (sum z w') A w_i - K_ii L_ii     (bertft.similarity.augmented_rows)

and its influence on f is 2 sum_k (df/dS_k) (g_k(i) / (n-1) - S_k). Stimuli of one sentence are not independent, so
influences are added up within a sentence: with T_s the total of sentence s, S sentences and n stimuli,
var(f) = S var(T_s) / n^2. A random reservoir of whole sentences estimates var(T_s); no second pass is needed.
The interval is symmetric in Fisher's z = atanh(f), so that it stays inside (-1, 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.ops.metrics import SCALE
from bertft.ops.moments.cross_moments import Moments
from bertft.ops.moments.formulas import PairSums, compare_sums, metric_offset, pair_sums
from bertft.similarity import measures
from bertft.similarity.augmented_rows import EXTRA, LINEAR, RDM, Form, augment, pack
from bertft.similarity.moments import CrossMoments
from bertft.similarity.reservoir import Reservoir

__all__ = ["Interval", "Reservoir", "cka_intervals", "clustered_interval", "rsa_intervals"]

Influence = Callable[[Moments, Tensor, Tensor], Tensor]
Entries = tuple[tuple[float, float], tuple[float, float]]  # scale and offset of the entries of each RDM


class Interval(NamedTuple):
    """A similarity with its standard error and 95 % interval."""

    value: float
    low: float
    high: float
    standard_error: float


def rsa_intervals(moments: CrossMoments, groups: Tensor, x: Tensor, y: Tensor, *, sentences: int) -> list[Interval]:
    """RSA (Pearson) of each layer pair of diagonal moments with its 95 % interval.

    ``x`` (L, R, D), ``y`` (L, R, E) raw vectors of the reservoir, ``groups`` (R,) their sentences, ``sentences`` the
    number S behind the sums.
    """
    return _intervals(moments, moments.rsa(), rsa_influence, groups, x, y, sentences)


def cka_intervals(moments: CrossMoments, groups: Tensor, x: Tensor, y: Tensor, *, sentences: int) -> list[Interval]:
    """Debiased CKA of each layer pair of diagonal moments with its 95 % interval; arguments as ``rsa_intervals``."""
    return _intervals(moments, moments.cka(debiased=True), cka_influence, groups, x, y, sentences)


def _intervals(
    moments: CrossMoments, values: Tensor, influence_of: Influence, groups: Tensor, x: Tensor, y: Tensor, sentences: int
) -> list[Interval]:
    if moments.pairs != "diagonal":
        raise BertftError("intervals: need CrossMoments with pairs='diagonal', found pairs='all'")
    intervals = []
    for layer, value in enumerate(values.tolist()):
        influence = influence_of(moments.moments(layer, layer), *augmented_rows(moments, layer, x[layer], y[layer]))
        intervals.append(clustered_interval(value, influence, groups, stimuli=len(moments), sentences=sentences))
    return intervals


def augmented_rows(moments: CrossMoments, layer: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Rows z (R, D+3), w (R, E+3) about the means of diagonal ``moments``, as the influences take them."""
    mean_x, mean_y = moments.means(layer, layer)
    z, w = augment(x.cpu(), mean_x, moments.metric_x), augment(y.cpu(), mean_y, moments.metric_y)
    # an interval's width needs three digits, not sixteen
    return (z, w) if x.dtype == torch.float64 else (z.float(), w.float())


def entries(moments: CrossMoments, layer: int) -> Entries:
    """Scale and offset of the entries of both RDMs of ``layer``, for ``rsa_influence`` on the cosine comparison."""
    mean_x, mean_y = moments.means(layer, layer)
    x, y = moments.metric_x, moments.metric_y
    return (SCALE[x], float(metric_offset(x, mean_x))), (SCALE[y], float(metric_offset(y, mean_y)))


def _pair_projection(form: Form, xy: Tensor, z: Tensor, w: Tensor) -> Tensor:
    """sum over j != i of K_ij L_ij for each row i, (R,)."""
    bilinear = form.apply(form.apply(xy).mT).mT
    quadratic = ((z @ bilinear.to(z.dtype)) * w).sum(1)
    return quadratic.double() - form.diagonal(z).double() * form.diagonal(w).double()


def _single_projection(form: Form, moments: Tensor, z: Tensor) -> Tensor:
    """sum over j != i of K_ij for each row i, (R,)."""
    z = z.double()
    return z @ form.apply(moments[:, -1:])[:, 0] - form.diagonal(z)


@torch.inference_mode(False)  # whose gradient is wanted, wherever it is asked for
def rsa_influence(m: Moments, z: Tensor, w: Tensor, form: Entries | None = None) -> Tensor:
    """Influence (R,) of augmented rows z (R, D+3), w (R, E+3) on RSA; NaN where an RDM is constant.

    Pearson, or the cosine comparison of the matrices whose ``entries`` are ``form``.
    """
    xx, yy, xy = pack(m)
    others = float(m.x.n) - 1
    projections = (
        _single_projection(RDM, xx, z),
        _single_projection(RDM, yy, w),
        _pair_projection(RDM, xx, z, z),
        _pair_projection(RDM, xy, z, w),
        _pair_projection(RDM, yy, w, w),
    )
    sums = pair_sums(m)
    averages = [(total / sums.pairs).detach().requires_grad_() for total in sums[1:]]
    with torch.enable_grad():  # of one pair, all sums are averages
        of_one = PairSums(torch.ones_like(sums.pairs), *averages)
        scale, offset = zip(*form, strict=True) if form else ((1.0, 1.0), (0.0, 0.0))
        value = compare_sums(of_one, compare="cosine" if form else "pearson", scale=scale, offset=offset)
    if not value.isfinite():
        return torch.full_like(projections[0], math.nan)
    slopes = torch.autograd.grad(value, averages)
    terms = zip(slopes, projections, averages, strict=True)
    return 2 * torch.stack([slope * (g / others - mean.detach()) for slope, g, mean in terms]).sum(0)


def cka_influence(m: Moments, z: Tensor, w: Tensor) -> Tensor:
    """Influence (R,) of augmented rows z (R, D+3), w (R, E+3) on debiased CKA; NaN where a space has no variance."""
    xx, yy, xy = pack(m)
    cross, d_cross = _hsic_influence(xy, z, w)
    own_x, d_x = _hsic_influence(xx, z, z)
    own_y, d_y = _hsic_influence(yy, w, w)
    if own_x <= 0 or own_y <= 0:
        return torch.full_like(d_cross, math.nan)
    return (d_cross - cross / 2 * (d_x / own_x + d_y / own_y)) / math.sqrt(own_x * own_y)


@torch.inference_mode(False)  # whose gradient is wanted, wherever it is asked for
def scatter_influence(function: Callable[..., Tensor], m: Moments, z: Tensor, w: Tensor) -> Tensor:
    """Influence (R,) on a ``function`` of the centred scatter matrices (`bertft.similarity.measures`), by its gradient.

    With G the gradient of f with respect to a mean scatter matrix C, stimulus i adds <G, c_i c_i' - C> for its centred
    row c_i. The functions do not notice a common factor, so that the terms in C add up to nothing.
    """
    n = float(m.x.n)
    spread = [(c / n).requires_grad_() for c in measures.scatter(m)]
    with torch.enable_grad():
        value = function(*spread)
    xx, yy, xy = (g if g is not None else torch.zeros_like(c) for g, c in zip(
        torch.autograd.grad(value, spread, allow_unused=True), spread, strict=True
    ))  # fmt: skip
    if abs(float(value.detach()) - 1) < 1e-9:
        # two equal spaces: f is at its largest and flat, where the gradient of a decomposition with equal values is 0/0
        return torch.zeros(len(z), dtype=torch.float64)
    u, v = z[:, :-EXTRA].double() - m.x.s / n, w[:, :-EXTRA].double() - m.y.s / n
    influence = ((u @ xx) * u).sum(1) + ((v @ yy) * v).sum(1) + ((u @ xy) * v).sum(1)
    middle = torch.stack([(g * c).sum() for g, c in zip((xx, yy, xy), spread, strict=True)]).sum()
    return influence - middle.detach()


def shape_influence(m: Moments, z: Tensor, w: Tensor) -> Tensor:
    """Influence (R,) on the shape distance, by that on the similarity whose arc cosine it is; 0 below the floor."""
    influence = scatter_influence(measures.procrustes, m, z, w)
    angle = float(measures.shape_distance(*measures.scatter(m)))
    return influence / -math.sin(angle) if angle >= measures.SHAPE_FLOOR else torch.zeros_like(influence)


def dimension_influence(m: Moments, z: Tensor, side: int) -> Tensor:
    """Influence (R,) of the rows z (R, D+3) of one space, ``side`` 0 or 1 of ``m``, on its effective dimension.

    Of the covariance C the dimension is t^2 / q, t = tr C and q = |C|^2; stimulus i adds c_i c_i' - C to C.
    """
    space, n = (m.x, m.y)[side], float(m.x.n)
    c = measures.scatter(m)[side] / n
    u = z[:, :-EXTRA].double() - space.s / n
    t, q = c.trace(), c.square().sum()
    return 2 * t / q * ((u * u).sum(1) - t) - 2 * (t / q) ** 2 * (((u @ c) * u).sum(1) - q)


def anisotropy_influence(m: Moments, z: Tensor, side: int) -> Tensor:
    """Influence (R,) of the rows z (R, D+3) of one space, ``side`` 0 or 1 of cosine ``m``, on its mean cosine."""
    sums = pair_sums(m)
    mean = (sums.k, sums.l)[side] / sums.pairs
    return 2 * (_single_projection(RDM, pack(m)[side], z) / (float(m.x.n) - 1) - mean)


def _hsic_influence(xy: Tensor, z: Tensor, w: Tensor) -> tuple[float, Tensor]:
    """HSIC = mean K L + mean K mean L - 2 mean_i (row mean K)_i (row mean L)_i, and its influences (R,)."""
    n = float(xy[-1, -1])
    apply, k_ii, l_ii = LINEAR.apply, LINEAR.vector(xy.shape[0]), LINEAR.vector(xy.shape[1])
    rows_x = (apply(xy[:, -1:])[:, 0] - k_ii) / (n - 1)  # the mean of row i of K without its diagonal is z_i . rows_x
    rows_y = (apply(xy[-1:].mT)[:, 0] - l_ii) / (n - 1)
    core = apply(apply(xy).mT).mT
    mean_kl = float((core * xy).sum() - k_ii @ xy @ l_ii) / (n * (n - 1))
    mean_k, mean_l = float(rows_x @ xy[:, -1]) / n, float(rows_y @ xy[-1]) / n
    mean_rows = float(rows_x @ xy @ rows_y) / n
    pair = 2 * (_pair_projection(LINEAR, xy, z, w) / (n - 1) - mean_kl)
    z, w = z.double(), w.double()
    k, l_ = z @ rows_x, w @ rows_y
    # sum over j != i of K_ij (row mean of L)_j, and the same with K and L exchanged
    k_l = (z @ apply((xy @ rows_y).unsqueeze(1))[:, 0] - LINEAR.diagonal(z) * l_) / (n - 1)
    l_k = (w @ apply((xy.mT @ rows_x).unsqueeze(1))[:, 0] - LINEAR.diagonal(w) * k) / (n - 1)
    product = 2 * (mean_l * (k - mean_k) + mean_k * (l_ - mean_l))
    triple = k * l_ + k_l + l_k - 3 * mean_rows
    return mean_kl + mean_k * mean_l - 2 * mean_rows, pair + product - 2 * triple


def clustered_interval(value: float, influence: Tensor, groups: Tensor, *, stimuli: int, sentences: int) -> Interval:
    """95 % interval of ``value`` from the influences (R,) of a reservoir whose stimuli's sentences are ``groups`` (R,).

    Needs at least 2 sentences. Student's t with one degree of freedom less than sentences in the reservoir.
    """
    error, t = _clustered(influence, groups, stimuli, sentences)
    if not math.isfinite(value):
        return Interval(value, math.nan, math.nan, math.nan)
    room = 1 - value * value
    if room < 1e-12 or error < 1e-12:
        return Interval(value, value, value, error)
    z, half = math.atanh(value), t * error / room
    return Interval(value, math.tanh(z - half), math.tanh(z + half), error)


def positive_interval(value: float, influence: Tensor, groups: Tensor, *, stimuli: int, sentences: int) -> Interval:
    """As ``clustered_interval``, for what is above 0 and knows no 1: symmetric in the logarithm."""
    error, t = _clustered(influence, groups, stimuli, sentences)
    factor = math.exp(t * error / value)
    return Interval(value, value / factor, value * factor, error)


def angle_interval(value: float, influence: Tensor, groups: Tensor, *, stimuli: int, sentences: int) -> Interval:
    """As ``clustered_interval``, for a shape distance, an angle in 0..pi/2: that of its cosine; NaN below the floor."""
    if value < measures.SHAPE_FLOOR:
        return Interval(value, math.nan, math.nan, math.nan)
    cosine = clustered_interval(
        math.cos(value), -math.sin(value) * influence, groups, stimuli=stimuli, sentences=sentences
    )
    error, _ = _clustered(influence, groups, stimuli, sentences)
    return Interval(value, math.acos(min(1.0, cosine.high)), math.acos(min(1.0, cosine.low)), error)


def clustered_difference(
    first: float, second: float, influences: tuple[Tensor, Tensor], groups: Tensor, *, stimuli: int, sentences: int
) -> Interval:
    """``first - second`` of one measure on the same stimuli with its 95 % interval, from the influences on both.

    The sentences are the same, so their influences are subtracted before they are squared: what both share goes out.
    """
    error, t = _clustered(influences[0] - influences[1], groups, stimuli, sentences)
    value = first - second
    return Interval(value, value - t * error, value + t * error, error)


def _clustered(influence: Tensor, groups: Tensor, stimuli: int, sentences: int) -> tuple[float, float]:
    """Standard error of a measure and the quantile of Student's t that goes with it."""
    from scipy.special import stdtrit

    kept = int(groups.max()) + 1 if len(groups) else 0
    if kept < 2:
        raise BertftError(f"intervals: need stimuli of at least 2 sentences, found {kept}")
    totals = torch.zeros(kept, dtype=torch.float64).index_add_(0, groups, influence)
    return math.sqrt(sentences * float(totals.var())) / stimuli, float(stdtrit(kept - 1, 0.975))
