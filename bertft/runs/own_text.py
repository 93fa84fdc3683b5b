"""Similarity on a task's own text less that on other text: do representations change more where the task was learnt?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping

from bertft.runs.rows import Row

TASK = "own_text"  # of the rows of differences


def own_text_differences(rows: Iterable[Row], own_text: Mapping[str, str]) -> list[Row]:
    """A row for each similarity of ``rows`` (task ``rsa``) on other text than the encoder's own in ``own_text``.

    ``value`` is the similarity on the encoder's own text less that on the other one, of one seed; ``data`` is
    ``<own> - <other>``, ``measure`` that of the rows with ``_difference``. The interval joins those of the two as
    independent, for they are of different sentences. `bertft.runs.pooling.pool_seeds` then joins the differences of several
    seeds: where a seed changes an encoder more than another, on both texts alike, the difference is free of it.
    """
    similar = {row.key: row for row in rows if row.task == "rsa" and row.model in own_text}
    found = []
    for row in similar.values():
        own = similar.get(dataclasses.replace(row, data=own_text[row.model]).key)
        if own is None or own is row:
            continue
        value, low, high = less((own.value, own.low, own.high), (row.value, row.low, row.high))
        counts = [n for n in (own.n, row.n) if n is not None]
        found.append(
            Row(
                row.model, TASK, f"{own.data} - {row.data}", row.layer, f"{row.measure}_difference", value, low, high,
                min(counts, default=None), row.seed,
            )
        )  # fmt: skip
    return found


Estimate = tuple[float, float | None, float | None]  # value, and the ends of its interval


def less(first: Estimate, second: Estimate) -> Estimate:
    """The difference of two independent estimates; with an interval where both have one."""
    (a, low, high), (b, other_low, other_high) = first, second
    if low is None or high is None or other_low is None or other_high is None:
        return a - b, None, None
    return a - b, a - b - math.hypot(a - low, other_high - b), a - b + math.hypot(high - a, b - other_low)
