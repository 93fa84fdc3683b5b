"""Ranks by bins, and bounds on correlations of them.

They are in float64 and as csrc/cuda/rdm_ranks.cuh defines them.

A bin of c values gives the rank  before + (c + 1) / 2 + c (f - mean f)  to the value at the fraction f of the bin.
Correlations of ranks (P values, variance P^2 / 12 if few are equal) are compared; a bound on them is a sum over both
sides of |error of the ranks| / |ranks|, both about their mean, by Cauchy and Schwarz.
"""

from __future__ import annotations

import numpy as np


def divisions(bins: int) -> int:
    """Bins between the least and the greatest value, which lie in the middle of the first and of the last bin."""
    return (bins - 1) // 10080 * 10080 if bins > 10080 else min(bins - 1, 2520)


def positions(values: np.ndarray, bins: int) -> np.ndarray:
    """(P,) float64 -> (P,): bin and fraction of the bin in one number."""
    low, high = values.min(), values.max()
    return (values - low) * (divisions(bins) / (high - low)) + 0.5


def binned_ranks(values: np.ndarray, bins: int) -> np.ndarray:
    """(P,) float64 -> (P,)."""
    at = positions(values, bins)
    bin_of = np.minimum(at.astype(np.int64), bins - 1)
    fraction, count = at - bin_of, np.bincount(bin_of, minlength=bins)
    mean = np.bincount(bin_of, fraction, minlength=bins) / np.maximum(count, 1)
    before = np.cumsum(count) - count
    return before[bin_of] + (count[bin_of] + 1) / 2 + count[bin_of] * (fraction - mean[bin_of])


def border_distance(values: np.ndarray, bins: int) -> float:
    """How near, in bins, a value comes to the border of a bin: nearer than its rounding and the kernel may cross it."""
    at = positions(values, bins)
    return float(np.abs(at - np.round(at)).min())


def rounding_bound(values: np.ndarray, bins: int, dtype: type) -> float:
    """|error| / |ranks| of one side when the kernel runs in ``dtype`` (float32, float64) on exactly these values.

    A fraction is off by 2^-20 (it is counted in that unit), by three roundings of a position, and within 5e-7 (double:
    1e-15) a division it is set to the mean; times c, and nothing where all values of a bin are equal. Ranks in units of
    P lie within 1/2 and are rounded twice: 2^-25 in float32.
    """
    unit = np.finfo(dtype).eps / 2
    fraction = 2.0**-20 + divisions(bins) * (3 * unit + (1e-15 if dtype is np.float64 else 5e-7))
    bin_of = positions(values, bins).astype(np.int64)
    count, pairs = np.bincount(bin_of, minlength=bins), len(values)
    distinct = np.bincount(np.unique(np.stack([bin_of, values]), axis=1)[0].astype(np.int64), minlength=bins)
    error = np.where(distinct > 1, count, 0)[bin_of] * fraction + pairs * unit / 2
    ranks = binned_ranks(values, bins)
    return float(np.linalg.norm(error) / np.linalg.norm(ranks - ranks.mean()))


def binning_deviation(values: np.ndarray, bins: int) -> float:
    """Return the standard deviation of what binning of one side adds to a correlation, about 1 / (P sqrt(bins)).

    It is sqrt(sum c (c - 1)) / P^2 where the other side does not depend on the order within a bin of c values.

    Two values of a bin count as 1/2 + f - f' of a rank to one another, not as 0 or 1: off by e of variance 1/12 (f - f'
    is triangular), with opposite signs for the two. So the sum of error times rank s of the other side is one over the
    c (c - 1) / 2 pairs of e (s - s'), with variance P^2 / 6 of s - s'; it is divided by P^3 / 12.
    """
    count = np.bincount(positions(values, bins).astype(np.int64), minlength=bins).astype(np.float64)
    return float(np.sqrt((count * (count - 1)).sum()) / len(values) ** 2)


def product_bound(dtype: type) -> float:
    """Of the products: 16 of them are multiplied and added up in ``dtype`` before they are added in double."""
    return 17 * np.finfo(dtype).eps / 2
