"""What a simulation of intervals draws and returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bertft.runs.rows import Row
from bertft.similarity.compare.plan import SCATTER


class Drawn(NamedTuple):
    """An estimate and the ends of its interval. Of a null: the value, and the one-sided bound as ``high``."""

    name: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Simulation:
    """Data sets of one kind: ``draw`` of number s, and the values that a text without end would have, by name."""

    texts: int
    draw: Callable[[int], Iterable[Drawn]]
    limit: Callable[[], dict[str, float]] = dict


# Measures whose expectation depends on the number of stimuli. Their intervals are held against this expectation.
OF_A_SIZE = {
    *SCATTER, "effective_dimension", "mutual_knn_10", "cka_rbf", "direction_rank", "mean_shift_share",
}  # fmt: skip


def drawn(rows: Iterable[Row], name: Callable[[Row], str] = lambda row: row.measure) -> list[Drawn]:
    """Return the rows that have an interval, each by its ``name``."""
    return [Drawn(name(r), r.value, r.low, r.high) for r in rows if r.low is not None and r.high is not None]


def logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))
