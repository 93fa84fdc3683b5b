"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from bertft.runs.locks import SUFFIX, is_held

UNFINISHED = ".part"  # ends the name of a file or folder that is being written; the name begins with a dot


def write_text_atomically(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` to ``path`` in UTF-8 so that no reader sees half of it.

    The text goes to a temporary file in the same folder, which is then renamed. A write that fails leaves no
    temporary file and does not change ``path``.
    """
    write_bytes_atomically(path, text.encode("utf8"))


def write_bytes_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` to ``path`` as `write_text_atomically` does."""
    with appearing_file(path) as file:
        file.write(data)


@contextlib.contextmanager
def appearing_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield the name of a temporary file to write, and rename it to ``path`` when the block ends.

    If the block raises, the temporary file is removed and ``path`` stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=UNFINISHED)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def appearing_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a temporary file for writing, and rename it to ``path`` when the block ends, as `appearing_path` does."""
    with appearing_path(path) as temporary, temporary.open("wb") as file:
        yield file


@contextlib.contextmanager
def appearing_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield the name of a folder to create, and rename that folder to ``path`` when the block ends.

    Only one process may write ``path`` at a time. Leftovers of an earlier writer that was killed are removed first.
    """
    path = Path(path)
    fresh = path.parent / f".{path.name}{UNFINISHED}"
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        yield fresh
        os.replace(fresh, path)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def sweep_unfinished(folder: str | os.PathLike[str]) -> None:
    """Remove the temporary files that killed writers left anywhere below ``folder``.

    A folder in which another process holds a lock is skipped, whether the lock is one of `bertft.runs.locks.claimed`
    or a file named ``.lock``. The caller is expected to hold ``folder``'s own ``.lock``.
    """
    own = Path(folder) / SUFFIX
    busy = {lock.parent for lock in Path(folder).rglob(f"*{SUFFIX}") if lock != own and is_held(lock)}
    for path in [*Path(folder).rglob(f".*{UNFINISHED}")]:
        if not busy.isdisjoint(path.parents):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
