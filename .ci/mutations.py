"""One-token changes of a Python file, by mutmut's operators.

mutmut itself changes functions only, and none with a decorator. Half the constants that make the numbers of a run stand
outside functions, so `Finder` walks the whole file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import libcst as cst
import numberless
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation import mutators

OPERATORS = (  # of one token each
    (cst.BaseNumber, mutators.operator_number),
    (cst.SimpleString, mutators.operator_string),
    (cst.Name, mutators.operator_name),
    (cst.AugAssign, mutators.operator_augmented_assignment),
    (cst.UnaryOperation, mutators.operator_remove_unary_ops),
    (cst.Call, mutators.operator_symmetric_string_methods_swap),
    (cst.CSTNode, mutators.operator_keywords),
    (cst.CSTNode, mutators.operator_swap_op),
    (cst.IfExp, mutators.operator_if_exp),
)


@dataclass(frozen=True)
class Mutant:
    """One change: the lines before and after it, and the whole file with it."""

    key: str
    path: str
    line: int
    before: str
    after: str
    code: str


class Finder(cst.CSTVisitor):
    """Collect the changes of a file: (node, changed node, line)."""

    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self, path: str, text: str) -> None:
        self.found: list[tuple[cst.CSTNode, cst.CSTNode, int]] = []
        self.defined: set[str] = set()  # qualified names
        self._scope: list[str] = []
        self._names_in_errors: list[cst.Arg] = []
        self._lines = [line.strip() for line in text.splitlines()]
        self._skipped_lines = numberless.LINES.get(path, {})
        self._skipped = {*numberless.CONSTANTS.get(path, ()), *numberless.FUNCTIONS.get(path, ())}

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.FunctionDef | cst.ClassDef):
            self._scope.append(node.name.value)
            self.defined.add(".".join(self._scope))
            if self.defined_here() in self._skipped or node.name.value in numberless.SHOWN:
                return False
        if is_text(node) or self._names(node) & self._skipped or node in self._names_in_errors:
            return False
        if isinstance(node, cst.Call) and getattr(node.func, "value", "") in numberless.NAMING:
            self._names_in_errors = [arg for arg in node.args if isinstance(arg.value, cst.SimpleString)]
        for kind, operator in OPERATORS:
            if isinstance(node, kind) and not (kind is cst.CSTNode and is_floor(node)):
                changed = list(operator(node))
                line = self.get_metadata(PositionProvider, node).start.line
                if self._lines[line - 1] not in self._skipped_lines:
                    one = kind is cst.SimpleString
                    self.found += [(node, other, line) for other in (changed[:1] if one else changed)]
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if isinstance(original_node, cst.FunctionDef | cst.ClassDef):
            self._scope.pop()

    def defined_here(self) -> str:
        """Return the qualified name of the function or class around this place."""
        return ".".join(self._scope)

    def _names(self, node: cst.CSTNode) -> set[str]:
        """Return the names that a statement of the module assigns."""
        if self._scope or not isinstance(node, cst.Assign | cst.AnnAssign):
            return set()
        targets = [node.target] if isinstance(node, cst.AnnAssign) else [one.target for one in node.targets]
        listed = [e.value for t in targets for e in t.elements] if isinstance(targets[0], cst.Tuple) else targets
        names = {name.value for name in listed if isinstance(name, cst.Name)}
        self.defined |= names
        return names


def is_text(node: cst.CSTNode) -> bool:
    """Return whether ``node`` is of types or messages, or an argument in `numberless`: it changes no number."""
    if isinstance(node, cst.Annotation | cst.Raise | cst.Import | cst.ImportFrom | cst.Assert):
        return True
    if isinstance(node, cst.Arg):
        return node.keyword is not None and node.keyword.value in numberless.KEYWORDS
    if isinstance(node, cst.Param):
        return node.name.value in numberless.KEYWORDS
    if isinstance(node, cst.AnnAssign):
        return getattr(node.target, "value", "") in numberless.KEYWORDS
    if isinstance(node, cst.Assign):
        return getattr(node.targets[0].target, "value", "") == "__all__"
    if isinstance(node, cst.If) and node.orelse is None:
        return getattr(node.test, "value", "") == "TYPE_CHECKING" or all(
            map(is_message, node.body.body)
        )  # whether something is said
    return isinstance(node, cst.Call) and (getattr(node.func, "value", "") == "TypeVar" or is_message(node))


def is_floor(node: cst.CSTNode) -> bool:
    """Return whether ``node`` compares with a floor of rounding, which no measured number hits exactly."""
    if not isinstance(node, cst.ComparisonTarget):
        return False
    ordered = isinstance(node.operator, cst.LessThan | cst.LessThanEqual | cst.GreaterThan | cst.GreaterThanEqual)
    if isinstance(node.comparator, cst.Float):
        return ordered and 0 < node.comparator.evaluated_value <= 1e-6
    return ordered and cst.Module([]).code_for_node(node.comparator) in numberless.FLOORS


def is_message(node: cst.CSTNode) -> bool:
    """Return whether ``node`` is a call that shows progress or a message, or a statement of such a call."""
    if isinstance(node, cst.SimpleStatementLine):
        return all(isinstance(one, cst.Expr) and is_message(one.value) for one in node.body)
    called = node.func if isinstance(node, cst.Call) else None
    if not isinstance(called, cst.Attribute) or not isinstance(called.value, cst.Name):
        return False
    return called.attr.value in numberless.SAYING.get(called.value.value, ())


def mutants_of(root: Path, path: str) -> Iterator[Callable[[], Mutant | None]]:
    """Yield the changes of a file, each to be applied when it is wanted; None for one without effect on the text."""
    text = (root / path).read_text(encoding="utf8")
    wrapper = MetadataWrapper(cst.parse_module(text))
    finder = Finder(path, text)
    wrapper.visit(finder)
    if gone := numberless.unknown(path, text, finder.defined):
        raise SystemExit(f".ci/numberless.py: {path} no longer has {gone[0]}")

    def apply(node: cst.CSTNode, other: cst.CSTNode, line: int) -> Mutant | None:
        code = wrapper.module.deep_replace(node, other).code
        key = hashlib.sha256(f"{path}\n{code}".encode()).hexdigest()[:16]
        return Mutant(key, path, line, *difference(text, code), code) if code != text else None

    for change in finder.found:
        yield lambda change=change: apply(*change)


def difference(text: str, code: str) -> tuple[str, str]:
    """Return the lines in which two texts differ, without their indentation."""
    old, new = text.splitlines(), code.splitlines()
    start = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), 0)
    end = next((i for i, (a, b) in enumerate(zip(old[::-1], new[::-1], strict=False)) if a != b), 0)
    before, after = ("\n".join(line.strip() for line in side[start : len(side) - end]) for side in (old, new))
    return before, after
