"""Docstrings as reStructuredText: diagrams and tables drawn with spaces become literal blocks."""

from __future__ import annotations

import re
from typing import Any

COLUMNS = re.compile(r"\S {3,}\S| \+-- |──")  # drawn with spaces or lines
CODE = re.compile(r"(``.+?``|`.+?`)")
LISTED = re.compile(r"\s*(?:[-*] |\d+\. )")


def paragraphs(lines: list[str]) -> list[list[str]]:
    """Return runs of lines without an empty line between them."""
    found: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            found[-1].append(line)
        elif found[-1]:
            found.append([])
    return [part for part in found if part]


def as_rst(lines: list[str]) -> list[str]:
    """Return a docstring whose diagrams are literal blocks; RST tables, sections and code stay."""
    made: list[str] = []
    literal = False  # inside a block that the docstring marks with ``::``
    for part in paragraphs(lines):
        indent = len(part[0]) - len(part[0].lstrip())
        if literal and indent == 0:
            literal = False
        drawn = any(COLUMNS.search(line) for line in part) and not any("===" in line for line in part)
        steps = [len(line) - len(line.lstrip()) for line in part]
        shown = indent > 0 and not LISTED.match(part[0])
        if not literal and (drawn or shown) and "```" not in part[0]:
            made += ["::", "", *(f"    {line}" for line in part), ""]
        else:
            made += [*part, ""]
            literal = literal or (part[-1].rstrip().endswith("::") and min(steps) == 0)
    return made


def fenced(lines: list[str]) -> list[str]:
    """Return lines with blocks between ``` as literal blocks."""
    made: list[str] = []
    inside = False
    for line in lines:
        if line.strip().startswith("```"):
            inside = not inside
            made += ["", "::", ""] if inside else [""]
        else:
            made.append(f"    {line}" if inside else line)
    return made


def escaped(line: str) -> str:
    """Return a line of text in which ``|`` is no markup, as in the norm |x|."""
    if line.startswith("    ") or "===" in line:
        return line
    return "".join(part if i % 2 else part.replace("|", "\\|") for i, part in enumerate(CODE.split(line)))


def convert(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Replace ``lines`` in place, after napoleon."""
    lines[:] = [escaped(line) for line in as_rst(fenced(lines))]


def setup(app: Any) -> dict[str, Any]:
    """Connect the conversion."""
    app.connect("autodoc-process-docstring", convert, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
