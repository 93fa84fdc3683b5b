"""Random texts whose null varies with the sample, and the calibrated values that bertft prints for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from simulated import Drawn, drawn
from torch import Tensor

from bertft.runs.rows import Row
from bertft.similarity.compare.comparison import Comparison
from bertft.similarity.compare.plan import Plan

D = 12
SPREAD = torch.linspace(0.4, 1.6, D)  # standard deviations along the axes
END = 12 / D**0.5  # of the last stimulus of some texts along each axis, as full stops have in a decoder
LOUD = 0.6  # the share of these texts
PLAN = Plan(measures=("rsa", "cka"), null=100, sample=700)
PAIRINGS = ("unrelated", "half-related")


def lengths_of(texts: int, g: torch.Generator) -> Tensor:
    return torch.randint(3, 8, (texts,), generator=g)


def read(lengths: Tensor, g: torch.Generator, loud: float = LOUD) -> Tensor:
    """Return the vectors (T, D) of texts of ``lengths`` (S,), of which a share ``loud`` ends in `END`."""
    groups = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    normal = lambda rows: SPREAD * torch.randn(rows, D, generator=g)
    vectors = 0.7 * normal(len(lengths))[groups] + normal(len(groups)) + 0.5
    vectors[lengths.cumsum(0) - 1] += END * (torch.rand(len(lengths), 1, generator=g) < loud)
    return vectors


def pair(pairing: str, lengths: Tensor, g: torch.Generator, loud: float = LOUD) -> tuple[Tensor, Tensor]:
    """Return two spaces (T, D): of texts of their own, or one that changes the vectors of the other."""
    x, other = read(lengths, g, loud), read(lengths, g, loud)
    return (x, other) if pairing == "unrelated" else (x, x + 1.2 * other.flip(1))


def rows_of(x: Tensor, y: Tensor, lengths: Tensor, plan: Plan = PLAN) -> list[Row]:
    comparison = Comparison(plan, {"t": (1, 1)})
    comparison.update(torch.arange(len(lengths)), lengths, [x[None], y[None]])
    comparison.sentences = len(lengths)
    return list(comparison.rows("toy"))


def calibrated(texts: int) -> Callable[[int], list[Drawn]]:
    """Return the draw of the calibrated values of ``texts``, of which some 140 are sampled."""

    def draw(seed: int) -> list[Drawn]:
        g, found = torch.Generator().manual_seed(seed), list[Drawn]()
        for pairing in PAIRINGS:
            lengths = lengths_of(texts, g)
            rows = [row for row in rows_of(*pair(pairing, lengths, g), lengths) if row.measure.endswith("_calibrated")]
            found += drawn(rows, lambda row, pairing=pairing: f"{row.measure}, {pairing}")
        return found

    return draw


def limits() -> dict[str, float]:
    """Return the calibrated values of 100,000 texts, whose null is the value of y of as many other texts."""
    g = torch.Generator().manual_seed(-1)
    lengths = lengths_of(100_000, g)
    (x, y), (_, other) = (pair("half-related", lengths, g) for _ in range(2))
    (value, zero) = (
        {row.measure: row.value for row in rows_of(x, t, lengths, replace(PLAN, null=0, float64=True))}
        for t in (y, other)
    )
    measures = ("rsa_cosine_pearson", "cka_debiased")
    related = {name: (value[name] - zero[name]) / (1 - zero[name]) for name in measures}
    return {
        f"{name}_calibrated, {pairing}": 0.0 if pairing == "unrelated" else related[name]
        for pairing in PAIRINGS
        for name in measures
    }
