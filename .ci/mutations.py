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
CHECKS = ("strict", "frozen", "slots", "stacklevel")  # keywords that change no result


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

    def __init__(self) -> None:
        self.found: list[tuple[cst.CSTNode, cst.CSTNode, int]] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        # types and messages change no number
        if isinstance(node, cst.Annotation | cst.Raise | cst.Import | cst.ImportFrom | cst.Assert):
            return False
        if isinstance(node, cst.Call) and getattr(node.func, "value", "") == "TypeVar":
            return False
        if isinstance(node, cst.Arg) and node.keyword is not None and node.keyword.value in CHECKS:
            return False
        if isinstance(node, cst.Assign) and getattr(node.targets[0].target, "value", "") == "__all__":
            return False
        for kind, operator in OPERATORS:
            if isinstance(node, kind):
                changed = list(operator(node))
                line = self.get_metadata(PositionProvider, node).start.line
                self.found += [(node, other, line) for other in (changed[:1] if kind is cst.SimpleString else changed)]
        return True


def mutants_of(root: Path, path: str) -> Iterator[Callable[[], Mutant | None]]:
    """Yield the changes of a file, each to be applied when it is wanted; None for one without effect on the text."""
    text = (root / path).read_text(encoding="utf8")
    wrapper = MetadataWrapper(cst.parse_module(text))
    finder = Finder()
    wrapper.visit(finder)

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
