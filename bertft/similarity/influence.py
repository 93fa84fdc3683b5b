"""Jackknife intervals of streamed similarity.

The jackknife is the infinitesimal one.

RSA and CKA are smooth functions f of averages S_k over pairs (CKA also over triples) of stimuli. Given the final sums,
the projection of stimulus i on each average is exact in D^2 work, for instance

    g_KL(i) = sum over j != i of K_ij L_ij = z_i' A (sum z w') A w_i - K_ii L_ii     (bertft.similarity.augmented_rows)

and its influence on f is 2 sum_k (df/dS_k) (g_k(i) / (n-1) - S_k). Stimuli of one sentence are not independent, so
influences are added up within a sentence: with T_s the total of sentence s, S sentences and n stimuli,
var(f) = S var(T_s) / n^2. A random reservoir of whole sentences estimates var(T_s), without a second pass. The interval
is symmetric in Fisher's z = atanh(f), so that it stays inside (-1, 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.ops.metrics import SCALE
from bertft.ops.moments.formulas import PairSums, compare_sums, metric_offset, pair_sums
from bertft.ops.moments.layout import Moments
from bertft.runs.intervals import Interval as Interval
from bertft.runs.intervals import clustered_error, clustered_interval
from bertft.similarity import measures
from bertft.similarity.augmented_rows import EXTRA, LINEAR, RDM, Form, augment, pack
from bertft.similarity.moments import CrossMoments
from bertft.similarity.reservoir import Reservoir

__all__ = ["Interval", "Reservoir", "cka_intervals", "clustered_interval", "rsa_intervals"]

Influence = Callable[[Moments, Tensor, Tensor], Tensor]
Entries = tuple[tuple[float, float], tuple[float, float]]  # scale and offset of the entries of each RDM


def rsa_intervals(moments: CrossMoments, groups: Tensor, x: Tensor, y: Tensor, *, sentences: int) -> list[Interval]:
    """Return RSA (Pearson) of each layer pair of diagonal moments with its 95 % interval.

    Args:
        moments: sums over all stimuli.
        groups: (R,) sentences of the reservoir's stimuli.
        x: (L, R, D) vectors of the reservoir.
        y: (L, R, E), likewise.
        sentences: number S of sentences behind the sums.
    """
    return _intervals(moments, moments.rsa(), rsa_influence, groups, x, y, sentences)


def cka_intervals(moments: CrossMoments, groups: Tensor, x: Tensor, y: Tensor, *, sentences: int) -> list[Interval]:
    """Return debiased CKA of each layer pair with its 95 % interval; arguments are those of `rsa_intervals`."""
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
    """Return rows z (R, D+3) and w (R, E+3) about the means of diagonal ``moments``, for the influences."""
    mean_x, mean_y = moments.means(layer, layer)
    z, w = augment(x.cpu(), mean_x, moments.metric_x), augment(y.cpu(), mean_y, moments.metric_y)
    # the width of an interval needs three digits, not sixteen
    return (z, w) if x.dtype == torch.float64 else (z.float(), w.float())


def entries(moments: CrossMoments, layer: int) -> Entries:
    """Return scale and offset of both RDMs' entries at ``layer``, for `rsa_influence` of the cosine comparison."""
    return entries_about((moments.metric_x, moments.metric_y), moments.means(layer, layer))


def entries_about(metrics: tuple[str, str], means: tuple[Tensor, Tensor]) -> Entries:
    """Return scale and offset of the entries of two RDMs by their metrics and provisional means."""
    x, y = ((SCALE[metric], float(metric_offset(metric, mean))) for metric, mean in zip(metrics, means, strict=True))
    return x, y


def _pair_projection(form: Form, xy: Tensor, z: Tensor, w: Tensor) -> Tensor:
    """Return the sum over j != i of K_ij L_ij for each row i, (R,)."""
    bilinear = form.apply(form.apply(xy).mT).mT
    quadratic = ((z @ bilinear.to(z.dtype)) * w).sum(1)
    return quadratic.double() - form.diagonal(z).double() * form.diagonal(w).double()


def _single_projection(form: Form, moments: Tensor, z: Tensor) -> Tensor:
    """Return the sum over j != i of K_ij for each row i, (R,)."""
    z = z.double()
    return z @ form.apply(moments[:, -1:])[:, 0] - form.diagonal(z)


