"""Verdicts in two columns, as wide as the terminal."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap

_FIRST_COLUMN = re.compile(r"[a-z]* {2,}")
_NARROWEST = 30  # columns for the text, below which the terminal wraps


def fitted(text: str) -> str:
    """Return ``text`` with long lines wrapped within their second column on a terminal; unchanged in a pipe."""
    if not sys.stdout.isatty():
        return text
    width = shutil.get_terminal_size().columns
    return "\n".join(_wrapped(line, width) for line in text.splitlines())


def _wrapped(line: str, width: int) -> str:
    first = _FIRST_COLUMN.match(line)
    if first is None or len(line) <= width or width < first.end() + _NARROWEST:
        return line
    room = width - first.end()
    parts = textwrap.wrap(line[first.end() :], room, break_long_words=False, break_on_hyphens=False)
    return first[0] + f"\n{' ' * first.end()}".join(parts)
