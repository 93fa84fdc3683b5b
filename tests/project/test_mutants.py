"""Mutation testing: the changes of a file, and the page that explains the survivors."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "mutation.md").read_text(encoding="utf8")


@pytest.fixture
def mutants(monkeypatch):
    pytest.importorskip("mutmut")
    monkeypatch.syspath_prepend(str(ROOT / ".ci"))
    return importlib.import_module("mutants")


def test_numbers_operators_and_constants_are_changed_and_messages_are_not(mutants, tmp_path):
    text = '''"""A file."""
LEVEL: float = 0.5
__all__ = ["half"]
T = TypeVar("T")


@cache
def half(x: Literal["a"] = 1, *, flag=True):
    if x < 0:
        raise ValueError(f"x is {x + 1}")
    return zip(x * 2, x, strict=True) if flag else -x
'''
    (tmp_path / "a.py").write_text(text, encoding="utf8")
    found = [make() for make in mutants.mutants_of(tmp_path, "a.py")]
    lines = {(m.line, m.after) for m in found}
    assert {line for line, _ in lines} == {2, 8, 9, 11}
    assert (2, "LEVEL: float = 1.5") in lines and (9, "if x <= 0:") in lines and (9, "if x < 1:") in lines
    assert {after for line, after in lines if line == 8} == {
        'def half(x: Literal["a"] = 2, *, flag=True):',
        'def half(x: Literal["a"] = 1, *, flag=False):',
    }
    assert (11, "return zip(x / 2, x, strict=True) if flag else -x") in lines
    assert (11, "return zip(x * 2, x, strict=True) if flag else +x") in lines
    assert not [after for _, after in lines if "strict=False" in after]
    for mutant in found:
        compile(mutant.code, "a.py", "exec")
        assert sum(a != b for a, b in zip(text.splitlines(), mutant.code.splitlines(), strict=True)) == 1


def test_the_nearest_tests_are_a_modules_own_then_those_of_modules_that_import_it(mutants):
    assert mutants.nearest_files("bertft/runs/pooling.py")[0] == "tests/runs/test_pooling.py"
    nearest = mutants.nearest_files("bertft/ops/moments/formulas.py")[: mutants.NEAREST]
    assert "tests/similarity/test_influence.py" in nearest


def test_explained_mutants_and_their_lines_exist(mutants):
    known = mutants.explained(ROOT / "docs" / "mutation.md")
    assert known and len(known) == len(re.findall(r"^- `bertft/", PAGE, re.MULTILINE))
    for path, before, after in known:
        lines = [" ".join(line.split()) for line in (ROOT / path).read_text(encoding="utf8").splitlines()]
        assert before in lines and before != after, (path, before)


def test_the_tests_that_the_page_names_exist():
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", PAGE)
    assert len(named) >= 20
    for file, test in named:
        assert f"\ndef {test}(" in (ROOT / "tests" / file).read_text(encoding="utf8"), (file, test)
