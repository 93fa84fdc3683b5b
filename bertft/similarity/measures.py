"""Linear similarity measures from centred scatter matrices.

RSA and CKA over all pairs are in `bertft.ops.moments.formulas`; this module has the measures that follow from second
moments alone. With X (n, D) and Y (n, E) the rows less their column means, every function takes

    xx = X'X (D, D)        yy = Y'Y (E, E)        xy = X'Y (D, E)        float64

and returns a differentiable tensor () float64. `scatter` computes these matrices from streamed moments. All measures
ignore translation of either space; each docstring states what else its measure ignores.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bertft.ops.moments.layout import Moments, Space, present

# A direction whose variance is below this share of the largest is rounding noise: for vectors of float32 or finer, for
# sums of float32 products (whose error is up to 1e-9 of the largest), and for vectors in half precision. Layer
# normalisation leaves one such direction, which has no variance of its own.
NOISE = 1e-10
NOISE_OF_FLOAT32_SUMS = 1e-7
NOISE_OF_VECTORS = {torch.float16: 1e-7, torch.bfloat16: 1e-5}
# Shape distances (in radians) up to here may be rounding in sums of float32 products.
SHAPE_FLOOR = 2e-4


def scatter(m: Moments) -> tuple[Tensor, Tensor, Tensor]:
    """Return X'X, Y'Y and X'Y of centred columns from the moments of two spaces (without leading dimensions)."""

    def centred(gram: Tensor, x: Space, y: Space) -> Tensor:
        return gram - torch.outer(x.s, y.s) / x.n

    gram_x, gram_y, cross = present(m.gram_x), present(m.gram_y), present(m.cross)
    return centred(gram_x, m.x, m.x), centred(gram_y, m.y, m.y), centred(cross, m.x, m.y)


def whitener(c: Tensor, noise: float, variance: float | None = None) -> Tensor:
    """Return W (D, k) with W'cW = I: the leading eigenvectors of c over the roots of their eigenvalues.

    Directions below ``noise`` are dropped. With ``variance``, only the leading ones with this share of it are kept.
    """
    values, vectors = torch.linalg.eigh(c)
    values, vectors = values.flip(0), vectors.flip(1)
    rank = int((values > noise * values[0].clamp(min=0)).sum())
    if variance is not None and rank:
        share = values[:rank].cumsum(0) / values[:rank].sum()
        rank = min(rank, int((share < variance).sum()) + 1)
    return vectors[:, :rank] / values[:rank].sqrt()


def canonical_correlations(
    xx: Tensor, yy: Tensor, xy: Tensor, *, variance: float | None = None, noise: float = NOISE
) -> tuple[Tensor, Tensor]:
    """Return canonical correlations (k,), largest first, and the projections of X (D, k) that attain them.

    Directions of a space whose variance is below ``noise`` times its largest are left out, here and below.
    """
    left, right = whitener(xx, noise, variance), whitener(yy, noise, variance)
    return correlations_of(left, right, xy)


def correlations_of(left: Tensor, right: Tensor, xy: Tensor) -> tuple[Tensor, Tensor]:
    """Return what `canonical_correlations` does, from the whiteners of both spaces."""
    u, s, _ = torch.linalg.svd(left.mT @ xy @ right, full_matrices=False)
    return s.clamp(max=1.0), left @ u


def cca(xx: Tensor, yy: Tensor, xy: Tensor, *, noise: float = NOISE) -> Tensor:
    """Return the mean canonical correlation over min(rank X, rank Y).

    Ignores any invertible linear map of either space. Uninformative (1) for n <= D: with as many dimensions as stimuli,
    everything correlates.
    """
    return canonical_correlations(xx, yy, xy, noise=noise)[0].mean()