@torch.inference_mode(False)  # needs autograd even if the caller is in inference_mode
def rsa_influence(m: Moments, z: Tensor, w: Tensor, form: Entries | None = None, cross: Tensor | None = None) -> Tensor:
    """Return the influence (R,) of augmented rows z (R, D+3), w (R, E+3) on RSA; NaN if an RDM is constant.

    RSA is by Pearson, or by the cosine comparison of the matrices whose ``entries`` are ``form``. It is that of the
    stimuli in their places or, with ``cross`` (R,) of `bertft.similarity.null_influence`, that of a null.
    """
    xx, yy, xy = pack(m)
    others = float(m.x.n) - 1
    projections = (
        _single_projection(RDM, xx, z),
        _single_projection(RDM, yy, w),
        _pair_projection(RDM, xx, z, z),
        _pair_projection(RDM, xy, z, w) if cross is None else cross,
        _pair_projection(RDM, yy, w, w),
    )
    sums = pair_sums(m)
    if cross is not None:
        sums = sums._replace(kl=cross.mean() / others * sums.pairs)
    averages = [(total / sums.pairs).detach().requires_grad_() for total in sums[1:]]
    with torch.enable_grad():  # with a single pair, sums are averages
        of_one = PairSums(torch.ones_like(sums.pairs), *averages)
        scale, offset = zip(*form, strict=True) if form else ((1.0, 1.0), (0.0, 0.0))
        value = compare_sums(of_one, compare="cosine" if form else "pearson", scale=scale, offset=offset)
    if not value.isfinite():
        return torch.full_like(projections[0], math.nan)
    slopes = torch.autograd.grad(value, averages)
    terms = zip(slopes, projections, averages, strict=True)
    return 2 * torch.stack([slope * (g / others - mean.detach()) for slope, g, mean in terms]).sum(0)


class HsicMeans(NamedTuple):
    """The means that HSIC of two kernels K and L consists of: mean K L + mean K mean L - 2 mean_i k_i l_i.

    k_i and l_i are the means of row i. ``mean_kl``, ``mean_k`` and ``mean_l`` are means of entries, ``mean_rows`` is
    the mean of k_i l_i. Whether diagonals count is up to the caller.
    """

    mean_kl: float
    mean_k: float
    mean_l: float
    mean_rows: float

    @property
    def value(self) -> float:
        """HSIC."""
        return self.mean_kl + self.mean_k * self.mean_l - 2 * self.mean_rows

    def influence(self, kl: Tensor, k: Tensor, l: Tensor, k_onto_l: Tensor, l_onto_k: Tensor) -> Tensor:  # noqa: E741
        """Return the influences (R,) of stimuli on HSIC, from means over their row i, each (R,).

        Args:
            kl: mean over j of K_ij L_ij.
            k: k_i, the mean of row i of K.
            l: l_i, the mean of row i of L.
            k_onto_l: mean over j of K_ij l_j.
            l_onto_k: mean over j of L_ij k_j.
        """
        product = 2 * (self.mean_l * (k - self.mean_k) + self.mean_k * (l - self.mean_l))
        triple = k * l + k_onto_l + l_onto_k - 3 * self.mean_rows
        return 2 * (kl - self.mean_kl) + product - 2 * triple


def cka_with_influence(
    cross: tuple[float, Tensor], own_x: tuple[float, Tensor], own_y: tuple[float, Tensor]
) -> tuple[float, Tensor]:
    """Return CKA and its influences (R,) from HSIC and its influences of (K, L), (K, K) and (L, L).

    Both are NaN where a space has no variance.
    """
    (xy, d_xy), (xx, d_x), (yy, d_y) = cross, own_x, own_y
    if xx <= 0 or yy <= 0:
        return math.nan, torch.full_like(d_xy, math.nan)
    root = math.sqrt(xx * yy)
    return xy / root, (d_xy - xy / 2 * (d_x / xx + d_y / yy)) / root


def cka_influence(m: Moments, z: Tensor, w: Tensor, cross: Tensor | None = None) -> Tensor:
    """Return the influence (R,) of augmented rows z (R, D+3), w (R, E+3) on debiased CKA; NaN without variance.

    It is that of the stimuli in their places or, with ``cross`` (R,) of `bertft.similarity.null_influence`, that of a
    null. The rows are then about the mean of all stimuli.
    """
    xx, yy, xy = pack(m)
    if cross is None:
        of_pair = _hsic_influence(xy, z, w)
    else:
        means = cross / (float(m.x.n) - 1)
        of_pair = float(means.mean()), 2 * (means - means.mean())
    return cka_with_influence(of_pair, _hsic_influence(xx, z, z), _hsic_influence(yy, w, w))[1]


