"""Vectors and sentence lengths for the benchmarks."""

from __future__ import annotations

import numpy as np
import torch


def isotropic(n: int, d: int, seed: int = 0, share: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two (n, d) spaces of Gaussian vectors that share part of their variance."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator)
    return x, share * x + (1 - share) * torch.randn(n, d, generator=generator)


def bert_like(n: int, d: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return spaces as `isotropic`, with a large common mean and two huge dimensions, as in vectors of BERT."""
    x, y = isotropic(n, d, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    mean = 2.0 * torch.randn(d, generator=generator)
    scale = torch.ones(d)
    scale[3], scale[d // 2] = 30.0, 60.0
    return x * scale + mean * scale, y * scale + mean * scale


def rogue(n: int, d: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return spaces as `isotropic`, with a common mean that is large in two dimensions."""
    x, y = isotropic(n, d, seed)
    mean = torch.randn(d, generator=torch.Generator().manual_seed(seed + 1))
    mean[3], mean[d // 2] = 40.0, -25.0
    return x + mean, y + mean


def sentence_lengths(count: int, seed: int = 0) -> torch.Tensor:
    """Return lengths as in a web treebank: log-normal, median 13, mean near 16, 1 to 100 words."""
    draws = np.random.default_rng(seed).lognormal(2.56, 0.75, count)
    return torch.from_numpy(np.clip(np.rint(draws), 1, 100).astype(np.int64))


def tree_distances(lengths: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Return packed distances (sum of squared lengths,) uint8 in random trees of these sizes."""
    random = np.random.default_rng(seed)
    packed = []
    for n in lengths.tolist():
        d = np.zeros((n, n), np.uint8)
        for i in range(1, n):
            head = int(random.integers(max(0, i - 4), i))
            d[i, :i] = d[head, :i] + 1
            d[:i, i] = d[i, :i]
        packed.append(d.ravel())
    return torch.from_numpy(np.concatenate(packed))
