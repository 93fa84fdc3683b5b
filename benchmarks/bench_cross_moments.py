"""CKA and RSA as a loss, from moments."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch

from benchmarks.harness import OURS, Contender, GemmLimit
from benchmarks.peers import feature_space_cka, have, pytorch_cka, torch_as_written, torch_at_best
from benchmarks.stimuli import isotropic
from bertft.ops import rdm_correlation
from bertft.similarity import CrossMoments

N, D = 5000, 768


def test_debiased_cka(run_race):
    x, y = isotropic(N, D)
    truth = feature_space_cka(x.double(), y.double()).item()
    contenders = [
        Contender(OURS, lambda: CrossMoments(1, 1, "dot").update(x[None], y[None]).cka()),
        Contender("PyTorch, features", lambda: feature_space_cka(x, y), rounds=5),
    ]
    if have("cka"):
        contenders.append(Contender("pytorch-cka", lambda: pytorch_cka(x, y), rounds=2))
    record = run_race(
        "cross_moments",
        "CKA, debiased, linear, n=5000, d=768",
        contenders,
        GemmLimit(4 * N * D * D),
        error=lambda r: abs(float(r) - truth),
        tolerance=1e-7,
    )
    assert record.rows


def gradient(
    similarity: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], x: torch.Tensor, y: torch.Tensor
) -> torch.Tensor:
    """Return the gradient of the similarity of x and y with respect to x."""
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(similarity(leaf, y).sum(), leaf)[0]


@functools.cache
def exact_gradient() -> torch.Tensor:
    """Return the gradient of RSA by plain PyTorch in float64."""
    x, y = isotropic(N, D)
    return gradient(lambda z, w: torch_as_written(z, w, "cosine"), x.double(), y.double())


def test_rsa_as_a_loss(run_race):
    x, y = isotropic(N, D)

    truth = exact_gradient()
    contenders = [
        Contender(
            OURS, lambda: gradient(lambda z, w: rdm_correlation(z[None], w[None], metric="cosine"), x, y), rounds=5
        ),
        Contender("PyTorch at best", lambda: gradient(lambda z, w: torch_at_best(z, w, "cosine"), x, y), rounds=2),
    ]
    record = run_race(
        "cross_moments",
        "RSA, cosine, Pearson, with gradient of one side, n=5000, d=768",
        contenders,
        GemmLimit(8 * N * D * D),  # the three products of the value; U G_xx and V G_xy' for the gradient
        error=lambda r: float((r.double() - truth).abs().max() / truth.abs().max()),
        tolerance=1e-3,
        peers_tolerance=1e-1,
        rounds=5,
    )
    assert record.rows
