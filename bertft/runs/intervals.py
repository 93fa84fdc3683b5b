"""Intervals, paired differences and corrected p-values.

Every interval is one of 95 %. Three schemes serve different kinds of numbers:

- percentiles of a bootstrap over items (`bootstrap_weights`): scores that are recomputed from weighted items;
- Student's t of clustered influences (`clustered_interval`): smooth functions of averages over many items;
- Student's t of a mean with items in clusters (`clustered_mean`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bertft.errors import BertftError

ENDS = (2.5, 97.5)  # percentiles
CHUNK = 2_000_000  # weights of items in memory at once


class Interval(NamedTuple):
    """An estimate with its standard error and 95 % interval."""

    value: float
    low: float
    high: float
    standard_error: float


@dataclass(frozen=True)
class Score:
    """A score of ``n`` items with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Difference:
    """The score of a tuned encoder minus the base's, with its 95 % interval and two-sided p-value."""

    value: float
    low: float
    high: float
    p: float


# Bootstrap ---------------------------------------------------------------------------------------------------------


def bootstrap_weights(items: int, resamples: int, generator: np.random.Generator) -> np.ndarray:
    """Return how often each item is drawn in each resample, (B, N) int64; each row sums to N."""
    return generator.multinomial(items, np.full(items, 1 / items), size=resamples)


def resamples_of(items: int, resamples: int, seed: int) -> np.ndarray:
    """Return weights (B + 1, N): a row of ones for the sample itself, then `bootstrap_weights`."""
    draws = bootstrap_weights(items, resamples, np.random.default_rng(seed))
    return np.concatenate([np.ones((1, items)), draws])


def percentile_score(values: np.ndarray, n: int) -> Score:
    """Return the first of ``values`` (B + 1,) with the 2.5 and 97.5 percentiles of the finite others.

    The interval is widened to hold the value itself.
    """
    drawn = values[1:][np.isfinite(values[1:])]
    low, high = np.percentile(drawn, ENDS) if len(drawn) else (values[0], values[0])
    return Score(float(values[0]), float(min(low, values[0])), float(max(high, values[0])), n)


def centred_resamples(value: np.ndarray, drawn: np.ndarray, lowest: float) -> np.ndarray:
    """Return (L, B + 1): ``value`` (L, 1), then ``drawn`` (L, B) with its mean moved onto the value.

    The mean of the resamples of a ratio is not quite its value; the shift removes this bias. The results are clipped to
    ``lowest``..1, the range of the score.
    """
    shift = drawn.mean(1, keepdims=True) - value
    return np.concatenate([value, np.clip(drawn - shift, lowest, 1.0)], axis=1)


