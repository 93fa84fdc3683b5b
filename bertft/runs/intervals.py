"""Differences of scores between two encoders, layer by layer: paired by sentence, corrected for many layers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Difference:
    """``value`` tuned minus base with its 95 % interval, ``p`` of no difference, two-sided, corrected or not."""

    value: float
    low: float
    high: float
    p: float


def paired(base: np.ndarray, tuned: np.ndarray) -> list[Difference]:
    """Differences of P scores: ``base`` and ``tuned`` (P, B + 1), the sample itself and then B bootstrap resamples.

    Both must come from the same resamples of the same sentences, so that what makes a sentence hard for both cancels.
    The interval is that of percentiles; p is that of the difference over the bootstrap's standard error, normal, which
    unlike a count of resamples has no lower end and so survives a correction for many layers.
    """
    from scipy.special import ndtr

    found = []
    for drawn in tuned - base:
        value, spread = float(drawn[0]), float(drawn[1:].std())
        low, high = (float(v) for v in np.percentile(drawn[1:], [2.5, 97.5]))
        if spread == 0:
            p = 1.0 if value == 0 else 0.0
        else:
            p = float(2 * ndtr(-abs(value) / spread))
        found.append(Difference(value, min(low, value), max(high, value), p))
    return found


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's (1979) adjusted p-values (m,): the chance of a single false alarm among all m stays below the level."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted
