"""Verification and timing of contenders.

One call runs every contender in turn, round by round, in one process, and verifies each before timing. Absolute seconds
on a shared machine mean little, so the GEMM rate or the memory bandwidth is measured between the rounds. Reported
ratios are within one run.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

OURS = "bertft"
SHORT = 0.02  # seconds; a round repeats shorter work up to this time, as a training loop does
SLOW = 3.0  # seconds from which the verified run counts as a timed one
LONG = 10.0  # seconds from which the verified run is the only one


@dataclass
class Contender:
    """One implementation. ``run`` returns the result; ``rounds`` limits how often a slow one is timed.

    A contender with ``one_core`` uses one core and is omitted with more threads.
    """

    name: str
    run: Callable[[], object]
    rounds: int = 1000
    verify: bool = True
    one_core: bool = False


@dataclass
class Measurement:
    """Seconds, memory and error of one contender."""

    name: str
    median: float
    low: float
    high: float
    rounds: int
    peak_mb: float | None
    error: float | None


@dataclass
class Record:
    """All contenders of one benchmark at one number of threads."""

    op: str
    work: str
    threads: int
    limit: str
    limit_seconds: float
    limit_rate: float
    rows: list[Measurement] = field(default_factory=list)

    def seconds(self, name: str) -> float:
        """Return the median seconds of a contender."""
        return next(row.median for row in self.rows if row.name == name)

    def as_dict(self) -> dict[str, object]:
        """Return plain data for JSON, with each contender's ratio to ours and ours to the limit."""
        data = asdict(self)
        data["of_limit"] = self.limit_seconds / self.seconds(OURS)
        data["times_faster_than"] = {r.name: r.median / self.seconds(OURS) for r in self.rows if r.name != OURS}
        return data


def gemm_seconds(m: int, n: int, k: int, dtype: torch.dtype = torch.float32) -> float:
    """Return the seconds of one m x k by k x n product."""
    a, b = _operands(m, n, k, dtype)
    start = time.perf_counter()
    torch.mm(a, b)
    return time.perf_counter() - start


_OPERANDS: dict[tuple[object, ...], tuple[torch.Tensor, torch.Tensor]] = {}


def _operands(m: int, n: int, k: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    key = (m, n, k, dtype)
    if key not in _OPERANDS:
        _OPERANDS.clear()
        generator = torch.Generator().manual_seed(0)
        shapes = (m, k), (k, n)
        _OPERANDS[key] = tuple(torch.randn(s, generator=generator, dtype=dtype) for s in shapes)  # type: ignore[assignment]
        torch.mm(*_OPERANDS[key])
    return _OPERANDS[key]


class GemmLimit:
    """Limit by the necessary floating-point operations at the GEMM rate, the median of a 1536-cube over the run."""

    label = "GEMM"

    def __init__(self, flops: float, dtype: torch.dtype = torch.float32) -> None:
        self.flops, self.dtype, self.rates = flops, dtype, []
        self.side = 1536

    def sample(self) -> None:
        """Measure the rate once more, as the best of three products, because disturbances are no limit."""
        seconds = min(gemm_seconds(self.side, self.side, self.side, self.dtype) for _ in range(3))
        self.rates.append(2 * self.side**3 / seconds)

    def result(self) -> tuple[float, float]:
        """Return (seconds, flop/s)."""
        rate = statistics.median(self.rates)
        return self.flops / rate, rate


class BandwidthLimit:
    """Limit by the necessary bytes at the median rate of copying 256 MiB, counted as read and as written."""

    label = "memory"

    def __init__(self, bytes_: float) -> None:
        self.bytes, self.rates = bytes_, []
        self.source = torch.zeros(1 << 26)
        self.target = torch.empty_like(self.source)

    def sample(self) -> None:
        """Measure the rate once more."""
        start = time.perf_counter()
        self.target.copy_(self.source)
        self.rates.append(2 * self.source.nbytes / (time.perf_counter() - start))

    def result(self) -> tuple[float, float]:
        """Return (seconds, byte/s)."""
        rate = statistics.median(self.rates)
        return self.bytes / rate, rate


def watched(run: Callable[[], object]) -> tuple[object, float, float | None]:
    """Return (result, seconds, MiB) of a run.

    The memory is the peak above the resident memory before the run, result included; None without Linux's counters.
    """
    reset, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # else memory freed by the last run would be reused unnoticed
    before = None
    if status.exists():
        with contextlib.suppress(OSError):
            reset.write_text("5")
            before = _status_kb(status, "VmRSS")
    start = time.perf_counter()
    result = run()
    seconds = time.perf_counter() - start
    peak = None if before is None else max(0.0, (_status_kb(status, "VmHWM") - before) / 1024)
    return result, seconds, peak


def _status_kb(status: Path, name: str) -> int:
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(name))


def race(
    op: str,
    work: str,
    contenders: list[Contender],
    limit: GemmLimit | BandwidthLimit,
    *,
    error: Callable[[object], float],
    tolerance: float,
    threads: int,
    rounds: int = 7,
    peers_tolerance: float = 1e-2,
) -> Record:
    """Verify every contender (ours within ``tolerance``, peers within ``peers_tolerance``), then time them in turn.

    Raises AssertionError, before any timing, when a result is wrong.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    contenders = [c for c in contenders if threads == 1 or not c.one_core]
    try:
        errors, peaks, repeats, timed = {}, {}, {}, {}
        times: dict[str, list[float]] = {c.name: [] for c in contenders}
        for contender in contenders:
            if contender.name == OURS:
                contender.run()  # one-time setup does not count as memory of the run
            result, seconds, peaks[contender.name] = watched(contender.run)
            errors[contender.name] = error(result) if contender.verify else None
            del result
            bound = tolerance if contender.name == OURS else peers_tolerance
            found = errors[contender.name]
            assert found is None or found <= bound, f"{work}: {contender.name} errs by {found:.2e}, bound {bound:.0e}"
            if seconds > SLOW:  # warming up is negligible then
                times[contender.name].append(seconds)
            timed[contender.name] = 1 if seconds > LONG else contender.rounds
            repeats[contender.name] = max(1, round(SHORT / seconds))
        gc.collect()
        gc.disable()  # a collection of the test runner's objects would distort a timing
        for number in range(rounds):
            limit.sample()
            # in both orders, since a contender meets the caches that the one before it has left
            for contender in contenders if number % 2 == 0 else reversed(contenders):
                if len(times[contender.name]) < timed[contender.name]:
                    if repeats[contender.name] > 1:
                        contender.run()  # warm up short work after another contender
                    start = time.perf_counter()
                    for _ in range(repeats[contender.name]):
                        contender.run()
                    times[contender.name].append((time.perf_counter() - start) / repeats[contender.name])
            limit.sample()
    finally:
        gc.enable()
        torch.set_num_threads(before)
    seconds, rate = limit.result()
    record = Record(op, work, threads, limit.label, seconds, rate)
    for contender in contenders:
        t = sorted(times[contender.name])
        low, high = t[len(t) // 4], t[(3 * len(t)) // 4]
        record.rows.append(
            Measurement(
                contender.name, statistics.median(t), low, high, len(t), peaks[contender.name], errors[contender.name]
            )
        )
    return record
