"""Measures of the package's structure.

``python .ci/house.py [-v]`` prints each with its bound and exits with 1 if one is exceeded. The floors and the rules of
imports are contracts of import-linter (pyproject.toml); these are the other measures.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "bertft"
FLOORS = [
    {"errors"},
    {"runs", "ops"},
    {"data", "report"},
    {"models"},
    {"similarity", "probes"},
    {"study"},
    {"cli"},
    {"__init__", "__main__"},
]
BOUNDS = {
    "entries of the root": 13,
    "circles of imports": 0,
    "upward imports": 0,
    "functions over 70 lines": 0,
    "functions over 50 lines": 8,
    "functions with ten or more parameters": 6,
    "private names imported across modules": 0,
    "imports of bertft inside functions": 39,
}


def name_of(path: Path) -> str:
    """Return the dotted name of a module of the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


class Structure(ast.NodeVisitor):
    """Imports, long functions and private imports of one module."""

    def __init__(self, module: str, modules: set[str]) -> None:
        self.module, self.modules, self.depth, self.typing = module, modules, 0, 0
        self.imports: list[tuple[str, int]] = []
        self.found: dict[str, list[str]] = defaultdict(list)

    def visit_If(self, node: ast.If) -> None:
        only_types = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        self.typing += only_types
        self.generic_visit(node)
        self.typing -= only_types

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        where = f"{self.module}:{node.lineno} {node.name}"
        for bound in (50, 70):
            if length > bound:
                self.found[f"functions over {bound} lines"].append(f"{where} ({length})")
        arguments = node.args
        count = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
        if arguments.args and arguments.args[0].arg in ("self", "cls"):
            count -= 1
        if count >= 10:
            self.found["functions with ten or more parameters"].append(f"{where} ({count})")
        self.depth += 1
        self.generic_visit(node)
        self.depth -= 1

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._imported(alias.name, None, node.lineno)
            self._inside(alias.name, node.lineno)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            self._imported(node.module or "", alias.name, node.lineno)
        self._inside(node.module or "", node.lineno)

    def _inside(self, module: str, line: int) -> None:
        if self.depth and module.split(".")[0] == "bertft" and not self.typing:
            self.found["imports of bertft inside functions"].append(f"{self.module}:{line} {module}")

    def _imported(self, module: str, name: str | None, line: int) -> None:
        if module.split(".")[0] != "bertft" or self.typing:
            return
        target = f"{module}.{name}" if f"{module}.{name}" in self.modules else module
        self.imports.append((target, line))
        if name and name.startswith("_") and not name.startswith("__") and target == module:
            self.found["private names imported across modules"].append(f"{self.module}:{line} {module}.{name}")


def floor_of(module: str) -> int:
    """Return the floor of a module, counted from the ground."""
    part = module.split(".")[1] if "." in module else "__init__"
    return next(floor for floor, parts in enumerate(FLOORS) if part in parts)


def circles(edges: set[tuple[str, str]]) -> list[str]:
    """Return the strongly connected groups among siblings, at every depth of the tree."""
    found = []
    parents = {module.rpartition(".")[0] for edge in edges for module in edge} | {"bertft"}
    for parent in sorted(filter(None, parents)):
        between: dict[str, set[str]] = defaultdict(set)
        start = parent + "."
        for source, target in edges:
            if source.startswith(start) and target.startswith(start):
                pair = [module.removeprefix(start).split(".")[0] for module in (source, target)]
                if pair[0] != pair[1]:
                    between[pair[0]].add(pair[1])
        reach = {node: reachable(node, between) for node in between}
        groups = {frozenset(b for b in reach[a] if a in reach.get(b, ())) for a in reach if a in reach[a]}
        found += [f"{parent}: {', '.join(sorted(group))}" for group in groups]
    return found


def reachable(node: str, edges: dict[str, set[str]]) -> set[str]:
    """Return the nodes at the end of a path of at least one edge."""
    seen: set[str] = set()
    waiting = [*edges.get(node, ())]
    while waiting:
        at = waiting.pop()
        if at not in seen:
            seen.add(at)
            waiting += edges.get(at, ())
    return seen


def measure() -> dict[str, list[str]]:
    """Return the places of each measure."""
    paths = sorted(PACKAGE.rglob("*.py"))
    modules = {name_of(path) for path in paths}
    found: dict[str, list[str]] = {name: [] for name in BOUNDS}
    found["entries of the root"] = sorted(
        p.name for p in PACKAGE.iterdir() if p.name not in ("__pycache__", "py.typed")
    )
    edges = set()
    for path in paths:
        structure = Structure(name_of(path), modules)
        structure.visit(ast.parse(path.read_text(encoding="utf8")))
        for name, places in structure.found.items():
            found[name] += places
        for target, line in structure.imports:
            edges.add((structure.module, target))
            if floor_of(target) > floor_of(structure.module):
                found["upward imports"].append(f"{structure.module}:{line} {target}")
    found["circles of imports"] = circles(edges)
    return found


def main() -> int:
    """Print every measure with its bound; return 1 if one is exceeded."""
    found = measure()
    packages = sum((PACKAGE / entry / "__init__.py").is_file() for entry in found["entries of the root"])
    print(f"{'packages':40} {packages:4}")
    for name, bound in BOUNDS.items():
        print(f"{name:40} {len(found[name]):4}   at most {bound}")
        if "-v" in sys.argv[1:]:
            print("".join(f"    {place}\n" for place in found[name]), end="")
    return any(len(found[name]) > bound for name, bound in BOUNDS.items())


if __name__ == "__main__":
    sys.exit(main())
