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

from drawn_intervals import SIMULATIONS, Drawn

COLUMNS = ("draw", *Drawn._fields)
TRUE = "true"  # in place of a draw's number
LOWEST, HIGHEST = 0.93, 0.97  # of the share of intervals that cover
HEAD = "| simulation | estimator | draws | covered | below | above | width | true value | mean |"


class Coverage(NamedTuple):
    """How often intervals cover: of all draws, and those that lie below and above the true value."""

    draws: int
    covered: float
    below: float
    above: float
    width: float
    true: float
    mean: float

    @property
    def error(self) -> float:
        """The standard error of ``covered`` if the true coverage is 95 %."""
        return math.sqrt(0.95 * 0.05 / self.draws)


def simulate(name: str, folder: Path, draws: int) -> None:
    """Add draws to the file of a simulation until it has ``draws``."""
    folder.mkdir(parents=True, exist_ok=True)
    path, simulation = folder / f"{name}.csv", SIMULATIONS[name]
    kept = _whole(path)
    first = int(kept[-1][0]) + 1 if kept and kept[-1][0] != TRUE else 0
    with path.open("w", encoding="utf8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([COLUMNS, *kept])
        if not kept:
            writer.writerows([TRUE, name, value, "", ""] for name, value in simulation.truth().items())
        for draw in range(first, draws):
            file.flush()
            writer.writerows([draw, *found] for found in simulation.draw(draw))


def _whole(path: Path) -> list[list[str]]:
    """Return the rows of a file before its last draw."""
    if not path.exists():
        return []
    rows = [row for row in csv.reader(path.read_text(encoding="utf8").splitlines()) if row][1:]
    return [row for row in rows if row[0] != rows[-1][0]] if rows else []


def read(path: Path) -> tuple[dict[str, float], dict[str, list[Drawn]]]:
    """Return the true values and the draws by estimator of a file."""
    true: dict[str, float] = {}
    found: dict[str, list[Drawn]] = {}
    with path.open(encoding="utf8", newline="") as file:
        for draw, name, *numbers in list(csv.reader(file))[1:]:
            if draw == TRUE:
                true[name] = float(numbers[0])
            else:
                found.setdefault(name, []).append(Drawn(name, *map(float, numbers)))
    return true, found


def coverages(folder: Path, names: Iterable[str]) -> dict[tuple[str, str], Coverage]:
    """Return the coverage of each estimator, by simulation and estimator.

    The true value of a null's bound is the measure itself: it is covered unless the measure is ``above`` the bound.
    """
    table = {}
    for name in names:
        true, found = read(folder / f"{name}.csv")
        for estimator, drawn in found.items():
            mean = sum(one.value for one in drawn) / len(drawn)
            value = true.get(estimator, mean)
            of_null = name == "null"
            below = sum(one.high < (one.value if of_null else value) for one in drawn) / len(drawn)
            above = sum(one.low > value for one in drawn) / len(drawn)
            width = sum(one.high - one.low for one in drawn) / len(drawn)
            table[name, estimator] = Coverage(len(drawn), 1 - below - above, below, above, width, value, mean)
    return table


def lines(table: dict[tuple[str, str], Coverage]) -> list[str]:
    """Return the table in Markdown."""
    rows = [HEAD, "|---|---|--:|--:|--:|--:|--:|--:|--:|"]
    for (name, estimator), one in table.items():
        shares = " | ".join(f"{100 * share:.1f} %" for share in (one.covered, one.below, one.above))
        numbers = " | ".join(f"{number:.4g}" for number in (one.width, one.true, one.mean))
        rows.append(f"| {name} | {estimator} | {one.draws} | {shares} | {numbers} |")
    return rows


def main(folder: str, draws: str = "400", *names: str) -> None:
    for name in names or SIMULATIONS:
        simulate(name, Path(folder), int(draws))
    made = [name for name in SIMULATIONS if (Path(folder) / f"{name}.csv").exists()]
    print(*lines(coverages(Path(folder), made)), sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