@torch.inference_mode(False)  # needs autograd even if the caller is in inference_mode
def scatter_influence(function: Callable[..., Tensor], m: Moments, z: Tensor, w: Tensor) -> Tensor:
    """Return the influence (R,) on a ``function`` of the centred scatter matrices (`bertft.similarity.measures`).

    With G the gradient of f with respect to a mean scatter matrix C, stimulus i adds <G, c_i c_i' - C> for its centred
    row c_i. The functions ignore a common factor, so the terms in C sum to zero.
    """
    n = float(m.x.n)
    spread = [(c / n).requires_grad_() for c in measures.scatter(m)]
    with torch.enable_grad():
        value = function(*spread)
    xx, yy, xy = (g if g is not None else torch.zeros_like(c) for g, c in zip(
        torch.autograd.grad(value, spread, allow_unused=True), spread, strict=True
    ))  # fmt: skip
    if abs(float(value.detach()) - 1) < 1e-9:
        # of two equal spaces f is maximal and flat, where the gradient of a decomposition with equal values is 0/0
        return torch.zeros(len(z), dtype=torch.float64)
    u, v = z[:, :-EXTRA].double() - m.x.s / n, w[:, :-EXTRA].double() - m.y.s / n
    influence = ((u @ xx) * u).sum(1) + ((v @ yy) * v).sum(1) + ((u @ xy) * v).sum(1)
    middle = torch.stack([(g * c).sum() for g, c in zip((xx, yy, xy), spread, strict=True)]).sum()
    return influence - middle.detach()


def shape_influence(m: Moments, z: Tensor, w: Tensor) -> Tensor:
    """Return the influence (R,) on the shape distance, from that on its cosine; 0 below the floor."""
    influence = scatter_influence(measures.procrustes, m, z, w)
    angle = float(measures.shape_distance(*measures.scatter(m)))
    return influence / -math.sin(angle) if angle >= measures.SHAPE_FLOOR else torch.zeros_like(influence)


def dimension_influence(m: Moments, z: Tensor, side: int) -> Tensor:
    """Return the influence (R,) of the rows z (R, D+3) of space ``side`` (0 or 1) of ``m`` on its effective dimension.

    Of the covariance C the dimension is t^2 / q, with t = tr C and q = |C|^2; stimulus i adds c_i c_i' - C to C.
    """
    space, n = (m.x, m.y)[side], float(m.x.n)
    c = measures.scatter(m)[side] / n
    u = z[:, :-EXTRA].double() - space.s / n
    t, q = c.trace(), c.square().sum()
    return 2 * t / q * ((u * u).sum(1) - t) - 2 * (t / q) ** 2 * (((u @ c) * u).sum(1) - q)


def anisotropy_influence(m: Moments, z: Tensor, side: int) -> Tensor:
    """Return the influence (R,) of rows z (R, D+3) of space ``side`` of cosine ``m`` on its mean cosine."""
    sums = pair_sums(m)
    mean = (sums.k, sums.l)[side] / sums.pairs
    return 2 * (_single_projection(RDM, pack(m)[side], z) / (float(m.x.n) - 1) - mean)


def _hsic_influence(xy: Tensor, z: Tensor, w: Tensor) -> tuple[float, Tensor]:
    """Return HSIC of the linear kernels without diagonals, and the influences (R,) of augmented rows on it."""
    n = float(xy[-1, -1])
    apply, k_ii, l_ii = LINEAR.apply, LINEAR.vector(xy.shape[0]), LINEAR.vector(xy.shape[1])
    rows_x = (apply(xy[:, -1:])[:, 0] - k_ii) / (n - 1)  # the mean of row i of K without its diagonal is z_i . rows_x
    rows_y = (apply(xy[-1:].mT)[:, 0] - l_ii) / (n - 1)
    core = apply(apply(xy).mT).mT
    mean_kl = float((core * xy).sum() - k_ii @ xy @ l_ii) / (n * (n - 1))
    mean_k, mean_l = float(rows_x @ xy[:, -1]) / n, float(rows_y @ xy[-1]) / n
    mean_rows = float(rows_x @ xy @ rows_y) / n
    kl = _pair_projection(LINEAR, xy, z, w) / (n - 1)
    z, w = z.double(), w.double()
    k, l_ = z @ rows_x, w @ rows_y
    # sum over j != i of K_ij (row mean of L)_j, and the same with K and L exchanged
    k_l = (z @ apply((xy @ rows_y).unsqueeze(1))[:, 0] - LINEAR.diagonal(z) * l_) / (n - 1)
    l_k = (w @ apply((xy.mT @ rows_x).unsqueeze(1))[:, 0] - LINEAR.diagonal(w) * k) / (n - 1)
    means = HsicMeans(mean_kl, mean_k, mean_l, mean_rows)
    return means.value, means.influence(kl, k, l_, k_l, l_k)


def angle_interval(value: float, influence: Tensor, groups: Tensor, *, stimuli: int, sentences: int) -> Interval:
    """Return the interval of a shape distance in 0..pi/2 from that of its cosine; NaN below the floor."""
    if value < measures.SHAPE_FLOOR:
        return Interval(value, math.nan, math.nan, math.nan)
    cosine = clustered_interval(
        math.cos(value), -math.sin(value) * influence, groups, stimuli=stimuli, sentences=sentences
    )
    error, _ = clustered_error(influence, groups, stimuli, sentences)
    return Interval(value, math.acos(min(1.0, cosine.high)), math.acos(min(1.0, cosine.low)), error)
