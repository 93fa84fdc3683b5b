"""A stage's cost, and the straight lines that carry the time of a little work to that of much."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

LOOKS, ENOUGH = 3, 1.5  # a piece of work is timed so often, or until so many seconds are spent; the least counts


@dataclass(frozen=True)
class StageCost:
    """What a stage would take.

    ``work`` says in words what it does, ``seconds`` how long on this machine if nothing else runs on it (`at_most`
    where training may stop early); ``kept``, ``scratch``, ``memory`` and ``gpu`` are bytes: on disk in the end, on disk
    beside that while it runs, of the whole process at its fullest, and of that on the GPU where there is one. A stage
    that is ``done`` has its recorded seconds.
    """

    stage: str
    work: str
    seconds: float
    kept: int = 0
    scratch: int = 0
    memory: int = 0
    gpu: int = 0
    at_most: bool = False
    done: bool = False


@dataclass(frozen=True)
class Line:
    """``fixed + per * amount``."""

    fixed: float
    per: float

    def at(self, amount: float) -> float:
        return self.fixed + self.per * amount


def line(small: float, cost_small: float, large: float, cost_large: float) -> Line:
    """Through two points with ``small`` below ``large``; neither part is below 0."""
    if large <= small:
        return Line(0.0, cost_large / large)
    per = max((cost_large - cost_small) / (large - small), 0.0)
    fixed = cost_large - per * large
    return Line(fixed, per) if fixed >= 0 else Line(0.0, cost_large / large)


def seconds_of(work: Callable[[], object]) -> float:
    """How long ``work`` would take if nothing else ran: seconds on the clock, kernels on a GPU included; without a GPU
    no more than the processor time, for a busy machine's clock counts what others did meanwhile."""
    gpu = torch.cuda.is_available()
    found: list[float] = []
    while not found or (len(found) < LOOKS and sum(found) < ENOUGH):
        start, used = time.perf_counter(), time.process_time()
        work()
        if gpu:
            torch.cuda.synchronize()
        clock, processor = time.perf_counter() - start, time.process_time() - used
        found.append(clock if gpu else min(clock, processor))
    return max(min(found), 1e-9)


def resident() -> int:
    """Bytes of memory that this process holds now; where the system does not say, the most it ever held."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return fullest()


def fullest() -> int:
    """The most bytes of memory that this process ever held."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def memory_of_machine() -> int:
    """Bytes of memory in all, or 0 where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 0


def memory_of_gpu() -> int:
    """Bytes of the GPU that work runs on, or 0 where there is none."""
    return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 0


def placed(held: int, moved: int) -> tuple[int, int]:
    """``memory`` and ``gpu`` of a stage that holds ``held`` bytes in the process and ``moved`` bytes of models and what
    they compute, which lie on the GPU where there is one."""
    return (held, moved) if torch.cuda.is_available() else (held + moved, 0)


def weights_of(model: torch.nn.Module) -> int:
    """Bytes of a model's weights."""
    return sum(p.numel() * p.element_size() for p in model.parameters())
