"""One-token changes of a Python file, by mutmut's operators.

mutmut itself changes functions only, and none with a decorator. Half the constants that make the numbers of a run stand
outside functions, so `Finder` walks the whole file.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import libcst as cst
from libcst.metadata import MetadataWrapper, ParentNodeProvider, PositionProvider
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
CHECKS = ("strict", "frozen", "slots", "stacklevel")  # keywords that change no result


@dataclass(frozen=True)
class Mutant:
    """One change: the file with it, and the lines of the statement, or None for all that runs on import."""

    key: str
    path: str
    line: int
    before: str
    after: str
    lines: tuple[int, int] | None
    code: str


class Finder(cst.CSTVisitor):
    """Collect the changes of a file: (node, changed node, line, lines of its statement)."""

    METADATA_DEPENDENCIES = (PositionProvider, ParentNodeProvider)

    def __init__(self) -> None:
        self.found: list[tuple[cst.CSTNode, cst.CSTNode, int, tuple[int, int] | None]] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        # types and messages change no number
        if isinstance(node, cst.Annotation | cst.Raise | cst.Import | cst.ImportFrom | cst.Assert):
            return False
        if isinstance(node, cst.Arg) and node.keyword is not None and node.keyword.value in CHECKS:
            return False
        if isinstance(node, cst.Assign) and getattr(node.targets[0].target, "value", "") == "__all__":
            return False
        for kind, operator in OPERATORS:
            if isinstance(node, kind):
                changed = list(operator(node))
                for other in changed[:1] if kind is cst.SimpleString else changed:
                    self.found.append(
                        (node, other, self.get_metadata(PositionProvider, node).start.line, self._span(node))
                    )
        return True

    def _span(self, node: cst.CSTNode) -> tuple[int, int] | None:
        end = self.get_metadata(PositionProvider, node).end.line
        start, inside = None, False
        while (parent := self.get_metadata(ParentNodeProvider, node, None)) is not None:
            if isinstance(parent, cst.Param | cst.Decorator):
                return None
            if start is None and isinstance(parent, cst.SimpleStatementLine | cst.BaseCompoundStatement):
                start = self.get_metadata(PositionProvider, parent).start.line
            inside = inside or isinstance(parent, cst.FunctionDef)
            node = parent
        return (start, end) if inside and start else None


def mutants_of(root: Path, path: str) -> Iterator[Callable[[], Mutant | None]]:
    """Yield the changes of a file, each to be applied when it is wanted; None for one without effect on the text."""
    text = (root / path).read_text(encoding="utf8")
    wrapper = MetadataWrapper(cst.parse_module(text))
    finder = Finder()
    wrapper.visit(finder)

    def apply(node: cst.CSTNode, other: cst.CSTNode, line: int, span: tuple[int, int] | None) -> Mutant | None:
        code = wrapper.module.deep_replace(node, other).code
        sides = [d for d in difflib.ndiff(text.splitlines(), code.splitlines()) if d[0] in "+-"]
        before, after = ("\n".join(d[2:].strip() for d in sides if d[0] == sign) for sign in "-+")
        key = hashlib.sha256(f"{path}\n{code}".encode()).hexdigest()[:16]
        return Mutant(key, path, line, before, after, span, code) if code != text else None

    for change in finder.found:
        yield lambda change=change: apply(*change)
