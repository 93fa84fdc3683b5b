"""Memory that does not grow with the length of a stream."""

from __future__ import annotations

import contextlib
import ctypes
import os


def keep_steady() -> None:
    """Let torch's oneDNN forget shapes, for this process; to be called before it runs.

    It keeps what it compiled for each of the last 1,024 shapes of a batch, and a stream has ever new ones. These are
    small blocks laid down among a batch's activations: they stay, the activations go, and larger ones do not fit into
    the holes. A batch needs few shapes, each in every layer.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")


def give_back() -> None:
    """Hand memory that is free inside the heap to the system, which glibc by itself does at the heap's end alone."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
