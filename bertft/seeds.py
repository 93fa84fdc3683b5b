"""Several seeds as one table: means, and intervals over seeds and items together."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

from bertft.results import Row


def pool_seeds(rows: Iterable[Row]) -> list[Row]:
    """One row for the rows that differ in their seed alone, in the order of their first; ``seed`` is then None.

    ``value`` is the mean over S seeds. Its 95 % interval joins two sources of chance as independent. The items: all
    seeds are measured on the same ones, so their error is not averaged away, and the half-widths a row has below and
    above its value enter as their root mean square. The seeds: t * s / sqrt(S), with s the standard deviation over
    seeds and t the 0.975 quantile of Student's t with S - 1 degrees of freedom (4.30 for three seeds). A row of one
    seed keeps its interval; where rows have none, only the seeds count.
    """
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(dataclasses.replace(row, seed=None).key, []).append(row)
    return [_pooled(group) for group in groups.values()]


def _pooled(rows: list[Row]) -> Row:
    first, count = rows[0], len(rows)
    if count == 1:
        return dataclasses.replace(first, seed=None)
    from scipy.stats import t

    mean = sum(row.value for row in rows) / count
    spread = math.sqrt(sum((row.value - mean) ** 2 for row in rows) / (count - 1))
    seeds = float(t.ppf(0.975, count - 1)) * spread / math.sqrt(count)
    below = [row.value - row.low for row in rows if row.low is not None]
    above = [row.high - row.value for row in rows if row.high is not None]
    return dataclasses.replace(
        first,
        value=mean,
        low=mean - math.hypot(seeds, _root_mean_square(below)),
        high=mean + math.hypot(seeds, _root_mean_square(above)),
        seed=None,
    )


def _root_mean_square(values: list[float]) -> float:
    return math.sqrt(sum(value * value for value in values) / len(values)) if values else 0.0
