"""Formulas of `bertft.ops` in plain PyTorch.

They specify the kernels, which are tested against them, and replace the kernels where none is available. They are
written to be read. Functions expect arguments that their namesakes in `bertft.ops` have checked.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bertft.ops.autograd import product
from bertft.ops.metrics import NORMALISED, RANKS

# Structural probes (Hewitt and Manning 2019) ---------------------------------------------------------------------


def distance_probe_loss(h: Tensor, weight: Tensor, distances: Tensor, lengths: Tensor) -> Tensor:
    """Return the mean over sentences of  1 / n^2 * sum_{i, j} | |B'(h_i - h_j)|^2 - distances_ij |.

    Squared distances come from the Gram matrix of a sentence: n^2 numbers, never n^2 R. The subgradient at equality is
    0.

    Args:
        h: (L, T, D) or (T, D), the words of all sentences, one sentence after the other.
        weight: (L, D, R), the B of each layer.
        distances: (sum n_s^2,), the (n, n) matrix of each sentence, row by row, one sentence after the other.
        lengths: (S,), words of each sentence; sentences of length 0 do not count.

    Returns:
        (L,) in float64 if h or weight is, else float32.
    """
    dtype = torch.float64 if torch.float64 in (h.dtype, weight.dtype) else torch.float32
    projected = product(h.to(dtype).expand(len(weight), *h.shape[-2:]), weight.to(dtype))
    losses, start = [], 0
    sizes = [n for n in lengths.tolist() if n > 0]
    for points, n in zip(projected.split(sizes, dim=1), sizes, strict=True):
        gram = product(points, points.transpose(1, 2))
        squares = gram.diagonal(dim1=1, dim2=2)
        predicted = squares.unsqueeze(1) + squares.unsqueeze(2) - 2 * gram
        gold = distances[start : start + n * n].view(n, n).to(dtype)
        losses.append((predicted - gold).abs().sum(dim=(1, 2)) / n**2)
        start += n * n
    return torch.stack(losses).mean(dim=0) if losses else projected.sum(dim=(1, 2))


def depth_probe_loss(h: Tensor, weight: Tensor, depths: Tensor, lengths: Tensor) -> Tensor:
    """Return the mean over sentences of  1 / n * sum_i | |B'h_i|^2 - depths_i |  as (L,).

    ``depths`` (T,) holds the depth of each word in its tree, 0 for the root. Other arguments are those of
    `distance_probe_loss`.
    """
    dtype = torch.float64 if torch.float64 in (h.dtype, weight.dtype) else torch.float32
    projected = product(h.to(dtype).expand(len(weight), *h.shape[-2:]), weight.to(dtype))
    error = (projected.square().sum(dim=2) - depths.to(dtype)).abs()
    sizes = [n for n in lengths.tolist() if n > 0]
    losses = [part.sum(dim=1) / n for part, n in zip(error.split(sizes, dim=1), sizes, strict=True)]
    return torch.stack(losses).mean(dim=0) if losses else projected.sum(dim=(1, 2))


def probe_loss(
    h: Tensor, weight_distance: Tensor, weight_depth: Tensor, distances: Tensor, depths: Tensor, lengths: Tensor
) -> Tensor:
    """Return both losses as (L, 2): distance and depth."""
    return torch.stack(
        [
            distance_probe_loss(h, weight_distance, distances, lengths),
            depth_probe_loss(h, weight_depth, depths, lengths),
        ],
        dim=1,
    )


# Similarity of spaces ----------------------------------------------------------------------------------------------


def metric_rows(x: Tensor, metric: str) -> Tensor:
    """Return the rows of x (..., N, D) in the form in which the metric takes them.

    ``correlation`` subtracts each row's mean; it and ``cosine`` then divide by the row's norm (NaN for norm 0).
    """
    if metric == "correlation":
        x = x - x.mean(-1, keepdim=True)
    if metric in NORMALISED:
        x = x / torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x


def prepared_rows(x: Tensor, mean: Tensor, metric: str) -> tuple[Tensor, Tensor]:
    """Return u (..., N, D) and p (..., N) float64 of the form u.v + p_u + p_v (`bertft.ops.metrics`).

    x is (..., N, D), mean (..., D).
    """
    mean = mean.double().unsqueeze(-2)
    u = metric_rows(x.double(), metric) - mean
    return u, -(u * u).sum(-1) / 2 if metric == "sqeuclidean" else (u * mean).sum(-1)


def condense(matrix: Tensor) -> Tensor:
    """Return the upper triangle of (..., N, N) as (..., N (N-1) / 2), row by row as SciPy's ``pdist``."""
    n = matrix.shape[-1]
    i, j = torch.triu_indices(n, n, 1, device=matrix.device)
    return matrix[..., i, j]


