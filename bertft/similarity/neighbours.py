"""Mutual nearest neighbours and CKA with a Gaussian kernel.

Both visit all pairs of stimuli, tile by tile.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.ops import reference
from bertft.ops.nearest import Best, take_nearest
from bertft.ops.pairwise_distance import pairwise_distance
from bertft.ops.rows import check_rows, check_width
from bertft.runs.intervals import clustered_interval
from bertft.similarity.influence import HsicMeans, cka_with_influence

K = 10  # neighbours
PARTS = 10  # parts of the texts that a jackknife leaves out in turn
SPARE = 3  # times k neighbours are listed, so that k are left without a part of the texts
TILE = 2048  # rows and columns of similarities at a time
STRIP = 1024  # rows of a kernel's matrix at a time


def mutual_knn(x: Tensor, y: Tensor, k: int = K, *, metric: str = "cosine") -> Tensor:
    """Return, for each stimulus of x (n, D) and y (n, E), the share of its k nearest neighbours that both spaces have.

    The result is (n,) float64; its mean is the alignment of Huh et al. (2024), k / (n - 1) by chance. ``metric`` is
    cosine, or sqeuclidean, whose neighbours are those of euclidean. Ignores rotation and isotropic scale of either
    space, and translation under sqeuclidean. Takes n^2 (D + E) / 2 products and memory for (n + tile) x tile numbers.
    """
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise BertftError(f"mutual_knn: expected x (n, D) and y (n, E), found {tuple(x.shape)} and {tuple(y.shape)}")
    if not 1 <= k < len(x):
        raise BertftError(f"mutual_knn: k must lie in 1..{len(x) - 1} for {len(x)} stimuli, found {k}")
    a, b = nearest(x, k, metric=metric), nearest(y, k, metric=metric)
    return (a.unsqueeze(2) == b.unsqueeze(1)).any(2).double().mean(1)


def nearest(x: Tensor, k: int, *, metric: str = "cosine") -> Tensor:
    """Return the indices (n, k) int64 of each row's k nearest other rows, in no particular order.

    Every pair of tiles is multiplied once, for the rows of both. An entry is examined only if it exceeds a row's k-th
    best so far, which few do after the first tiles (`bertft.ops.nearest`).
    """
    if metric not in ("cosine", "sqeuclidean"):
        raise BertftError(f"nearest: metric must be cosine or sqeuclidean, found {metric!r}")
    check_width(x, metric, op="nearest", name="x")
    rows = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    length = torch.linalg.vector_norm(rows, dim=1)
    if not ((length > 0) & length.isfinite()).all():
        check_rows(x, metric, op="nearest")
    rows = reference.metric_rows(rows, metric) if metric == "cosine" else rows - rows.mean(0)
    half = None if metric == "cosine" else (rows * rows).sum(1) / 2
    n = len(rows)
    best = Best.none(rows, n, k)
    room = rows.new_empty(min(n, TILE) ** 2)  # reused for every tile
    for i in range(0, n, TILE):
        for j in range(i, n, TILE):
            a, b = rows[i : i + TILE], rows[j : j + TILE]
            tile = torch.mm(a, b.mT, out=room[: len(a) * len(b)].view(len(a), len(b)))
            if half is not None:
                tile -= half[i : i + TILE, None]
                tile -= half[j : j + TILE]
            if i == j:
                tile.fill_diagonal_(-math.inf)
            of_columns = best.of(j, len(b)) if i != j else None
            take_nearest(tile, best.of(i, len(a)), of_columns, row=i, column=j)
    return best.place


def overlap_influence(x: Tensor, y: Tensor, groups: Tensor, k: int = K) -> tuple[Tensor, Tensor]:
    """Return influences (n,) on the mean of `mutual_knn` (cosine), and the part of the texts (n,) of each stimulus.

    The influences of a part sum to its pseudo-value in a jackknife that leaves out one of `PARTS` runs of texts
    ``groups`` (n,) at a time. Leaving out a text changes the neighbours of all others. Its own shares alone give two
    thirds of the standard error; leaving out single stimuli gives four thirds, because the k-th neighbour jumps. The
    interval of a difference of two encoders is conservative.
    """
    texts, n = int(groups.max()) + 1, len(x)
    parts = min(PARTS, texts)
    part = groups * parts // texts
    a, b = (_ranked(t, min(SPARE * k, n - 1)) for t in (x, y))
    same = a.unsqueeze(2) == b.unsqueeze(1)
    place = torch.where(same.any(2), same.int().argmax(2), b.shape[1])  # of each neighbour in x among those in y
    found = []
    for gone in range(parts):
        left = part != gone
        both = _first(left[a], k) & _padded(_first(left[b], k)).gather(1, place)
        found.append(both[left].sum().double() / (k * left.sum()))
    value = torch.stack(found)
    pseudo = (parts - 1) * (value.mean() - value)
    return (pseudo * n / parts / torch.bincount(part))[part], part


def _ranked(x: Tensor, m: int) -> Tensor:
    """Return the m nearest other rows (n, m) by cosine, the nearest first."""
    unit = reference.metric_rows(x.float(), "cosine").cpu()
    places = nearest(x, m).cpu()
    order = [
        (unit[places[some]] @ unit[some].unsqueeze(2)).squeeze(2).argsort(dim=1, descending=True, stable=True)
        for some in torch.arange(len(x)).split(STRIP)
    ]
    return places.gather(1, torch.cat(order))


def _first(left: Tensor, k: int) -> Tensor:
    """Return a mask (n, m) of the first k neighbours that are ``left``."""
    return left & (left.cumsum(1) <= k)


def _padded(mask: Tensor) -> Tensor:
    """Return a mask (n, m + 1) with a column of False, for neighbours of one space that the other does not list."""
    return torch.nn.functional.pad(mask, (0, 1))


def rbf_cka(
    x: Tensor, y: Tensor, groups: Tensor | None = None, *, sigma: float = 0.5
) -> tuple[float, float | None, float | None]:
    """Return (CKA, low, high) of the kernels exp(-|x_i - x_j|^2 / (2 s^2)) of x (n, D) and y (n, E).

    The width s is ``sigma`` times the median distance. As first published (Kornblith et al. 2019), diagonals count, and
    the median is over all pairs including each stimulus with itself (beyond 1,000 stimuli, over a million random
    pairs). With sentences ``groups`` (n,), low and high are the 95 % interval by influences at fixed widths s;
    otherwise None. Takes two passes over tiles. Ignores rotation, translation and isotropic scale of either space.
    """
    value, influence = rbf_alignment(x, y, sigma=sigma, influences=groups is not None)
    if groups is None or influence is None:
        return value, None, None
    sentences = int(groups.max()) + 1
    return clustered_interval(value, influence, groups, stimuli=len(x), sentences=sentences)[:3]


def rbf_alignment(x: Tensor, y: Tensor, *, sigma: float = 0.5, influences: bool = True) -> tuple[float, Tensor | None]:
    """Return the CKA of `rbf_cka`, NaN if a kernel is constant, and the stimuli's influences (n,) on request."""
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or len(x) < 3:
        raise BertftError(f"rbf_cka: expected x (n, D) and y (n, E), n >= 3, found {tuple(x.shape)}, {tuple(y.shape)}")
    for rows, name in ((x, "x"), (y, "y")):
        check_rows(rows, "sqeuclidean", op="rbf_cka", name=name)
    x, y, n = x.double() - x.double().mean(0), y.double() - y.double().mean(0), len(x)
    kernels = (_Gaussian(x, sigma), _Gaussian(y, sigma))
    k, l_, kl, kk, ll = (x.new_empty(n) for _ in range(5))  # means of each row
    for start in range(0, n, STRIP):
        some = slice(start, start + STRIP)
        a, b = (kernel(some) for kernel in kernels)
        for out, values in ((k, a), (l_, b), (kl, a * b), (kk, a * a), (ll, b * b)):
            out[some] = values.mean(1)
    onto = x.new_empty(n, 2, 2)  # mean over j of K_ij k_j, K_ij l_j; L_ij k_j, L_ij l_j
    for start in range(0, n, STRIP if influences else n):
        if influences:
            some = slice(start, start + STRIP)
            for side, kernel in enumerate(kernels):
                onto[some, side] = kernel(some) @ torch.stack([k, l_], 1) / n
    value, influence = cka_with_influence(
        _hsic(kl, k, l_, onto[:, 0, 1], onto[:, 1, 0]),
        _hsic(kk, k, k, onto[:, 0, 0], onto[:, 0, 0]),
        _hsic(ll, l_, l_, onto[:, 1, 1], onto[:, 1, 1]),
    )
    return value, influence.cpu() if influences and not math.isnan(value) else None