def ratio_interval(
    numerators: np.ndarray, denominators: np.ndarray, seed: int, *, resamples: int = 1000, level: float = 0.95
) -> tuple[float, float]:
    """Return the ends of the percentile bootstrap interval of ``sum(numerators) / sum(denominators)``.

    The items are drawn with replacement. Resamples whose denominator is zero are skipped.
    """
    n = len(numerators)
    generator = np.random.default_rng(seed)
    size = max(1, CHUNK // n)
    values = []
    for start in range(0, resamples, size):
        weights = bootstrap_weights(n, min(size, resamples - start), generator).astype(np.float64)
        below = weights @ denominators
        values.append((weights @ numerators)[below > 0] / below[below > 0])
    low, high = np.quantile(np.concatenate(values), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def correlation_interval(x: Tensor, y: Tensor, groups: Tensor, resamples: int, seed: int) -> tuple[float, float, float]:
    """Return the Pearson correlation of x (R,) and y (R,) and the ends of its bootstrap interval over groups.

    ``groups`` (R,) numbers each item's group from 0. A resample draws as many groups as there are, each with all of
    its items; its correlation follows from sums over each group.
    """
    x, y = x - x.mean(), y - y.mean()
    columns = torch.stack([torch.ones_like(x), x, y, x * x, y * y, x * y], dim=1)
    count = int(groups.max()) + 1
    totals = torch.zeros(count, 6, dtype=columns.dtype).index_add_(0, groups, columns)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(count, (resamples, count), generator=generator)
    weights = torch.zeros(resamples + 1, count, dtype=columns.dtype)
    weights[0] = 1
    weights[1:].scatter_add_(1, drawn, torch.ones_like(drawn, dtype=columns.dtype))
    n, sx, sy, sxx, syy, sxy = (weights @ totals).unbind(1)
    values = (n * sxy - sx * sy) / ((n * sxx - sx * sx) * (n * syy - sy * sy)).sqrt()
    low, high = torch.quantile(values[1:], torch.tensor([0.025, 0.975], dtype=values.dtype)).tolist()
    return float(values[0]), low, high


# Clusters ----------------------------------------------------------------------------------------------------------


def clustered_mean(values: Tensor, groups: Tensor) -> tuple[float, float | None, float | None]:
    """Return the mean of values (R,) and the ends of its interval, with the items in ``groups`` (R,) of any numbers.

    The standard error is that of a ratio of sums over groups, the interval Student's t; None from a single group.
    """
    names, which = torch.unique(groups, return_inverse=True)
    s, mean = len(names), float(values.mean())
    if s < 2:
        return mean, None, None
    totals = torch.zeros(s, dtype=torch.float64).index_add_(0, which, values - mean)
    half = _student(s - 1) * math.sqrt(s / (s - 1) * float(totals.square().sum())) / len(values)
    return mean, mean - half, mean + half


def clustered_error(influence: Tensor, groups: Tensor, stimuli: int, sentences: int) -> tuple[float, float]:
    """Return the standard error of a measure and the quantile of Student's t for its interval.

    Args:
        influence: (R,) the influence of each stimulus of a random sample of whole sentences.
        groups: (R,) the sentence of each, numbered from 0.
        stimuli: number of all stimuli, n.
        sentences: number of all sentences, S. With T_s the total of sentence s, var = S var(T_s) / n^2.

    Raises:
        BertftError: if the stimuli come from fewer than 2 sentences.
    """
    kept = int(groups.max()) + 1 if len(groups) else 0
    if kept < 2:
        raise BertftError(f"intervals: need stimuli of at least 2 sentences, found {kept}")
    totals = torch.zeros(kept, dtype=torch.float64).index_add_(0, groups, influence)
    return math.sqrt(sentences * float(totals.var())) / stimuli, _student(kept - 1)


def clustered_interval(value: float, influence: Tensor, groups: Tensor, *, stimuli: int, sentences: int) -> Interval:
    """Return the interval of a ``value`` in (-1, 1), symmetric in Fisher's z = atanh(value).

    The other arguments and the error are those of `clustered_error`.
    """
    error, t = clustered_error(influence, groups, stimuli, sentences)
    if not math.isfinite(value):
        return Interval(value, math.nan, math.nan, math.nan)
    room = 1 - value * value
    if room < 1e-12 or error < 1e-12:
        return Interval(value, value, value, error)
    z, half = math.atanh(value), t * error / room
    return Interval(value, math.tanh(z - half), math.tanh(z + half), error)


def positive_interval(value: float, influence: Tensor, groups: Tensor, *, stimuli: int, sentences: int) -> Interval:
    """Return the interval of a ``value`` above 0 without an upper bound, symmetric in the logarithm.

    The other arguments and the error are those of `clustered_error`.
    """
    error, t = clustered_error(influence, groups, stimuli, sentences)
    factor = math.exp(t * error / value)
    return Interval(value, value / factor, value * factor, error)


def share_interval(value: float, influence: Tensor, groups: Tensor, *, stimuli: int, sentences: int) -> Interval:
    """Return the interval of a share, a ``value`` in 0..1, symmetric in the log odds.

    The other arguments and the error are those of `clustered_error`. A share of 0 or 1 has no width.
    """
    error, t = clustered_error(influence, groups, stimuli, sentences)
    room = value * (1 - value)
    if room < 1e-12 or error < 1e-12:
        return Interval(value, value, value, error)
    odds, half = math.log(value / (1 - value)), t * error / room
    low, high = (0.5 + 0.5 * math.tanh((odds + step) / 2) for step in (-half, half))
    return Interval(value, low, high, error)


def clustered_difference(
    first: float, second: float, influences: tuple[Tensor, Tensor], groups: Tensor, *, stimuli: int, sentences: int
) -> Interval:
    """Return ``first - second``, one measure of two encoders on the same stimuli, with its interval.

    The influences are subtracted stimulus by stimulus, so what both encoders share cancels. The other arguments and the
    error are those of `clustered_error`.
    """
    error, t = clustered_error(influences[0] - influences[1], groups, stimuli, sentences)
    value = first - second
    return Interval(value, value - t * error, value + t * error, error)


def _student(freedom: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))


# Significance ------------------------------------------------------------------------------------------------------


def paired(base: np.ndarray, tuned: np.ndarray) -> list[Difference]:
    """Return the difference of each of P scores, ``tuned`` minus ``base``.

    Both are (P, B + 1): the score of the sample, then those of B bootstrap resamples. Both must come from the same
    resamples of the same sentences, so that what makes a sentence hard for both cancels. The interval is that of
    percentiles. The p-value is that of a normal distribution with the bootstrap's standard error; a count of resamples
    could not fall below 1 / B, and so would not survive a correction for many layers.
    """
    from scipy.special import ndtr

    found = []
    for drawn in tuned - base:
        value, spread = float(drawn[0]), float(drawn[1:].std())
        low, high = (float(v) for v in np.percentile(drawn[1:], ENDS))
        if spread == 0:
            p = 1.0 if value == 0 else 0.0
        else:
            p = float(2 * ndtr(-abs(value) / spread))
        found.append(Difference(value, min(low, value), max(high, value), p))
    return found


def holm(p: np.ndarray) -> np.ndarray:
    """Return the p-values (m,) adjusted by Holm (1979).

    Rejecting those below a level keeps the chance of any false rejection among all m below that level.
    """
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted
