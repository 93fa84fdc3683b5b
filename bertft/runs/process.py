"""Memory of the process, the machine and the GPU."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys


def resident() -> int:
    """Return the bytes of memory that this process holds now, or `fullest` if the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return fullest()


def fullest() -> int:
    """Return the peak memory of this process in bytes."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def memory_of_machine() -> int:
    """Return the bytes of main memory, or 0 if the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 0


def memory_of_gpu() -> int:
    """Return the bytes of memory of the first GPU, or 0 if there is none."""
    import torch

    return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 0


def keep_steady() -> None:
    """Limit oneDNN's cache of compiled primitives in this process; call it before torch first computes.

    By default the cache keeps a primitive for each of the last 1,024 batch shapes, and a long stream always brings new
    shapes. The cached primitives are small blocks between the activations of a batch. When the activations are freed,
    these blocks remain and fragment the heap, so that larger activations no longer fit into the gaps. One batch needs
    only a few shapes, because every layer uses the same ones.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")


def give_back() -> None:
    """Return free memory inside the heap to the system; glibc alone returns only the end of the heap."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
