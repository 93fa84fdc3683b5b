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


def disagreement(pyproject: str, citation: str, changelog: str) -> str | None:
    """Return what disagrees about the version, or None. Before the first release the changelog has no version."""
    version = re.search(r'^version = "(.*)"', pyproject, re.MULTILINE)[1]
    cited = yaml.safe_load(citation)
    if cited["version"] != version:
        return f"CITATION.cff: expected {version}, found {cited['version']}"
    first, *released = re.findall(r"^## \[(.*?)\](?: - (\S+))?$", changelog, re.MULTILINE)
    if first != ("Unreleased", ""):
        return f"CHANGELOG.md: expected [Unreleased] first, found {first}"
    if released and released[0][0] != version:
        return f"CHANGELOG.md: expected {version} as the newest release, found {released[0][0]}"
    if any(not re.fullmatch(r"\d{4}-\d\d-\d\d", date) for _, date in released):
        return "CHANGELOG.md: expected a date for every release"
    if released and str(cited.get("date-released", released[0][1])) != released[0][1]:
        return f"CITATION.cff: expected the date {released[0][1]}, found {cited['date-released']}"
    return None


def test_version_changelog_and_citation_agree():
    names = ("pyproject.toml", "CITATION.cff", "CHANGELOG.md")
    assert disagreement(*((ROOT / name).read_text(encoding="utf8") for name in names)) is None


@pytest.mark.parametrize(
    ("citation", "changelog", "sentence"),
    [
        ("version: 0.1.0", "## [Unreleased]", None),
        ("version: 0.1.0", "## [Unreleased]\n## [0.1.0] - 2026-12-01", None),
        ("version: 0.1.0\ndate-released: 2026-12-01", "## [Unreleased]\n## [0.1.0] - 2026-12-01", None),
        ("version: 0.2.0", "## [Unreleased]", "found 0.2.0"),
        ("version: 0.1.0", "## [0.1.0] - 2026-12-01", "[Unreleased] first"),
        ("version: 0.1.0", "## [Unreleased]\n## [0.0.9] - 2026-12-01", "found 0.0.9"),
        ("version: 0.1.0", "## [Unreleased]\n## [0.1.0]", "a date"),
        ("version: 0.1.0\ndate-released: 2026-12-02", "## [Unreleased]\n## [0.1.0] - 2026-12-01", "found 2026-12-02"),
    ],
)
def test_a_release_with_two_versions_or_dates_is_named(citation, changelog, sentence):
    found = disagreement('version = "0.1.0"', citation, changelog)
    assert found is None if sentence is None else sentence in found
