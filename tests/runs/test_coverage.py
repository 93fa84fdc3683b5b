"""How often intervals cover the true value: simulations, their table, and the page that has the last one."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import coverage_table
import pytest
from coverage_table import coverages, lines, simulate
from drawn_intervals import OF_SEEDS, SIMULATIONS
from simulated import Drawn, Simulation

PAGE = (Path(__file__).parents[2] / "docs" / "intervals.md").read_text(encoding="utf8")
DRAWS = {"null": 500}
# intervals that the page calls too wide, or at few texts too narrow; the least and the most that cover
FEW = "similarity of few texts"
ELSEWHERE = {
    **{("seeds", f"three seeds, spread {spread}"): (0.95, 1.0) for spread in OF_SEEDS},
    **{(name, estimator): (0.93, 1.0) for name in ("similarity", FEW) for estimator in ("pwcca", "pwcca, difference")},
    ("pairs", "mutual_knn_10, difference"): (0.95, 1.0),
    (FEW, "svcca"): (0.65, 0.97),
    (FEW, "svcca, difference"): (0.85, 0.97),
}


@pytest.mark.simulation
@pytest.mark.parametrize("name", SIMULATIONS)
def test_intervals_cover_in_93_to_97_percent(name, tmp_path):
    """Draws are kept, and resumed, in the folder that BERTFT_DRAWS names."""
    folder = Path(os.environ.get("BERTFT_DRAWS") or tmp_path)
    simulate(name, folder, DRAWS.get(name, 400))
    print(*lines(folder, [name]), sep="\n")
    outside = {}
    for estimator, one in coverages(folder, name).items():
        least, most = ELSEWHERE.get((name, estimator), (0.93, 0.97))
        if not least - 2 * one.error <= one.covered <= most + 2 * one.error:
            outside[estimator] = one.covered
    assert not outside


@pytest.mark.parametrize("name", SIMULATIONS)
def test_the_page_has_every_estimator_of_a_simulation(name):
    drawn = list(SIMULATIONS[name].draw(0))
    assert all(math.isnan(one.low) or one.low <= one.value <= one.high for one in drawn)
    names = {one.name for one in drawn}
    if name == "null":
        found = re.findall(r"^\| (\w+) \| \d+ \| [\d.]+ % \| [\d.]+ % \|$", PAGE, re.MULTILINE)
        assert names == {*found, *(f"{measure}, maximum over layers" for measure in found)}
    else:
        head = re.escape(f"| {name} | {SIMULATIONS[name].texts} | ")
        assert names == set(re.findall(rf"^{head}([^|]+) \| \d+ \|", PAGE, re.MULTILINE))


def toy(seed: int) -> list[Drawn]:
    return [Drawn("a", seed, seed - 1.0, seed + 1.0), Drawn("cca", 0.5 * seed, seed - 9.0, seed + 9.0)]


@pytest.mark.parametrize("cut", [0, 1, 30, 45, 10_000])
def test_a_simulation_that_was_cut_off_resumes_to_the_same_file(cut, tmp_path, monkeypatch):
    monkeypatch.setitem(SIMULATIONS, "toy", Simulation(7, toy, lambda: {"a": 2.5}))
    simulate("toy", tmp_path / "whole", 9)
    simulate("toy", tmp_path / "cut", 5)
    whole, path = (tmp_path / "whole" / "toy.csv").read_bytes(), tmp_path / "cut" / "toy.csv"
    path.write_bytes(path.read_bytes()[:-cut] if cut else path.read_bytes())
    simulate("toy", tmp_path / "cut", 9)
    assert path.read_bytes() == whole and whole.count(b"\n") == 2 + 2 * 9


def test_coverage_is_of_the_limit_or_of_the_expectation_at_this_size(tmp_path, monkeypatch):
    monkeypatch.setitem(SIMULATIONS, "toy", Simulation(7, toy, lambda: {"a": 2.5, "cca": 99.0}))
    simulate("toy", tmp_path, 10)
    found = coverages(tmp_path, "toy")
    assert found["a"] == pytest.approx((10, 0.2, 0.2, 0.6, 2.0, 2.5, 2.5))
    assert found["cca"] == pytest.approx((10, 1.0, 0.0, 0.0, 18.0, 2.25, 99.0))
    assert lines(tmp_path, ["toy"])[2] == "| toy | 7 | a | 10 | 20.0 % | 20.0 % | 60.0 % | 2 | 2.5 | 2.5 |"


def test_a_null_counts_measures_beyond_their_bound(tmp_path, monkeypatch):
    drawn = lambda seed: [Drawn(n, seed, math.nan, 7.5) for n in ("x", "x, maximum over layers")]
    monkeypatch.setitem(SIMULATIONS, "null", Simulation(7, drawn))
    simulate("null", tmp_path, 10)
    assert lines(tmp_path, ["null"])[-1] == "| x | 10 | 20.0 % | 20.0 % |"
    assert coverage_table.coverages(tmp_path, "null")["x"].below == 0.2
