"""Rates of the card, and of the products of split rows."""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from benchmarks.gpu.run import Item, Result

TYPES = {
    "float32": torch.float32, "tf32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}  # fmt: skip


@dataclass
class Limits:
    """Measured rates: flop/s of cuBLAS by type, byte/s of a copy; infinite until they are measured."""

    gemm: dict[str, float] = field(default_factory=dict)
    copy: float = float("inf")

    def rate(self, name: str) -> float:
        """Return the flop/s of a type."""
        return self.gemm.get(name, float("inf"))


class Stopwatch:
    """Times of work on a device; on a GPU between two events, after overwriting the L2 cache."""

    def __init__(self, device: str) -> None:
        self.device = device
        if device == "cuda":
            properties = torch.cuda.get_device_properties(0)
            size = 4 * max(getattr(properties, "L2_cache_size", 0), 64 << 20)
            self.flush = torch.empty(size // 4, dtype=torch.int32, device="cuda")

    def milliseconds(self, run: Callable[[], object], rounds: int) -> list[float]:
        """Return sorted times of at most ``rounds`` runs after a warm-up; none starts 10 s after the first."""
        run()
        times, began = [], time.perf_counter()
        for _ in range(rounds if self.device == "cuda" else 1):
            times.append(self._once(run))
            if time.perf_counter() - began > 10:
                break
        return sorted(times)

    def _once(self, run: Callable[[], object]) -> float:
        if self.device != "cuda":
            began = time.perf_counter()
            run()
            return 1e3 * (time.perf_counter() - began)
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.flush.zero_()
        start.record()
        run()
        stop.record()
        stop.synchronize()
        return start.elapsed_time(stop)


@contextmanager
def tf32(allowed: bool = True) -> Iterator[None]:
    """Allow or forbid tf32 in float32 products inside the block."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def card_items(watch: Stopwatch, limits: Limits, tiny: bool) -> Iterator[Item]:
    """Yield the rate of each type and of copies, and put them into ``limits``."""
    for name in TYPES:
        side = 64 if tiny else 4096 if name == "float64" else 8192
        yield Item(f"{name} GEMM, {side}", 3, lambda name=name, side=side: _gemm(watch, limits, name, side))
    yield Item("copy", 2, lambda: _copy(watch, limits, 1 << (10 if tiny else 28)))


def _gemm(watch: Stopwatch, limits: Limits, name: str, side: int) -> Result:
    a, b = (torch.randn(side, side, device=watch.device).to(TYPES[name]) for _ in range(2))
    with tf32(name == "tf32"):
        times = watch.milliseconds(lambda: a @ b, 8)
    limits.gemm[name] = 2e3 * side**3 / statistics.median(times)
    return {"tflops": round(limits.gemm[name] / 1e12, 2)}


def _copy(watch: Stopwatch, limits: Limits, numbers: int) -> Result:
    source = torch.empty(numbers, device=watch.device)
    target = torch.empty_like(source)
    limits.copy = 2e3 * source.nbytes / statistics.median(watch.milliseconds(lambda: target.copy_(source), 10))
    return {"terabytes per second": round(limits.copy / 1e12, 3)}


@contextmanager
def core(choice: str) -> Iterator[None]:
    """Set ``BERTFT_CORE`` inside the block."""
    with environment("BERTFT_CORE", choice):
        yield


@contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    """Set a variable of the environment inside the block."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def core_items(watch: Stopwatch, limits: Limits, tiny: bool) -> Iterator[Item]:
    """Yield products of split rows, splitting included, of two parts (three products) and of one, by size and tile."""
    for n in (16,) if tiny else (2048, 4096, 8192, 20_000):
        for fast, tile in itertools.product((False, True), ("narrow", "wide")):
            name = f"products of {n} x 768 rows, {'one part' if fast else 'two parts'}, {tile} tiles"
            yield Item(name, 3, lambda n=n, fast=fast, tile=tile: _products(watch, limits, n, fast, tile))


def _products(watch: Stopwatch, limits: Limits, n: int, fast: bool, tile: str) -> Result:
    with environment("BERTFT_TILE", tile):
        return _timed_products(watch, limits, n, fast)


def _timed_products(watch: Stopwatch, limits: Limits, n: int, fast: bool) -> Result:
    a = torch.randn(1, n, 768, device=watch.device)

    def run() -> Tensor:
        if watch.device == "cuda":
            return torch.ops.bertft.split_product(a, a, fast)
        return a @ a.mT

    exact = a[:, :16].double() @ a[:, :256].double().mT
    error = float((run()[:, :16, :256] - exact).abs().max() / exact.abs().max())
    median = statistics.median(watch.milliseconds(run, 8))
    flops = (1 if fast else 3) * 2e3 * n * n * 768 / median
    return {"ms": round(median, 4), "tflops of float16": round(flops / 1e12, 1),
            "share of cuBLAS float16": round(flops / limits.rate("float16"), 3), "error": f"{error:.0e}"}  # fmt: skip
