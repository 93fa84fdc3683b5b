"""The influence of a text on a null against the null without this text."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from bertft.similarity.compare.null_values import values
from bertft.similarity.compare.plan import Plan
from bertft.similarity.traded_texts import TradedTexts

PLAN = Plan(
    metrics=("cosine", "sqeuclidean", "euclidean"),
    compares=("pearson", "cosine"),
    measures=("rsa", "cka"),
    float64=True,
)


def spaces(texts: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return groups and two spaces (n, 5) of texts of 2 and of 4 stimuli; the texts' last stimuli have much in common.

    How much differs from text to text, and between the lengths.
    """
    g = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([2, 4]).repeat(texts // 2)
    groups = torch.repeat_interleave(torch.arange(texts), lengths)
    draw = lambda *size: torch.randn(*size, generator=g, dtype=torch.float64)
    found, loud = [], draw(texts).exp() * (lengths / 2)
    for _ in range(2):
        space = draw(len(groups), 5) + 0.5 * draw(texts, 5)[groups] + 0.5
        space[lengths.cumsum(0) - 1] += 2 * loud[:, None] * draw(5)
        found.append(space)
    return groups, found[0], found[1] + 0.4 * found[0]


def null_mean(groups: Tensor, x: Tensor, y: Tensor, trades: int = 0) -> dict[str, float]:
    """Return the mean of each measure over ``trades`` derangements."""
    texts = TradedTexts(groups, 0)
    found = dict(values(PLAN, x[texts.kept], y[texts.kept], 0.0))
    drawn = [[value(order) for value in found.values()] for order in texts.derangements(trades)]
    return dict(zip(found, np.mean(drawn, 0), strict=True))
