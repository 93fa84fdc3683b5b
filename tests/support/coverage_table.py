"""Table of how often intervals cover the true value.

    python tests/support/coverage_table.py FOLDER [DRAWS [SIMULATION ...]]

draws data sets (`drawn_intervals`), keeps the intervals of each in ``FOLDER/<simulation>.csv``, and prints the table.
The same command resumes: a draw depends on nothing but its number. The last draw in a file may be incomplete and is
redone.
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from drawn_intervals import SIMULATIONS
from simulated import OF_A_SIZE, Drawn

COLUMNS = ("draw", *Drawn._fields)
LIMIT = "limit"  # in place of a draw's number: the value of a text without end
NULL = "null"
HEAD = "| simulation | texts | estimator | draws | covered | below | above | width | true | limit |"
HEAD_OF_NULL = "| measure | draws | one layer | maximum over layers |"
MAXIMUM = ", maximum over layers"


class Coverage(NamedTuple):
    """How often intervals cover the ``true`` value: of all draws, and how many lie below and above it.

    Of a null, ``below`` counts the bounds below the measure itself.
    """

    draws: int
    covered: float
    below: float
    above: float
    width: float
    true: float
    limit: float

    @property
    def error(self) -> float:
        """The standard error of ``covered`` if 95 % of all intervals cover."""
        return math.sqrt(0.95 * 0.05 / self.draws)


def simulate(name: str, folder: Path, draws: int) -> None:
    """Add draws to the file of a simulation until it has ``draws``."""
    folder.mkdir(parents=True, exist_ok=True)
    path, simulation = folder / f"{name}.csv", SIMULATIONS[name]
    kept = _whole(path)
    first = int(kept[-1][0]) + 1 if kept and kept[-1][0] != LIMIT else 0
    with path.open("w", encoding="utf8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([COLUMNS, *kept])
        if not kept:
            writer.writerows([LIMIT, name, value, "", ""] for name, value in simulation.limit().items())
        for draw in range(first, draws):
            file.flush()
            writer.writerows([draw, *found] for found in simulation.draw(draw))


def _whole(path: Path) -> list[list[str]]:
    """Return the rows of a file before its last draw."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf8")
    rows = list(csv.reader(text[: text.rfind("\n") + 1].splitlines()))[1:]
    return [row for row in rows if row[0] != rows[-1][0]]


def coverages(folder: Path, name: str) -> dict[str, Coverage]:
    """Return the coverage of each estimator in the file of a simulation."""
    limits: dict[str, float] = {}
    found: dict[str, list[Drawn]] = {}
    with (folder / f"{name}.csv").open(encoding="utf8", newline="") as file:
        for draw, estimator, *numbers in list(csv.reader(file))[1:]:
            if draw == LIMIT:
                limits[estimator] = float(numbers[0])
            else:
                found.setdefault(estimator, []).append(Drawn(estimator, *map(float, numbers)))
    return {
        estimator: _coverage(drawn, limits.get(estimator, math.nan), name == NULL) for estimator, drawn in found.items()
    }


def _coverage(drawn: list[Drawn], limit: float, of_null: bool) -> Coverage:
    n = len(drawn)
    mean = sum(one.value for one in drawn) / n
    true = mean if drawn[0].name.split(",")[0] in OF_A_SIZE else limit
    below = sum(one.high < (one.value if of_null else true) for one in drawn) / n
    above = sum(one.low > true for one in drawn) / n
    return Coverage(n, 1 - below - above, below, above, sum(one.high - one.low for one in drawn) / n, true, limit)


def lines(folder: Path, names: Iterable[str]) -> list[str]:
    """Return the tables of intervals and of nulls in Markdown."""
    rows = [HEAD, "|---|--:|---|--:|--:|--:|--:|--:|--:|--:|"]
    nulls = ["", HEAD_OF_NULL, "|---|--:|--:|--:|"]
    for name in names:
        table = coverages(folder, name)
        for estimator, one in table.items():
            if name != NULL:
                shares = " | ".join(f"{100 * share:.1f} %" for share in (one.covered, one.below, one.above))
                numbers = " | ".join(f"{number:.3g}" for number in (one.width, one.true, one.limit))
                head = f"| {name} | {SIMULATIONS[name].texts} | {estimator} | {one.draws}"
                rows.append(f"{head} | {shares} | {numbers.replace('nan', '')} |")
            elif not estimator.endswith(MAXIMUM):
                most = table[estimator + MAXIMUM]
                nulls.append(f"| {estimator} | {one.draws} | {100 * one.below:.1f} % | {100 * most.below:.1f} % |")
    return rows + (nulls if len(nulls) > 3 else [])


def main(folder: str, draws: str = "400", *names: str) -> None:
    for name in names or SIMULATIONS:
        simulate(name, Path(folder), int(draws))
    made = [name for name in SIMULATIONS if (Path(folder) / f"{name}.csv").exists()]
    print(*lines(Path(folder), made), sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
