"""``bertft report`` of several run folders."""

from __future__ import annotations

import json

import pytest

from bertft.cli.main import run
from bertft.runs.rows import Row, write_results


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Return the working folder, with two runs that differ at layer 1."""
    monkeypatch.chdir(tmp_path)
    for name, value in (("a", 0.5), ("b", 0.7)):
        rows = [Row("dep", "rsa", "plain", k, "rsa_cosine_pearson", 1 - k * value, None, None, 9) for k in range(2)]
        (tmp_path / name).mkdir()
        write_results(tmp_path / name / "results.csv", rows)
    return tmp_path


def test_several_runs_share_a_page_in_out(here, capsys):
    assert run(["report", "a", "b", "--out", "both", "-q"]) == 0
    assert capsys.readouterr().out == f"The page is at {here / 'both' / 'report.html'}\n"
    text = (here / "both" / "report.html").read_text(encoding="utf8")
    assert "its similarity to the base encoder is 0.500 in a and 0.300 in b." in text
    assert not (here / "a" / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "b"], "report: 2 runs need --out, a folder for the page that compares them"),
        (["a", "--out", "x"], "report: --out is for several runs; the page of one is written into its own folder"),
        (["a", "none", "--out", "x"], "none: no such run folder"),
        (["a", "b", "--out", "a"], "--out a: expected a new folder for the page, found one that holds results.csv"),
    ],
)
def test_wrong_arguments_are_refused_in_one_sentence(here, capsys, arguments, message):
    before = sorted(here.rglob("*"))
    assert run(["report", *arguments, "-q"]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert sorted(here.rglob("*")) == before


def test_json_of_several_runs_has_the_rows_of_each_folder(here, capsys):
    assert run(["report", "a", "b", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {name: [row["value"] for row in rows] for name, rows in found.items()} == {
        "a": [1.0, 0.5],
        "b": [1.0, pytest.approx(0.3)],
    }
