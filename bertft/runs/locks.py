"""One process at a time: locks of the operating system, which end with the process that holds them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from bertft.errors import BertftError

SUFFIX = ".lock"
MOMENT = 0.01  # seconds, more than `is_held` has a lock for


@contextlib.contextmanager
def claimed(out: str | os.PathLike[str]) -> Iterator[None]:
    """Hold ``.NAME.lock`` beside the file or folder ``out`` that is to be made; ``BertftError`` where another does.

    Afterwards the lock's file is gone, and so are the folders that were made for it and hold nothing.
    """
    path = Path(out).absolute()
    lock = path.parent / f".{path.name}{SUFFIX}"
    made = [folder for folder in lock.parents if not folder.exists()]
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        file = _taken(lock)
        if file is None:
            raise BertftError(f"{out}: another bertft process is at work on it")
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)  # still held: whoever has it open sees that it is no longer the path's
            os.close(file)
    finally:
        for folder in made:
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()


def _taken(lock: Path) -> int | None:
    """A descriptor that holds the lock, or None. The file may have been removed between its opening and its locking."""
    import fcntl  # here, so that systems without it can import the package

    again = True  # once: the lock may have been with an `is_held`
    while True:
        file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            if not again:
                return None
            again = False
            time.sleep(MOMENT)
            continue
        except BaseException:
            os.close(file)
            raise
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), os.stat(lock)):
                return file
        os.close(file)


def is_held(lock: Path) -> bool:
    """Whether a process holds the lock file ``lock``."""
    import fcntl

    try:
        file = os.open(lock, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two that ask do not take each other for a holder
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False
