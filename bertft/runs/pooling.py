"""Several seeds as one table: means, and intervals over seeds and items together."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable

from bertft.report.lines import PERCENT
from bertft.runs.own_text import TASK as OWN_TEXT
from bertft.runs.rows import Row

_SUFFIX = r"(_rank\d+|_orthogonal|_rbf)?$"  # of probes of several kinds
_P_VALUE = re.compile(r"_p" + _SUFFIX)
_SHARE = re.compile(r"(^|_)(accuracy|uuas|f1(\[.*\])?)" + _SUFFIX + r"|^(procrustes|cca|svcca|pwcca|mutual_knn_\d+)$")
_CORRELATION = re.compile(r"^(rsa|cka|local_rsa)_|(^|_)(dspr|nspr)" + _SUFFIX)


def pool_seeds(rows: Iterable[Row]) -> list[Row]:
    """One row for the rows that differ in their seed alone, in the order of their first; ``seed`` is then None.

    p-values (``..._p``) of several seeds are left out: their mean is the p-value of nothing, and the pooled difference
    has an interval of its own.

    ``value`` is the mean over S seeds. Its 95 % interval joins two sources of chance as independent. The items: all
    seeds are measured on the same ones, so their error is not averaged away, and the half-widths a row has below and
    above its value enter as their root mean square. Where seeds draw their own items (RSA of more text than its tokens)
    the items' error is in the spread of the seeds too, and the interval is wider than it need be. The seeds:
    t * s / sqrt(S), with s the standard deviation over seeds and t the 0.975 quantile of Student's t with S - 1 degrees
    of freedom (4.30 for three seeds). A row of one seed keeps its interval; where rows have none, only the seeds count.
    No end lies beyond what the measure can be:
    [0, 1] for accuracies, F1, UUAS, CCA and Procrustes, [0, 100] for those in percent, [-1, 1] for correlations.
    """
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(dataclasses.replace(row, seed=None).key, []).append(row)
    return [_pooled(group) for group in groups.values() if len(group) == 1 or not _P_VALUE.search(group[0].measure)]


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
    """The least and the largest value a measure can have; differences of two have none that is worth a rule."""
    if row.task in ("difference", OWN_TEXT):
        return -math.inf, math.inf
    if row.measure in PERCENT:
        return 0.0, 100.0
    if _SHARE.search(row.measure):
        return 0.0, 1.0
    return (-1.0, 1.0) if _CORRELATION.search(row.measure) else (-math.inf, math.inf)


def _root_mean_square(values: list[float]) -> float:
    return math.sqrt(sum(value * value for value in values) / len(values)) if values else 0.0