def pairwise_distance(
    x: Tensor, y: Tensor | None = None, *, metric: str = "sqeuclidean", condensed: bool = False
) -> Tensor:
    """Return out[..., i, j] = d(x[..., i, :], y[..., j, :]) with d of `bertft.ops.metrics`, computed in float64.

    x (..., N, D), y (..., M, D) -> (..., N, M), in float64 for float64 input and else float32. Without y exactly
    symmetric, with zeros on the diagonal (except ``dot``). Gradients are finite: zero at zero distance.
    """
    result = torch.float64 if x.dtype == torch.float64 else torch.float32
    x, y = x.double(), None if y is None else y.double()
    u = metric_rows(x, metric)
    d = between_rows(u, None if y is None else metric_rows(y, metric), metric)
    if y is None and metric != "dot":
        d = d * (1 - torch.eye(d.shape[-1], dtype=d.dtype, device=d.device))
    return (condense(d) if condensed else d).to(result)


def between_rows(u: Tensor, v: Tensor | None, metric: str) -> Tensor:
    """Return distances (..., N, M) of rows u (..., N, D) and v (..., M, D), or u again, from ``metric_rows``."""
    if metric in ("dot", *NORMALISED):
        d = u @ (u if v is None else v).mT
        if v is None:
            d = (d + d.mT) / 2
        if metric in NORMALISED:
            d = 1 - d
            d = d + (d.clamp(min=0) - d).detach()  # removes rounding below zero, not the gradient
        return d
    v = u if v is None else v
    if metric == "manhattan":
        return torch.cdist(u, v, p=1.0)
    d = torch.cdist(u, v, compute_mode="donot_use_mm_for_euclid_dist")
    return d * d if metric == "sqeuclidean" else d


def paired_distance(x: Tensor, i: Tensor, j: Tensor, metric: str) -> Tensor:
    """Return out[k] = d(x[i[k]], x[j[k]]) in float64; x (N, D), i and j (K,)."""
    x = metric_rows(x.double(), metric)
    parts = []
    for some_i, some_j in zip(i.split(4096), j.split(4096), strict=True):  # to bound memory
        u, v = x[some_i], x[some_j]
        if metric in ("dot", *NORMALISED):
            parts.append((u * v).sum(-1) if metric == "dot" else 1 - (u * v).sum(-1))
        elif metric == "manhattan":
            parts.append((u - v).abs().sum(-1))
        else:
            square = (u - v).square().sum(-1)
            parts.append(square if metric == "sqeuclidean" else square.sqrt())
    return torch.cat(parts) if parts else x.new_zeros(0)


def average_ranks(values: Tensor) -> Tensor:
    """Return the ranks 1..P of values (P,) as (P,) float64, with the mean rank for ties."""
    _, inverse, counts = torch.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts.double() - 1) / 2)[inverse]


def compare_matrices(a: Tensor, b: Tensor, compare: str) -> Tensor:
    """Compare two condensed matrices (P,), (P,); return () float64.

    ``pearson``; ``cosine`` (no centring); ``spearman`` (Pearson of average ranks); ``rho_a`` (Schuett et al. 2023: 12
    sum r s / (P^3 - P) - 3 (P + 1) / (P - 1), the expected Spearman under random tie breaks), or ``rho_a of ranks`` if
    a and b are ranks already; ``kendall`` (tau-b).
    """
    a, b = a.double(), b.double()
    if compare in RANKS:
        a, b = average_ranks(a), average_ranks(b)
    if compare.startswith("rho_a"):
        n = a.new_tensor(float(len(a)))
        return 12 * (a * b).sum() / (n**3 - n) - 3 * (n + 1) / (n - 1)
    if compare == "kendall":
        s, t = torch.sign(a[:, None] - a[None, :]), torch.sign(b[:, None] - b[None, :])
        return (s * t).sum() / torch.sqrt((s * s).sum() * (t * t).sum())
    if compare != "cosine":
        a, b = a - a.mean(), b - b.mean()
    return (a * b).sum() / torch.sqrt((a * a).sum() * (b * b).sum())


