"""Representational similarity: one pair of spaces, all layers against all, Spearman."""

from __future__ import annotations

import pytest
import torch

from benchmarks.harness import OURS, Contender, GemmLimit
from benchmarks.peers import full_matrix, library_contenders, torch_as_written, torch_at_best, torch_layers
from benchmarks.stimuli import bert_like, isotropic
from bertft.ops import rdm_correlation

N, D, LAYERS = 5000, 768, 13


def exact(x: torch.Tensor, y: torch.Tensor, metric: str) -> float:
    """Pearson over all pairs in float64, by plain PyTorch."""
    return torch_as_written(x.double(), y.double(), metric).item()


@pytest.mark.parametrize("metric", ["cosine", "correlation"])
def test_one_pair(run_race, metric):
    x, y = isotropic(N, D)
    truth = exact(x, y, metric)
    contenders = [
        Contender(OURS, lambda: rdm_correlation(x[None], y[None], metric=metric)),
        Contender("PyTorch as written", lambda: torch_as_written(x, y, metric), rounds=3),
        Contender("PyTorch at best", lambda: torch_at_best(x, y, metric), rounds=3),
        *library_contenders(x, y, metric),
    ]
    record = run_race(
        "rdm_correlation",
        f"RSA, {metric}, Pearson, n=5000, d=768",
        contenders,
        GemmLimit(4 * N * D * D),
        error=lambda r: abs(float(r) - truth),
        tolerance=1e-8,
    )
    assert record.rows


def test_one_pair_rogue_dimensions(run_race):
    x, y = bert_like(N, D)
    truth = exact(x, y, "cosine")
    contenders = [
        Contender(OURS, lambda: rdm_correlation(x[None], y[None], metric="cosine")),
        Contender("PyTorch as written", lambda: torch_as_written(x, y, "cosine"), rounds=3),
    ]
    record = run_race(
        "rdm_correlation",
        "RSA, cosine, Pearson, rogue dimensions, n=5000, d=768",
        contenders,
        GemmLimit(4 * N * D * D),
        error=lambda r: abs(float(r) - truth),
        tolerance=1e-6,
    )
    assert record.rows


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_all_layers(run_race, metric):
    x = torch.stack([isotropic(N, D, seed, 0.7)[1] + isotropic(N, D, 99)[0] for seed in range(LAYERS)])
    i, j = torch.triu_indices(N, N, 1)
    truth = torch.corrcoef(torch.stack([full_matrix(layer.double(), metric)[i, j] for layer in x[:3]]))
    contenders = [
        Contender(OURS, lambda: rdm_correlation(x, metric=metric), rounds=3),
        Contender("PyTorch as written", lambda: torch_layers(x, metric), rounds=2),
    ]
    record = run_race(
        "rdm_correlation",
        f"RSA, {metric}, Pearson, 13 x 13 layers, n=5000, d=768",
        contenders,
        GemmLimit(LAYERS * N * N * D),
        error=lambda r: float((r[:3, :3].double() - truth).abs().max()),
        tolerance=1e-7,
        rounds=3,
    )
    assert record.rows


def test_spearman(run_race):
    x, y = bert_like(N, D)
    from scipy.stats import spearmanr

    i, j = torch.triu_indices(N, N, 1)
    truth = spearmanr(*[full_matrix(z.double(), "cosine")[i, j].numpy() for z in (x, y)]).statistic
    contenders = [
        Contender(OURS, lambda: rdm_correlation(x[None], y[None], metric="cosine", compare="spearman"), rounds=5),
        *library_contenders(x, y, "cosine", "spearman"),
    ]
    record = run_race(
        "rdm_correlation",
        "RSA, cosine, Spearman, n=5000, d=768",
        contenders,
        GemmLimit(2 * N * N * D),
        error=lambda r: abs(float(r) - truth),
        tolerance=1e-6,
        rounds=5,
    )
    assert record.rows