def gaussian_kernel(x: Tensor, *, sigma: float = 0.5) -> Tensor:
    """Return the kernel (N, N) float64 of `rbf_cka` of x (N, D), with rows and columns centred."""
    kernel = _Gaussian(x.double() - x.double().mean(0), sigma)(slice(0, len(x)))
    kernel -= kernel.mean(0)
    return kernel - kernel.mean(1, keepdim=True)


class _Gaussian:
    """A kernel matrix whose rows are computed on demand."""

    def __init__(self, x: Tensor, sigma: float) -> None:
        n = len(x)
        self.x = x
        if n <= 1000:
            squares = self._squares(slice(0, n)).flatten()
        else:
            i, j = torch.randint(0, n, (2, 1_000_000), generator=torch.Generator().manual_seed(0))
            squares = reference.paired_distance(x, i, j, "sqeuclidean")
        self.width = 2 * sigma**2 * float(np.median(squares.cpu().numpy()))
        if not self.width > 0:
            raise BertftError("rbf_cka: half of all pairs of stimuli are equal, so the kernel has no width")

    def _squares(self, rows: slice) -> Tensor:
        return pairwise_distance(self.x[rows], self.x, metric="sqeuclidean", nan="propagate")

    def __call__(self, rows: slice) -> Tensor:
        return self._squares(rows).div_(-self.width).exp_()


def _hsic(kl: Tensor, k: Tensor, l_: Tensor, k_onto_l: Tensor, l_onto_k: Tensor) -> tuple[float, Tensor]:
    """Return HSIC with diagonals and its influences (n,), from the means of all rows."""
    means = HsicMeans(*(float(t.mean()) for t in (kl, k, l_, k * l_)))
    return means.value, means.influence(kl, k, l_, k_onto_l, l_onto_k)
