"""Options and the table of the benchmarks.

``pytest benchmarks [--threads 1,2] [--results DIR]`` runs the races, then writes one table.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.harness import OURS, Record, race
from benchmarks.table import markdown, write

RECORDS: list[Record] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add options for the thread counts and the folder of the table."""
    parser.addoption("--threads", default=None, help="thread counts, comma-separated; default: 1 and all")
    parser.addoption("--results", default="benchmarks/results", help="folder of the table (default: %(default)s)")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every race at every thread count."""
    if "threads" in metafunc.fixturenames:
        given = metafunc.config.getoption("--threads")
        counts = [int(n) for n in given.split(",")] if given else sorted({1, torch.get_num_threads()})
        metafunc.parametrize("threads", counts, scope="session")


@pytest.fixture
def run_race(benchmark, threads):
    """Return `race` with its record kept for the table; pytest-benchmark gets our contender's rounds."""

    def run(op, work, contenders, limit, *, rounds=7, **arguments):
        record = race(op, work, contenders, limit, threads=threads, rounds=rounds, **arguments)
        RECORDS.append(record)
        ours = next(c for c in contenders if c.name == OURS)
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        benchmark.group = op
        benchmark.extra_info.update(record.as_dict())
        benchmark.pedantic(ours.run, rounds=min(rounds, 3), iterations=1)
        torch.set_num_threads(before)
        return record

    return run


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the table."""
    if RECORDS:
        session.config.stash[PATHS] = write(RECORDS, Path(session.config.getoption("--results")))


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    """Print the table and its path."""
    if RECORDS:
        terminalreporter.write_line(markdown(RECORDS))
        for path in config.stash.get(PATHS, []):
            terminalreporter.write_line(f"wrote {path}")


PATHS: pytest.StashKey[list[Path]] = pytest.StashKey()