def svcca(xx: Tensor, yy: Tensor, xy: Tensor, variance: float = 0.99, *, noise: float = NOISE) -> Tensor:
    """Return the mean canonical correlation of the leading directions.

    Those have a share ``variance`` of each space's variance (Raghu et al. 2017). Ignores rotation, reflection and
    isotropic scale of either space. Their number jumps, which an interval by influences does not see: it is too narrow
    for few texts.
    """
    return canonical_correlations(xx, yy, xy, variance=variance, noise=noise)[0].mean()


def pwcca(xx: Tensor, yy: Tensor, xy: Tensor, *, noise: float = NOISE) -> Tensor:
    """Return projection-weighted CCA (Morcos et al. 2018).

    Its weights are sum_j |h_i . x_j| over the columns x_j of X, with h_i = X a_i. Not symmetric. Ignores any invertible
    linear map of Y and an isotropic scale of X, but not rotation of X. Canonical correlations close to each other make
    the weights sensitive, and an interval by influences too wide.
    """
    return weighted_correlation(*canonical_correlations(xx, yy, xy, noise=noise), xx)


def weighted_correlation(correlations: Tensor, projections: Tensor, xx: Tensor) -> Tensor:
    """Return `pwcca` from the results of `canonical_correlations`."""
    weights = (projections.mT @ xx).abs().sum(1)
    return (weights * correlations).sum() / weights.sum()


def cka_biased(xx: Tensor, yy: Tensor, xy: Tensor) -> Tensor:
    """Return |X'Y|^2 / (|X'X| |Y'Y|), linear CKA as first published (Kornblith et al. 2019).

    Its value for unrelated spaces grows as n falls (`bertft.similarity.exact_null`). Ignores rotation, reflection and
    isotropic scale of either space.
    """
    return xy.square().sum() / (xx.square().sum() * yy.square().sum()).sqrt()


def procrustes(xx: Tensor, yy: Tensor, xy: Tensor) -> Tensor:
    """Return |X'Y|_* / (|X|_F |Y|_F), which is 1 if a rotation, reflection and isotropic scale map X to Y.

    Ignores these three maps. Its arc cosine is the shape distance of Williams et al. (2021), and 2 minus twice its
    value is the squared Procrustes distance of the spaces scaled to Frobenius norm 1.
    """
    return torch.linalg.svdvals(xy).sum() / (xx.trace() * yy.trace()).sqrt()


def shape_distance(xx: Tensor, yy: Tensor, xy: Tensor) -> Tensor:
    """Return the angle in 0..pi/2 with cosine ``procrustes``, a metric between shapes (Williams et al. 2021).

    Ignores rotation, reflection and isotropic scale of either space. Rounding reaches 1e-6 for sums of float64
    products, and `SHAPE_FLOOR` for others; below that floor a distance has no interval in either case.
    """
    return torch.arccos(procrustes(xx, yy, xy).clamp(max=1.0))


def linear_r2(xx: Tensor, yy: Tensor, xy: Tensor, ridge: float = 0.0, *, noise: float = NOISE) -> Tensor:
    """Return the share of Y's variance that a linear map of X explains in the sample; not symmetric.

    ``ridge`` is the penalty as a share of X's mean variance per dimension. Ignores any invertible linear map of X (for
    ridge 0), and rotation and isotropic scale of Y.
    """
    if ridge == 0.0:
        return (whitener(xx, noise).mT @ xy).square().sum() / yy.trace()
    penalty = ridge * xx.trace() / xx.shape[0]
    w = torch.linalg.solve(xx + penalty * torch.eye(xx.shape[0], dtype=xx.dtype), xy)
    return (2 * (w * xy).sum() - (w * (xx @ w)).sum()) / yy.trace()


def effective_dimension(xx: Tensor) -> Tensor:
    """Return the participation ratio (sum e)^2 / sum e^2 of the covariance's eigenvalues e: 1 for a line, D for a ball.

    Ignores rotation, reflection and isotropic scale. Too small for few texts, by more than its interval.
    """
    return xx.trace().square() / xx.square().sum()
