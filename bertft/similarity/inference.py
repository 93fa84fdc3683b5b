"""Intervals for streamed similarity: the infinitesimal jackknife from a reservoir of whole sentences.

RSA and CKA are smooth functions f of averages S_k over pairs (CKA also over triples) of stimuli. Given the final sums,
the projection of stimulus i on each average is exact in D^2 work, for instance

    g_KL(i) = sum over j != i of K_ij L_ij = z_i' A (sum z w') A w_i - K_ii L_ii     (bertft.similarity.augmented)

and its influence on f is 2 sum_k (df/dS_k) (g_k(i) / (n-1) - S_k). Stimuli of one sentence are not independent, so
influences are added up within a sentence: with T_s the total of sentence s, S sentences and n stimuli,
var(f) = S var(T_s) / n^2. A random reservoir of whole sentences estimates var(T_s); no second pass is needed.
The interval is symmetric in Fisher's z = atanh(f), so that it stays inside (-1, 1).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.ops.cross_moments import Moments
from bertft.ops.moment_formulas import pair_sums
from bertft.similarity.augmented import LINEAR, RDM, Form, augment, pack
from bertft.similarity.moments import CrossMoments

Influence = Callable[[Moments, Tensor, Tensor], Tensor]


class Interval(NamedTuple):
    """A similarity with its standard error and 95 % interval."""

    value: float
    low: float
    high: float
    standard_error: float


class Reservoir:
    """A random sample of whole sentences with their vectors in several spaces, at most ``capacity`` stimuli.

    Each sentence has a priority drawn from (seed, id) alone, and the lowest ones stay (two at least), so that the
    sample depends neither on the order of the stream nor on how it is cut into batches. A sentence may come in parts.
    """

    def __init__(self, capacity: int = 5000, seed: int = 0) -> None:
        if capacity < 1:
            raise BertftError(f"Reservoir: capacity must be positive, found {capacity}")
        self.capacity, self.seed = capacity, seed
        self.stimuli = 0  # kept now
        self._limit = math.inf  # the lowest priority that was turned away
        self._heap: list[tuple[float, int]] = []  # (-priority, id), so that the highest priority leaves first
        self._parts: dict[int, list[tuple[Tensor, ...]]] = {}

    def offer(self, ids: Tensor, lengths: Tensor, *spaces: Tensor) -> None:
        """Offer sentences: ids (S,) and lengths (S,), spaces (L, T, D) packed, T the sum of the lengths."""
        stop = 0
        drawn = _priorities(self.seed, ids.numpy()).tolist()
        for identity, length, priority in zip(ids.tolist(), lengths.tolist(), drawn, strict=True):
            start, stop = stop, stop + length
            if not length or priority >= self._limit:
                continue
            if identity not in self._parts:
                heapq.heappush(self._heap, (-priority, identity))
                self._parts[identity] = []
            self._parts[identity].append(tuple(space[:, start:stop].clone() for space in spaces))
            self.stimuli += length
            while len(self._heap) > 2 and self.stimuli > self.capacity:
                highest, leaving = heapq.heappop(self._heap)
                self._limit = -highest
                self.stimuli -= sum(part[0].shape[1] for part in self._parts.pop(leaving))

    def contents(self) -> tuple[Tensor, list[Tensor]]:
        """Sentence of each kept stimulus (R,) int64, 0.. in order of id, and the spaces (L, R, D)."""
        if not self._parts:
            raise BertftError("Reservoir: needs at least 2 sentences, found 0")
        parts = [(i, part) for i, key in enumerate(sorted(self._parts)) for part in self._parts[key]]
        groups = torch.cat([torch.full((part[0].shape[1],), i) for i, part in parts])
        return groups, [torch.cat(space, dim=1) for space in zip(*(part for _, part in parts), strict=True)]


def _priorities(seed: int, ids: np.ndarray) -> np.ndarray:
    """Uniform numbers in [0, 1) from (seed, id): the finaliser of splitmix64, which mixes all bits."""
    with np.errstate(over="ignore"):
        z = ids.astype(np.uint64) + np.uint64(seed % 2**32 + 1) * np.uint64(0x9E3779B97F4A7C15)
        for _ in range(2):  # twice, so that neighbouring seeds do not give shifted sequences
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) / 2**53


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
        mean_x, mean_y = moments.means(layer, layer)
        z, w = augment(x[layer], mean_x, moments.metric_x), augment(y[layer], mean_y, moments.metric_y)
        if x.dtype != torch.float64:  # an interval's width needs three digits, not sixteen
            z, w = z.float(), w.float()
        influence = influence_of(moments.moments(layer, layer), z, w)
        intervals.append(clustered_interval(value, influence, groups, stimuli=len(moments), sentences=sentences))
    return intervals


def _pair_projection(form: Form, xy: Tensor, z: Tensor, w: Tensor) -> Tensor:
    """sum over j != i of K_ij L_ij for each row i, (R,)."""
    bilinear = form.apply(form.apply(xy).mT).mT
    quadratic = ((z @ bilinear.to(z.dtype)) * w).sum(1)
    return quadratic.double() - form.diagonal(z).double() * form.diagonal(w).double()


def _single_projection(form: Form, moments: Tensor, z: Tensor) -> Tensor:
    """sum over j != i of K_ij for each row i, (R,)."""
    z = z.double()
    return z @ form.apply(moments[:, -1:])[:, 0] - form.diagonal(z)


def rsa_influence(m: Moments, z: Tensor, w: Tensor) -> Tensor:
    """Influence (R,) of augmented rows z (R, D+3), w (R, E+3) on RSA (Pearson); NaN where an RDM is constant."""
    xx, yy, xy = pack(m)
    others = float(m.x.n) - 1
    sums = pair_sums(m)
    k0, l0, kk0, kl0, ll0 = (float(total / sums.pairs) for total in sums[1:])
    k = _single_projection(RDM, xx, z) / others - k0
    l_ = _single_projection(RDM, yy, w) / others - l0
    kk = _pair_projection(RDM, xx, z, z) / others - kk0
    ll = _pair_projection(RDM, yy, w, w) / others - ll0
    kl = _pair_projection(RDM, xy, z, w) / others - kl0
    vx, vy = kk0 - k0 * k0, ll0 - l0 * l0
    if vx <= 0 or vy <= 0:
        return torch.full_like(k, math.nan)
    root = math.sqrt(vx * vy)
    r = (kl0 - k0 * l0) / root
    return 2 * ((kl - k0 * l_ - l0 * k) / root - r / 2 * ((kk - 2 * k0 * k) / vx + (ll - 2 * l0 * l_) / vy))


def cka_influence(m: Moments, z: Tensor, w: Tensor) -> Tensor:
    """Influence (R,) of augmented rows z (R, D+3), w (R, E+3) on debiased CKA; NaN where a space has no variance."""
    xx, yy, xy = pack(m)
    cross, d_cross = _hsic_influence(xy, z, w)
    own_x, d_x = _hsic_influence(xx, z, z)
    own_y, d_y = _hsic_influence(yy, w, w)
    if own_x <= 0 or own_y <= 0:
        return torch.full_like(d_cross, math.nan)
    return (d_cross - cross / 2 * (d_x / own_x + d_y / own_y)) / math.sqrt(own_x * own_y)


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
    from scipy.special import stdtrit

    kept = int(groups.max()) + 1 if len(groups) else 0
    if kept < 2:
        raise BertftError(f"intervals: need stimuli of at least 2 sentences, found {kept}")
    if not math.isfinite(value):
        return Interval(value, math.nan, math.nan, math.nan)
    totals = torch.zeros(kept, dtype=torch.float64).index_add_(0, groups, influence)
    error = math.sqrt(sentences * float(totals.var())) / stimuli
    room = 1 - value * value
    if room < 1e-12 or error < 1e-12:
        return Interval(value, value, value, error)
    z, half = math.atanh(value), float(stdtrit(kept - 1, 0.975)) * error / room
    return Interval(value, math.tanh(z - half), math.tanh(z + half), error)
