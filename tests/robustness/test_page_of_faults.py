"""Tests and numbers of cases on the page of faults."""

from __future__ import annotations

import math
import re
from pathlib import Path

from documented import marks

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "faults.md").read_text(encoding="utf8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and "::" in line]
NAMED = re.compile(r"`([\w/]+\.py)::(test_\w+)`")


def test_every_row_names_a_test_and_its_cases():
    assert len(ROWS) >= 45
    for row in ROWS:
        cases, named = row.split(" | ")[1].strip(), NAMED.findall(row)
        found = 0
        for file, name in named:
            own = marks(file, name)
            found += math.prod(len(mark.args[1]) for mark in own if mark.name == "parametrize")
            assert any(mark.name == "slow" for mark in own) == ("(slow)" in row), row
        assert named and cases == str(found), f"{cases} cases on the page, {found} in the tests: {row}"


def test_every_test_of_this_folder_is_on_the_page():
    for file in sorted(Path(__file__).parent.glob("test_*.py")):
        names = re.findall(r"^def (test_\w+)\(", file.read_text(encoding="utf8"), re.MULTILINE)
        if file.name != Path(__file__).name:
            assert names and all(f"::{name}`" in PAGE for name in names), file.name
