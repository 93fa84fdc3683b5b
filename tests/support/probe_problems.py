"""Words, weights and golds of probe losses, and the losses by brute force."""

from __future__ import annotations

import torch

# Lengths that straddle vectors and register blocks, with single words and empty sentences.
BATCHES = {
    "mixed": [5, 0, 1, 17, 33, 8, 60, 2, 3],
    "single words": [1, 1, 1],
    "vector edges": [4, 6, 7, 8, 9, 12, 15, 16, 17, 18, 24, 25],
    "long": [513, 3],
}


def problem(lengths, L=2, D=19, R=13, R2=6, dtype=torch.float64, seed=0):
    """Return random vectors and weights with integer golds, scaled to similar sizes."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor(lengths, dtype=torch.int64)
    T = int(lengths.sum())
    h = torch.randn(L, T, D, generator=generator, dtype=torch.float64)
    weights = [torch.randn(L, D, r, generator=generator, dtype=torch.float64) / (0.5 * D * r) ** 0.5 for r in (R, R2)]
    distances = []
    for n in lengths.tolist():
        upper = torch.randint(1, 9, (n, n), generator=generator).triu(1)
        distances.append((upper + upper.T).flatten())
    distances = torch.cat([*distances, torch.zeros(0, dtype=torch.int64)])
    depths = torch.randint(0, 6, (T,), generator=generator)
    return h.to(dtype), *(w.to(dtype) for w in weights), distances, depths, lengths


def brute_force(h, weight_distance, weight_depth, distances, depths, lengths):
    """Return the losses by definition, pair by pair on differences of vectors, without a Gram matrix."""
    out, sentences = torch.zeros(h.shape[0], 2, dtype=torch.float64), int((lengths > 0).sum())
    for layer in range(h.shape[0]):
        word = gold = 0
        for n in lengths.tolist():
            points = h[layer, word : word + n].double()
            apart = ((points[:, None] - points[None]) @ weight_distance[layer].double()).square().sum(-1)
            deep = (points @ weight_depth[layer].double()).square().sum(-1)
            if n:
                out[layer, 0] += (apart.flatten() - distances[gold : gold + n * n]).abs().sum() / n**2 / sentences
                out[layer, 1] += (deep - depths[word : word + n]).abs().sum() / n / sentences
            word, gold = word + n, gold + n * n
    return out


def leaves(h, *weights):
    return [t.detach().clone().requires_grad_() for t in (h, *weights)]
