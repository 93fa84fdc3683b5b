"""Corpus files: plain or gzip, UTF-8, one newline per line."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from bertft.errors import BertftError

_GZIP_MAGIC = b"\x1f\x8b"
_BYTE_ORDER_MARK = "\ufeff"


def read_lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
    """Yield ``(line number from 1, line)`` of a UTF-8 file. Gzip is detected from the first bytes, not from the name.

    Only a newline ends a line: ``str.splitlines`` would also cut at separators that occur inside text fields. One
    carriage return before the newline and a byte order mark at the start of the file are dropped.

    Raises:
        BertftError: for a file that is missing, a folder, truncated or damaged gzip, or not UTF-8; names the line.
    """
    path = Path(path)
    number = 0
    try:
        with _open(path) as file:
            for number, raw in enumerate(file, start=1):
                yield number, _decode(path, number, raw)
    except EOFError:
        raise BertftError(
            f"{path}: line {number + 1}: the gzip file is truncated, expected more compressed data and found its end"
        ) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise BertftError(f"{path}: line {number + 1}: the gzip file is damaged ({error})") from None
    except FileNotFoundError:
        raise BertftError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise BertftError(f"{path}: expected a file, found a folder") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        raise BertftError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


def parse_json(text: str, path: str | os.PathLike[str], line: int = 1) -> object:
    """Return the value of a JSON ``text`` that starts on ``line`` of ``path``.

    Raises:
        BertftError: for text that is not valid JSON; names the line of the flaw.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        what = f"not valid JSON at column {error.colno} ({error.msg})"
        raise BertftError(f"{path}: line {line + error.lineno - 1}: {what}") from None
    except (RecursionError, ValueError) as error:  # nested too deeply; a number of thousands of digits
        raise BertftError(f"{path}: line {line}: not usable JSON ({error})") from None


def check_text(value: object, name: str, where: str) -> str:
    """Return ``value`` if it is a string that UTF-8 can encode, unlike the lone surrogates of some JSON escapes.

    Raises:
        BertftError: for anything else; ``where`` opens its sentence and ``name`` names the value.
    """
    if not isinstance(value, str):
        found = "nothing" if value is None else type(value).__name__
        raise BertftError(f"{where}: expected a string as {name}, found {found}")
    if not value.isascii():
        try:
            value.encode("utf8")
        except UnicodeEncodeError as error:
            raise BertftError(
                f"{where}: {name} contains half a character ({value[error.start]!a}) at offset {error.start}"
            ) from None
    return value


def shorten(text: object, limit: int = 40) -> str:
    """Return ``text`` quoted for an error message and cut to ``limit`` characters."""
    text = str(text)
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message without its full stop, or its type if there is no message."""
    lines = str(error).strip().splitlines()
    return next(iter(lines), type(error).__name__).rstrip(".")


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        compressed = file.read(2) == _GZIP_MAGIC
    if path.suffix == ".gz" and not compressed:
        if path.stat().st_size == 0:
            raise EOFError
        raise BertftError(f"{path}: expected a gzip file, as its name says, found other data")
    return cast(IO[bytes], gzip.open(path, "rb")) if compressed else path.open("rb")


def _decode(path: Path, number: int, raw: bytes) -> str:
    try:
        line = raw.decode("utf8")
    except UnicodeDecodeError as error:
        raise BertftError(
            f"{path}: line {number}: not UTF-8, found byte 0x{raw[error.start]:02x} at byte {error.start + 1}"
        ) from None
    if number == 1:
        line = line.removeprefix(_BYTE_ORDER_MARK)
    return line.removesuffix("\n").removesuffix("\r")
