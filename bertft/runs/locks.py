"""Locks that let one process at a time write a folder."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from bertft.errors import BertftError

SUFFIX = ".lock"
MOMENT = 0.01  # seconds, longer than `is_held` holds a lock
ATTEMPTS = 3  # counted, not timed: on a busy machine one attempt may take longer than a moment


@contextlib.contextmanager
def claimed(out: str | os.PathLike[str]) -> Iterator[None]:
    """Hold the lock file ``.NAME.lock`` beside ``out``, a file or folder that this process is about to create.

    The operating system drops the lock when the process ends, even if it is killed. On exit the lock file is removed,
    and so are the folders that were created for it, unless they hold something else by then.

    Raises:
        BertftError: if another process holds the lock.
    """
    path = Path(out).absolute()
    lock = path.parent / f".{path.name}{SUFFIX}"
    made = [folder for folder in lock.parents if not folder.exists()]
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        own = _acquired(lock)
        if own is None:
            raise BertftError(f"{out}: another bertft process is writing it")
        try:
            yield
        finally:
            # Removed before it is released: a process that has the file open notices that it has no name any more.
            lock.unlink(missing_ok=True)
            own.release()
    finally:
        for folder in made:
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()


def is_held(lock: Path) -> bool:
    """Return whether a process holds the lock file ``lock``."""
    if not lock.exists():
        return False
    own = _acquired(lock)
    if own is None:
        return True
    own.release()
    return False


def _acquired(lock: Path) -> FileLock | None:
    """Acquire ``lock``, or return None if another process keeps it longer than `is_held` would."""
    own = FileLock(lock)
    for _ in range(ATTEMPTS):
        try:
            own.acquire(blocking=False)
            return own
        except Timeout:
            time.sleep(MOMENT)
    return None
