"""Every formula of `bertft.ops` in plain PyTorch: what the kernels are tested against, and what serves without them.

Written to be read. Functions take inputs that their namesakes in `bertft.ops` have checked.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Structural probes (Hewitt and Manning 2019) ---------------------------------------------------------------------


def distance_probe_loss(h: Tensor, weight: Tensor, distances: Tensor, lengths: Tensor) -> Tensor:
    """Mean over sentences of  1 / n^2 * sum_{i, j} | |B'(h_i - h_j)|^2 - distances_ij |.

    Args:
        h: (L, T, D) or (T, D), words of all sentences one after the other.
        weight: (L, D, R), the B of each layer.
        distances: (sum n_s^2,), the (n, n) matrix of each sentence, row by row, one sentence after the other.
        lengths: (S,), words of each sentence; sentences of length 0 do not count.

    Returns:
        (L,) in float64 if any of h, weight is, else float32. The squared distances come from the Gram matrix of a
        sentence: n^2 numbers, never n^2 R. The subgradient at equality is 0.
    """
    dtype = torch.float64 if torch.float64 in (h.dtype, weight.dtype) else torch.float32
    projected = h.to(dtype) @ weight.to(dtype)
    losses, start = [], 0
    sizes = [n for n in lengths.tolist() if n > 0]
    for points, n in zip(projected.split(sizes, dim=1), sizes, strict=True):
        gram = points @ points.transpose(1, 2)
        squares = gram.diagonal(dim1=1, dim2=2)
        predicted = squares.unsqueeze(1) + squares.unsqueeze(2) - 2 * gram
        gold = distances[start : start + n * n].view(n, n).to(dtype)
        losses.append((predicted - gold).abs().sum(dim=(1, 2)) / n**2)
        start += n * n
    return torch.stack(losses).mean(dim=0) if losses else projected.sum(dim=(1, 2))


def depth_probe_loss(h: Tensor, weight: Tensor, depths: Tensor, lengths: Tensor) -> Tensor:
    """Mean over sentences of  1 / n * sum_i | |B'h_i|^2 - depths_i |; arguments as in `distance_probe_loss`.

    Args:
        depths: (T,), depth of each word in its tree; the root has depth 0.

    Returns:
        (L,)
    """
    dtype = torch.float64 if torch.float64 in (h.dtype, weight.dtype) else torch.float32
    projected = h.to(dtype) @ weight.to(dtype)
    error = (projected.square().sum(dim=2) - depths.to(dtype)).abs()
    sizes = [n for n in lengths.tolist() if n > 0]
    losses = [part.sum(dim=1) / n for part, n in zip(error.split(sizes, dim=1), sizes, strict=True)]
    return torch.stack(losses).mean(dim=0) if losses else projected.sum(dim=(1, 2))


def probe_loss(
    h: Tensor, weight_distance: Tensor, weight_depth: Tensor, distances: Tensor, depths: Tensor, lengths: Tensor
) -> Tensor:
    """Both losses: (L, 2), distance and depth."""
    return torch.stack(
        [
            distance_probe_loss(h, weight_distance, distances, lengths),
            depth_probe_loss(h, weight_depth, depths, lengths),
        ],
        dim=1,
    )
