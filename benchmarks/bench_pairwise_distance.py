"""The distance matrix, forward and backward."""

from __future__ import annotations

import functools

import torch

from benchmarks.harness import OURS, BandwidthLimit, Contender, GemmLimit
from benchmarks.peers import have, keops_row_sums
from benchmarks.stimuli import isotropic
from bertft.ops import pairwise_distance

N, D = 5000, 768


def test_forward(run_race):
    x, _ = isotropic(N, D)
    truth = torch.cdist(x[:500].double(), x.double())
    contenders = [
        Contender(OURS, lambda: pairwise_distance(x, metric="euclidean")),
        Contender("torch.cdist", lambda: torch.cdist(x, x)),
    ]
    if have("sklearn"):
        from sklearn.metrics import euclidean_distances

        contenders.append(Contender("scikit-learn", lambda: torch.from_numpy(euclidean_distances(x.numpy())), rounds=3))
    if have("scipy"):
        from scipy.spatial.distance import pdist, squareform

        contenders.append(Contender("SciPy", lambda: torch.from_numpy(squareform(pdist(x.numpy()))), 1, one_core=True))
    record = run_race(
        "pairwise_distance",
        "distances, euclidean, forward, n=5000, d=768",
        contenders,
        GemmLimit(N * N * D),
        error=lambda r: float((r[:500].double() - truth).abs().max() / truth.max()),
        tolerance=1e-5,
    )
    assert record.rows


def test_forward_of_few_dimensions(run_race):
    """Time sizes at which writing the matrix takes longer than the products."""
    x, _ = isotropic(N, 8)
    truth = torch.cdist(x.double(), x.double(), compute_mode="donot_use_mm_for_euclid_dist")
    run_race(
        "pairwise_distance",
        "distances, euclidean, forward, n=5000, d=8",
        [
            Contender(OURS, lambda: pairwise_distance(x, metric="euclidean")),
            Contender("torch.cdist", lambda: torch.cdist(x, x)),
        ],
        BandwidthLimit(N * N * x.element_size()),
        error=lambda r: float((r.double() - truth).abs().max() / truth.max()),
        tolerance=1e-5,
    )


@functools.cache
def exact_gradient() -> torch.Tensor:
    """Return the gradient of sum_ij w_ij |x_i - x_j| in float64: sum_j (w_ij + w_ji) (x_i - x_j) / |x_i - x_j|."""
    x, pull = isotropic(N, D)[0].double(), weight().double()
    pull = (pull + pull.T) / torch.cdist(x, x).fill_diagonal_(1)
    return pull.sum(1, keepdim=True) * x - pull @ x


def weight() -> torch.Tensor:
    """Return the gradient of the distances, 0 on the diagonal, where torch.cdist is not differentiable."""
    return torch.rand(N, N, generator=torch.Generator().manual_seed(3)).fill_diagonal_(0)


def test_backward(run_race):
    x, _ = isotropic(N, D)
    truth, above = exact_gradient(), weight()

    def gradient(distance):
        leaf = x.clone().requires_grad_()
        out = distance(leaf)
        return lambda: torch.autograd.grad(out, leaf, above, retain_graph=True)[0]

    def cdist(z):
        return torch.cdist(z, z, compute_mode="use_mm_for_euclid_dist")

    contenders = [
        Contender(OURS, gradient(lambda z: pairwise_distance(z, metric="euclidean")), rounds=5),
        Contender("torch.cdist", gradient(cdist), rounds=3),
    ]
    record = run_race(
        "pairwise_distance",
        "distances, euclidean, backward alone, n=5000, d=768",
        contenders,
        GemmLimit(2 * N * N * D),
        error=lambda r: float((r.double() - truth).abs().max() / truth.abs().max()),
        tolerance=1e-4,
        rounds=5,
    )
    assert record.rows


def test_row_sums(run_race):
    x, _ = isotropic(N, 64)
    truth = torch.cdist(x.double(), x.double()).sum(1)
    contenders = [
        Contender(OURS, lambda: pairwise_distance(x, metric="euclidean").sum(1)),
        Contender("torch.cdist", lambda: torch.cdist(x, x).sum(1)),
    ]
    if have("pykeops"):
        contenders.append(Contender("KeOps", lambda: keops_row_sums(x).flatten(), rounds=3))
    record = run_race(
        "pairwise_distance",
        "row sums of distances, euclidean, n=5000, d=64",
        contenders,
        GemmLimit(N * N * 64),
        error=lambda r: float((r.double() - truth).abs().max() / truth.max()),
        tolerance=1e-5,
    )
    assert record.rows
