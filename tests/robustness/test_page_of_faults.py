"""docs/faults.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_every_test_that_the_page_of_faults_names_exists():
    page = (TESTS.parent / "docs" / "faults.md").read_text(encoding="utf8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and "::" in line]
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", page)
    assert len(named) == len(rows) >= 35
    for file, name in named:
        assert f"\ndef {name}(" in (TESTS / file).read_text(encoding="utf8"), f"{file}::{name}"
        slow = "@pytest.mark.slow\ndef " + name in (TESTS / file).read_text(encoding="utf8")
        assert slow == any(name in row and "(slow)" in row for row in rows), name


def test_every_test_of_this_folder_is_on_the_page():
    page = (TESTS.parent / "docs" / "faults.md").read_text(encoding="utf8")
    for file in sorted(Path(__file__).parent.glob("test_*.py")):
        names = re.findall(r"^def (test_\w+)\(", file.read_text(encoding="utf8"), re.MULTILINE)
        if file.name != Path(__file__).name:
            assert names and all(name in page for name in names), file.name
