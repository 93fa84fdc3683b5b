"""Tests that execute a line of the core.

`measured` runs a file of tests once under coverage and keeps, as JSON, its tests, their seconds and the lines of each.
"""

from __future__ import annotations

import ast
import functools
import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path


class Contexts:
    """A plugin of pytest that tells coverage which test runs; what fixtures execute counts for their whole file."""

    def __init__(self, switch: Callable[[str], None]) -> None:
        self.switch = switch
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def pytest_runtest_setup(self, item: object) -> None:
        self.switch(item.nodeid.split("::")[0])

    def pytest_runtest_call(self, item: object) -> None:
        self.switch(item.nodeid)

    pytest_runtest_teardown = pytest_runtest_setup

    def pytest_runtest_logreport(self, report: object) -> None:
        self.seconds[report.nodeid] += report.duration


class Chosen:
    """A plugin of pytest that leaves out all but some tests."""

    def __init__(self, tests: Iterable[str]) -> None:
        self.tests = set(tests)

    def pytest_collection_modifyitems(self, items: list) -> None:
        items[:] = [item for item in items if item.nodeid in self.tests]


def measured(test: str, tree: Path, options: Iterable[str], out: Path) -> int:
    """Run a file of tests in ``tree`` and write what it executes to ``out``; return pytest's status."""
    import coverage
    import pytest

    watch = coverage.Coverage(data_file=None, include=[f"{tree}/bertft/*"], config_file=False)
    watch.start()
    contexts = Contexts(watch.switch_context)
    status = pytest.main([*options, test], plugins=[contexts])
    watch.stop()
    data = watch.get_data()
    lines = {str(Path(file).relative_to(tree)): data.contexts_by_lineno(file) for file in data.measured_files()}
    found = {"seconds": contexts.seconds, "lines": {path: own for path, own in lines.items() if any(own.values())}}
    out.with_suffix(".part").write_text(json.dumps(found), encoding="utf8")
    out.with_suffix(".part").replace(out)
    return int(status)


class Lines:
    """The tests of each line, from the files that `measured` wrote."""

    def __init__(self, folder: Path) -> None:
        self.seconds: dict[str, float] = {}
        self.tests: defaultdict[tuple[str, int], set[str]] = defaultdict(set)
        for file in sorted(folder.glob("*.json")):
            found = json.loads(file.read_text(encoding="utf8"))
            self.seconds |= found["seconds"]
            for path, lines in found["lines"].items():
                for line, contexts in lines.items():
                    self.tests[path, int(line)].update(filter(None, contexts))

    def of(self, root: Path, path: str, line: int) -> set[str]:
        """Return the tests that execute the statement on this line; none if it runs on import."""
        names = set().union(*(self.tests.get((path, at), ()) for at in statement(root / path, line)))
        files = {name for name in names if "::" not in name}  # of fixtures
        return {test for test in self.seconds if test in names or test.split("::")[0] in files}


def statement(file: Path, line: int) -> range:
    """Return the lines of the innermost statement on a line, without the blocks of a compound one.

    They are none if the statement is not in a function: it runs when the module is imported.
    """
    inner, lowest, in_function = range(0), 0, False
    for first, last, whole, is_function in _statements(file):
        if first <= line <= last:
            inner, lowest = range(first, last + 1), in_function
        in_function = (is_function and last < line <= whole) or in_function
    return inner if lowest else range(0)


@functools.cache
def _statements(file: Path) -> list[tuple[int, int, int, bool]]:
    """Return for every statement the lines before its blocks and its last line, outer statements first."""
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf8"))):
        if isinstance(node, ast.stmt):
            blocks = [block[0].lineno - 1 for name in ("body", "orelse") if (block := getattr(node, name, None))]
            first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))])
            whole = node.end_lineno or node.lineno
            is_function = isinstance(node, ast.FunctionDef)
            found.append((first, max(node.lineno, min([whole, *blocks])), whole, is_function))
    return found
