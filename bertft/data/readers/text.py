"""Plain text: one sentence or document a line."""

from __future__ import annotations

import os

from bertft.data.examples import Text
from bertft.data.files import read_lines
from bertft.errors import BertftError


def read_text(path: str | os.PathLike[str]) -> list[Text]:
    """The lines of a UTF-8 text file, plain or ``.gz``, stripped of outer white space; empty lines are skipped.

    A line's id is its number in the file. Raises ``BertftError`` for an unreadable file and one without text.
    """
    texts = [Text(str(number), text) for number, line in read_lines(path) if (text := line.strip())]
    if not texts:
        raise BertftError(f"{path}: expected lines of text, found none")
    return texts
