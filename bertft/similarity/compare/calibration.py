"""Calibration of a similarity by a null that has an error.

The null's mean z is that of a sample. It varies with the sample as the measure itself does: texts that raise the
similarity of unrelated texts raise that of the stimuli in their places. So the value v of all stimuli tells how far z
of the sample lies from z of all texts (a control variate). With v_s and z_s of the sample,

    z = z_s + slope (v - v_s),    slope = cov(dz, dv) / var(dv)

over the texts' influences dv on v_s and dz on z_s. What the slope does not explain, dz - slope dv, is independent of v
and remains as the error of z, beside that of a mean of K trades. The calibrated value (v - z) / (1 - z) then has the
error ((1 - g slope) dv - g rest) / (1 - z) with g = (1 - v) / (1 - z).

Stimuli of one text are alike, and of S texts one pair in S is of one text. So v_s and z_s are first moved to the share
of such pairs that all stimuli have.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from bertft.runs.intervals import clustered_error
from bertft.runs.rows import Row

FEWEST = 30  # texts for a slope
EXACT = 1e-5  # standard error of a value below which rounding decides the slope


class Tie(NamedTuple):
    """How the mean of a null moves with the measure of the same sample.

    Attributes:
        slope: change of the null by change of the measure.
        error: standard error of the null's mean that the slope leaves.
        quantile: of Student's t for a 95 % interval.
        shifts: changes of the measure of the sample and of its null if no pair of stimuli were of one text.
    """

    slope: float
    error: float
    quantile: float
    shifts: tuple[float, float] = (0.0, 0.0)

    def null_beside(self, value: float, own: float, null: float, share: float) -> float:
        """Return the null of all stimuli, whose measure is ``value``, from measure and null of the sample.

        ``share`` is the share of the stimuli in the sample.
        """
        of_value, of_null = ((1 - share) * shift for shift in self.shifts)
        return null + of_null + self.slope * (value - own - of_value)


def tie(of_value: Tensor, of_null: Tensor, groups: Tensor) -> Tie | None:
    """Return the tie of a null to its measure from both influences (R,); None of fewer than `FEWEST` texts.

    ``groups`` (R,) numbers the text of each stimulus from 0.
    """
    texts = int(groups.max()) + 1
    if texts < FEWEST or not (of_value.isfinite().all() and of_null.isfinite().all()):
        return None
    size = {"stimuli": len(groups), "sentences": texts}
    of_value, of_null = of_value.double(), of_null.double()
    slope = 0.0
    if clustered_error(of_value, groups, **size)[0] > EXACT:
        totals = torch.zeros(2, texts, dtype=torch.float64).index_add_(1, groups, torch.stack([of_value, of_null]))
        (variance, covariance), _ = torch.cov(totals).tolist()
        slope = covariance / variance
    return Tie(slope, *clustered_error(of_null - slope * of_value, groups, **size))


def calibrated(row: Row, zero: float, equal: float, found: Tie | None = None) -> Row:
    """Return ``row`` on the scale on which ``zero`` is 0 and ``equal`` is 1.

    With a tie the interval holds the error of ``zero``: each half is that of the value, less what the null shares with
    it, and the rest of the null's error.
    """
    room = equal - zero
    value = (row.value - zero) / room
    if row.low is None or row.high is None:
        return replace(row, value=value)
    if found is None:
        return replace(row, value=value, low=(row.low - zero) / room, high=(row.high - zero) / room)
    share = (equal - row.value) / room  # of an error of the null that the value takes
    kept = 1 - share * found.slope
    halves = row.value - row.low, row.high - row.value
    down, up = halves if kept > 0 else halves[::-1]
    rest = share * found.quantile * found.error
    ends = (step * math.hypot(kept * half, rest) / room for step, half in ((-1, down), (1, up)))
    low, high = (value + end for end in ends)
    return replace(row, value=value, low=low, high=high)
