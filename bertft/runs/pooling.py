"""Rows pooled over seeds or texts: means and differences."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping

from bertft.runs.rows import Row
from bertft.runs.vocabulary import OWN_TEXT, MeasureName, pair

Estimate = tuple[float, float | None, float | None]  # value, and the ends of its interval


def pool_seeds(rows: Iterable[Row]) -> list[Row]:
    """Return one row for all rows that differ only in their seed, in the order of their first; its ``seed`` is None.

    p-values of several seeds are omitted: their mean is not a p-value, and the pooled difference has an interval.

    ``value`` is the mean over S seeds. Its 95 % interval combines two independent sources of error:

    - Items. All seeds are measured on the same items, so averaging does not reduce this error. The half-widths below
      and above the value enter as their root mean square over seeds. Where each seed draws its own items (RSA of a
      text larger than its tokens), the spread over seeds contains this error too, and the interval is conservative.
    - Seeds. The half-width is t * s / sqrt(S), with s the standard deviation over seeds and t the 0.975 quantile of
      Student's t with S - 1 degrees of freedom (4.30 for three seeds).

    The interval is conservative: with three seeds it covers 98 to 99 % in simulations (`docs/intervals.md`), because
    what a seed adds by chance on few items counts in both parts.

    A single row keeps its interval. Rows without intervals get the one over seeds. The interval is cut at the bounds
    of the measure: [0, 1] for accuracies, F1, UUAS, CCA and Procrustes, [0, 100] for scores in percent, [-1, 1] for
    correlations.
    """
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(dataclasses.replace(row, seed=None).key, []).append(row)
    return [
        _pooled(group)
        for group in groups.values()
        if len(group) == 1 or MeasureName.parse(group[0].measure).kind != "p_value"
    ]


def own_text_differences(rows: Iterable[Row], own_text: Mapping[str, str]) -> list[Row]:
    """Return similarity on an encoder's own text minus similarity on each other text.

    ``own_text`` maps each encoder to the text of its task. Each row of the analysis ``rsa`` on another text gives one
    row of the analysis `OWN_TEXT`: ``data`` is ``<own> - <other>``, ``measure`` ends in ``_difference``. The two
    estimates are of different sentences, so their intervals are combined as independent. The difference is taken seed
    by seed: if a seed changes an encoder more on both texts alike, that cancels before `pool_seeds` pools the seeds.
    """
    similar = {row.key: row for row in rows if row.task == "rsa" and row.model in own_text}
    found = []
    for row in similar.values():
        own = similar.get(dataclasses.replace(row, data=own_text[row.model]).key)
        if own is None or own is row:
            continue
        value, low, high = less((own.value, own.low, own.high), (row.value, row.low, row.high))
        counts = [n for n in (own.n, row.n) if n is not None]
        measure = dataclasses.replace(MeasureName.parse(row.measure), derived="difference")
        found.append(
            Row(
                row.model, OWN_TEXT, pair(own.data, row.data), row.layer, str(measure), value, low, high,
                min(counts, default=None), row.seed,
            )
        )  # fmt: skip
    return found


def less(first: Estimate, second: Estimate) -> Estimate:
    """Return the difference of two independent estimates, with an interval if both have one."""
    (a, low, high), (b, other_low, other_high) = first, second
    if low is None or high is None or other_low is None or other_high is None:
        return a - b, None, None
    return a - b, a - b - math.hypot(a - low, other_high - b), a - b + math.hypot(high - a, b - other_low)


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
    least, most = _bounds(first)
    return dataclasses.replace(
        first,
        value=mean,
        low=max(least, mean - math.hypot(seeds, _root_mean_square(below))),
        high=min(most, mean + math.hypot(seeds, _root_mean_square(above))),
        seed=None,
    )


def _bounds(row: Row) -> tuple[float, float]:
    """Return the bounds of a row's value; the rows of these two analyses are differences of a measure."""
    if row.task in ("difference", OWN_TEXT):
        return -math.inf, math.inf
    return MeasureName.parse(row.measure).bounds


def _root_mean_square(values: list[float]) -> float:
    return math.sqrt(sum(value * value for value in values) / len(values)) if values else 0.0