def rdm_correlation(
    x: Tensor, y: Tensor | None = None, *, metric: str = "cosine", compare: str = "pearson", metric_y: str | None = None
) -> Tensor:
    """Return out[l, m] = comparison of the matrices of x[l] and y[m]; x (L, N, D), y (M, N, E) -> (L, M) float64.

    Every matrix is in memory.
    """
    a = pairwise_distance(x.double(), metric=metric, condensed=True)
    b = a if y is None else pairwise_distance(y.double(), metric=metric_y or metric, condensed=True)
    rows = [torch.stack([compare_matrices(r, s, compare) for s in b]) if len(b) else r.new_zeros(0) for r in a]
    return torch.stack(rows) if rows else a.new_zeros(0, len(b))


def rdm_moments(
    x: Tensor, y: Tensor | None, metric_x: str, metric_y: str, *, numbers: int = 1 << 21
) -> tuple[Tensor, Tensor, Tensor]:
    """Return sums over the pairs i < j of the entries e of P matrices, those of x (L, N, D), then those of y (M, N, E).

    sum (e - s) (P,), sum (e - s)(e' - s') (P, P) and s (P,), a shift near each matrix's mean, all in float64. Works in
    strips of rows with about ``numbers`` entries of all matrices at a time.
    """
    spaces = [(x, metric_x)] if y is None else [(x, metric_x), (y, metric_y)]
    P, N = sum(len(rows) for rows, _ in spaces), x.shape[1]
    prepared = [(metric_rows(rows.double(), metric), metric) for rows, metric in spaces]
    place, step = torch.arange(N, device=x.device), max(1, numbers // max(1, P * N))
    sums, products, shifts = (x.new_zeros(shape, dtype=torch.float64) for shape in ((P,), (P, P), (P,)))
    for first in range(0, N, step):
        above = place[first:] > place[first : first + step, None]
        strips = [between_rows(u[:, first : first + step], u[:, first:], metric) for u, metric in prepared]
        entries = torch.cat([strip[:, above] for strip in strips])
        shifts = entries.mean(1) if first == 0 else shifts
        entries -= shifts[:, None]
        sums += entries.sum(1)
        products += entries @ entries.mT
    return sums, (products + products.mT) / 2, shifts


def cross_moments(
    x: Tensor,
    y: Tensor | None,
    mean_x: Tensor,
    mean_y: Tensor | None,
    metric_x: str,
    metric_y: str,
    *,
    grams: bool = True,
) -> tuple[Tensor | None, ...]:
    """Return the six tensors of `bertft.ops.moments.layout.Moments` for x (n, D), y (n, E), in float64."""

    def space(u: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        a = (u * u).sum(-1)
        sums = [u.new_tensor(float(len(u))), a.sum(), p.sum(), (a * a).sum(), (a * p).sum(), (p * p).sum()]
        return u.mT @ u, torch.cat([u.sum(0), p @ u, a @ u, torch.stack(sums)])

    u, p = prepared_rows(x, mean_x, metric_x)
    of_x = space(u, p) if grams or y is None else (None, None)
    if y is None or mean_y is None:
        return (*of_x, None, None, None, None)
    v, q = prepared_rows(y, mean_y, metric_y)
    a, b = (u * u).sum(-1), (v * v).sum(-1)
    both = torch.cat([q @ u, b @ u, p @ v, a @ v, torch.stack([a @ b, p @ q, q @ a, p @ b])])
    return (*of_x, u.mT @ v, both, *(space(v, q) if grams else (None, None)))


def take_nearest(tile: Tensor, value: Tensor, place: Tensor, first: int) -> None:
    """Merge ``tile`` (m, n) into the lists ``value`` and ``place`` (m, k) of the largest entries so far, in place.

    The tile's first column is number ``first``.
    """
    k = value.shape[1]
    kept = torch.cat([value, tile], 1).topk(k, dim=1)
    old = place.gather(1, kept.indices.clamp(max=k - 1))
    value.copy_(kept.values)
    place.copy_(torch.where(kept.indices < k, old, kept.indices - k + first))
