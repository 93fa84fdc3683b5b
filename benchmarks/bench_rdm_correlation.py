"""RSA of a pair of spaces and of all layers; neighbours."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
from scipy.stats import spearmanr

from benchmarks.harness import OURS, Contender, GemmLimit
from benchmarks.peers import (
    condensed,
    dense_knn,
    have,
    library_contenders,
    sklearn_knn,
    torch_as_written,
    torch_at_best,
    torch_layers,
    torch_spearman,
)
from benchmarks.stimuli import bert_like, isotropic
from bertft.ops import rdm_correlation
from bertft.similarity.neighbours import mutual_knn

N, D, LAYERS = 5000, 768, 13


@functools.cache  # the same for every number of threads
def exact(stimuli: Callable[[int, int], tuple[torch.Tensor, torch.Tensor]], metric: str) -> float:
    """Return Pearson over all pairs in float64, by plain PyTorch."""
    x, y = (z.double() for z in stimuli(N, D))
    return torch_as_written(x, y, metric).item()


def layers() -> torch.Tensor:
    """Return 13 layers (13, n, d) that share much of their variance."""
    return torch.stack([isotropic(N, D, seed, 0.7)[1] + isotropic(N, D, 99)[0] for seed in range(LAYERS)])


@functools.cache
def exact_layers(metric: str) -> torch.Tensor:
    """Return the correlations (13, 13) in float64, by plain PyTorch."""
    rows = torch.empty(LAYERS, N * (N - 1) // 2, dtype=torch.float64)
    for row, triangle in zip(rows, condensed(layers().double(), N, metric), strict=True):
        row[:] = triangle - triangle.mean()
        row /= row.norm()
    return rows @ rows.T


@pytest.mark.parametrize("metric", ["cosine", "correlation"])
def test_one_pair(run_race, metric):
    x, y = isotropic(N, D)
    truth = exact(isotropic, metric)
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
    truth = exact(bert_like, "cosine")
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
    x, truth = layers(), exact_layers(metric)
    contenders = [
        Contender(OURS, lambda: rdm_correlation(x, metric=metric), rounds=3),
        Contender("PyTorch as written", lambda: torch_layers(x, metric), rounds=2),
    ]
    record = run_race(
        "rdm_correlation",
        f"RSA, {metric}, Pearson, 13 x 13 layers, n=5000, d=768",
        contenders,
        GemmLimit(LAYERS * N * N * D),
        error=lambda r: float((r.double() - truth).abs().max()),
        tolerance=1e-7,
        rounds=3,
    )
    assert record.rows


@functools.cache
def exact_spearman() -> float:
    """Return Spearman from PyTorch's matrices in float64 and SciPy's ranks."""
    triangles = condensed((z.double() for z in bert_like(N, D)), N, "cosine")
    return float(spearmanr(*(triangle.numpy() for triangle in triangles)).statistic)


def test_spearman(run_race):
    x, y = bert_like(N, D)
    truth = exact_spearman()
    contenders = [
        Contender(OURS, lambda: rdm_correlation(x[None], y[None], metric="cosine", compare="spearman"), rounds=5),
        Contender("PyTorch as written", lambda: torch_spearman(x, y, "cosine"), rounds=1),
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


K = 10


@functools.cache
def exact_knn() -> float:
    """Return the mean share of common neighbours from dense matrices in float64."""
    x, y = (z.double() for z in isotropic(N, D))
    return float(dense_knn(x, y, K).mean())


def test_mutual_knn(run_race):
    x, y = isotropic(N, D)
    truth = exact_knn()
    contenders = [
        Contender(OURS, lambda: mutual_knn(x, y, K)),
        Contender("PyTorch as written", lambda: dense_knn(x, y, K), rounds=1),
    ]
    if have("sklearn"):
        contenders.append(Contender("scikit-learn", lambda: sklearn_knn(x.numpy(), y.numpy(), K), rounds=1))
    run_race(
        "nearest",
        "mutual nearest neighbours, cosine, k=10, n=5000, d=768",
        contenders,
        GemmLimit(2 * N * N * D),
        error=lambda r: abs(float(r.mean()) - truth),
        tolerance=10 / (N * K),  # float32 may exchange a few neighbours
        rounds=3,
    )
