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


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
KEPT = 1 << 28  # bytes of free memory at the end of the heap that glibc keeps
MAPPED = 1 << 25  # bytes from which a block is mapped alone: the most that glibc itself raises its limit to


def keep_steady() -> None:
    """Limit oneDNN's cache of compiled primitives in this process, and keep the memory of one batch for the next.

    Call it before torch first computes.

    By default the cache keeps a primitive for each of the last 1,024 batch shapes, and a long stream always brings new
    shapes. The cached primitives are small blocks between the activations of a batch. When the activations are freed,
    these blocks remain and fragment the heap, so that larger activations no longer fit into the gaps. One batch needs
    only a few shapes, because every layer uses the same ones.

    By default glibc returns the activations of a layer to the system when they are freed, and the next layer faults
    them in again page by page, a tenth of the time of a small encoder. `give_back` returns them between buffers. The
    user's own settings (``MALLOC_TRIM_THRESHOLD_``, ``MALLOC_MMAP_THRESHOLD_``) are kept.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")
    if not {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"} & os.environ.keys():
        with contextlib.suppress(OSError, AttributeError, TypeError):
            libc = ctypes.CDLL(None)
            libc.mallopt(M_MMAP_THRESHOLD, MAPPED)
            libc.mallopt(M_TRIM_THRESHOLD, KEPT)


def give_back() -> None:
    """Return free memory inside the heap to the system; glibc alone returns only the end of the heap."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
