"""Ten million tokens: killed, shared by two processes, and in memory that does not grow."""

from __future__ import annotations

from pathlib import Path

import pytest
from soak import KILLS, LAYERS, Run, furthest, soak

from bertft.runs.rows import read_results

TOKENS = 10_000_000
EVERY = 10.0  # seconds between checkpoints; a run of two minutes has enough of them for three kills
GROWTH = 48 << 20  # bytes by which a process's memory may grow from the first third of the text to the last
# files with times in them
TIMES = ("run.json", ".done.json", "report.html")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Run]:
    found = soak(tmp_path_factory.mktemp("soak"), TOKENS, EVERY)
    for run in found.values():
        print(run.name, f"{run.seconds:.0f} s, {run.cpu:.0f} CPU s", run.kills, run.medians())
    return found


def files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if not path.name.endswith(TIMES)}


@pytest.mark.slow
def test_a_run_killed_three_times_leaves_the_files_of_an_uninterrupted_one(runs):
    assert len(runs["killed"].kills) == KILLS
    whole, killed = (files(runs[name].folder / name) for name in ("whole", "killed"))
    assert {"results.csv", "config.yaml"} < whole.keys()
    assert whole.keys() == killed.keys() and not [name for name in whole if whole[name] != killed[name]]
    sums = [(runs[name].folder / f"{name}.npz").read_bytes() for name in ("whole", "killed")]
    assert sums[0] == sums[1]
    rows = read_results(runs["whole"].folder / "whole" / "results.csv")
    assert {row.n for row in rows if row.task == "rsa"} == {TOKENS}
    assert {row.layer for row in rows if row.task == "rsa"} == set(range(LAYERS + 1))


@pytest.mark.slow
def test_the_sums_of_two_processes_equal_those_of_one(runs):
    folder = runs["two"].folder
    assert furthest(folder) < 1e-12
    one, two = (read_results(folder / name / "results.csv") for name in ("whole", "two"))
    assert [row.key for row in one] == [row.key for row in two]
    assert [row.value for row in two] == pytest.approx([row.value for row in one], rel=1e-12)


@pytest.mark.slow
def test_memory_does_not_grow(runs):
    for run in (runs["whole"], runs["two"]):
        assert len(run.medians()) == run.processes
        for early, late in run.medians():
            assert late - early < GROWTH, (run.name, early, late)
