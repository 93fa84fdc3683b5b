"""Checks of commits, large files, structure and version."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
fault = runpy.run_path(str(ROOT / ".ci" / "commit_message.py"))["fault"]
large = runpy.run_path(str(ROOT / ".ci" / "large_files.py"))["large"]
house = runpy.run_path(str(ROOT / ".ci" / "house.py"))


@pytest.mark.parametrize(
    "subject",
    [
        "report: omit the seed line when rows have no seed",
        "study, cli: gather studies and commands\n\nWhy, in a body of any length." + " x" * 100,
        "runs/vocabulary: feed every name from one catalogue",
        "Merge branch 'sim'",
    ],
)
def test_a_good_subject_passes(subject):
    assert fault(subject) is None


@pytest.mark.parametrize(
    ("subject", "sentence"),
    [
        ("What the killed run did", "such as 'report: omit the seed line'"),
        ("report: " + "x" * 60, "at most 65 characters, found 68"),
        ("report: fixed the seed line", "an imperative such as 'add' or 'fix', found 'fixed'"),
        ("report: omitting the seed line", "found 'omitting'"),
        ("report: omit the seed line.", "no full stop"),
        ("", "found ''"),
    ],
)
def test_a_bad_subject_is_named(subject, sentence):
    assert sentence in fault(subject)


def test_a_large_file_is_named(tmp_path):
    small, big = tmp_path / "small", tmp_path / "big"
    small.write_bytes(b"x")
    big.write_bytes(b"x" * 400_001)
    assert large([str(small), str(big), str(tmp_path / "gone")]) == [
        f"{big}: expected at most 400000 bytes, found 400001"
    ]


def test_the_structure_is_within_its_bounds():
    found = house["measure"]()
    over = {name: found[name] for name, bound in house["BOUNDS"].items() if len(found[name]) > bound}
    assert over == {}


def test_a_circle_of_siblings_is_found_at_any_depth():
    edges = {("bertft.a.x.one", "bertft.a.y"), ("bertft.a.y.two", "bertft.a.x"), ("bertft.b", "bertft.a.x.one")}
    assert house["circles"](edges) == ["bertft.a: x, y"]
    assert house["circles"]({("bertft.a.x", "bertft.a.y"), ("bertft.a.y", "bertft.b")}) == []


def test_version_changelog_and_citation_agree():
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(encoding="utf8"), re.MULTILINE)[1]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf8"))["version"] == version
    headings = re.findall(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf8"), re.MULTILINE)
    assert headings[0] == "Unreleased" and set(headings[1:]) <= {version} | {h for h in headings if h < version}
