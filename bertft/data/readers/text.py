"""Plain text files: one sentence or document per line."""

from __future__ import annotations

import os

from bertft.data.examples import Text
from bertft.data.files import read_lines
from bertft.errors import BertftError


def read_text(path: str | os.PathLike[str]) -> list[Text]:
    """Return the lines of a UTF-8 text file, plain or ``.gz``, without outer white space and empty lines.

    The id of a line is its number in the file.

    Raises:
        BertftError: for a file that cannot be read or has no text.
    """
    texts = [Text(str(number), text) for number, line in read_lines(path) if (text := line.strip())]
    if not texts:
        raise BertftError(f"{path}: expected lines of text, found none")
    return texts
