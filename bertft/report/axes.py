"""Limits of value axes, the same on paper and on screen."""

from __future__ import annotations

import math

from bertft.report.figure import Panel

AIR = 0.06  # beyond the values, as a share of their range
NARROWEST = 0.05  # of bounded measures, so that noise does not look like change
FEW = 6  # counts up to which an axis has a tick at every whole number


def limits(panel: Panel) -> tuple[float, float]:
    """Return limits a little beyond all values and intervals, but not beyond possible values.

    An axis goes below 0, or beyond the largest value of its measures, only if the numbers do. That of distances begins
    at 0.
    """
    ends = [v for c in panel.curves for v in (*c.line.values, *c.line.lows, *c.line.highs) if v is not None]
    low, high = min(ends), max(ends)
    if all(curve.line.name.kind == "distance" for curve in panel.curves) and 0 <= low < high:
        return 0.0, high * (1 + AIR)
    narrowest = 1.0 if counted(panel) else NARROWEST
    air = max(AIR * (high - low), (narrowest - (high - low)) / 2)
    floor = 0.0 if low >= 0 else -math.inf
    largest = max(curve.line.name.bounds[1] for curve in panel.curves)
    ceiling = largest if high <= largest else math.inf
    bottom, top = max(low - air, floor), min(high + air, ceiling)
    if top - bottom < narrowest:  # one side was cut
        return (max(top - narrowest, floor), top) if top == ceiling else (bottom, bottom + narrowest)
    return bottom, top


def counted(panel: Panel) -> bool:
    """Return whether the values of a panel are whole numbers."""
    return all(curve.line.name.kind == "count" for curve in panel.curves) and all(
        float(value).is_integer() for curve in panel.curves for value in curve.line.values
    )
