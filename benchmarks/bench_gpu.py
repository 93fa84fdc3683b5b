"""Checks and timings of every CUDA kernel.

``python -m benchmarks.bench_gpu`` runs them. Each kernel is checked against float64, then timed with CUDA events, with
the L2 cache flushed before every run. The table compares it with plain PyTorch (cuBLAS for products) and with the
card's measured GEMM rates and memory bandwidth. Without a GPU the program exits with code 1 and a message.
``--dry-run`` needs no GPU: it runs every op at a tiny size on the CPU, checks its result, and prints no times. One H200
took 22 s, and 14 s more to compile the kernels.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from benchmarks.stimuli import bert_like, sentence_lengths, tree_distances
from bertft import ops
from bertft.ops import reference
from bertft.ops.native import cuda

Run = Callable[[], object]


@dataclass
class Limits:
    """Measured rates of this card: flop/s of cuBLAS by type, byte/s of a copy."""

    gemm: dict[str, float]
    copy: float


@dataclass
class Work:
    """One kernel at one size; ``limit`` returns its seconds at the measured rates of the card."""

    name: str
    size: str
    ours: Run
    peers: dict[str, Run]
    error: Callable[[], float]
    tolerance: float
    limit: Callable[[Limits], tuple[float, str]]
    rounds: int = 20


class WrongResult(Exception):
    """Error of a kernel's result beyond its tolerance."""


@dataclass
class Row:
    """A row of the table, in seconds."""

    name: str
    size: str
    ours: float
    spread: float
    peers: dict[str, float] = field(default_factory=dict)
    limit: float = 0.0
    by: str = ""
    error: float = 0.0


# Works -----------------------------------------------------------------------------------------------------------


def worst(result: Tensor, exact: Tensor) -> float:
    """Return the largest error as a share of the largest exact value."""
    return float((result.double() - exact).abs().max() / exact.abs().max())


def pairwise_works(device: str, tiny: bool) -> Iterator[Work]:
    L, N, D = (2, 40, 16) if tiny else (4, 4096, 768)
    x = torch.stack([bert_like(N, D, seed)[0] for seed in range(L)]).to(device)
    few = x[:1, : min(N, 1024)]
    for metric in ("cosine", "sqeuclidean", "euclidean", "manhattan"):
        p = 1.0 if metric == "manhattan" else 2.0

        def peer(x: Tensor, metric: str = metric, p: float = p) -> Tensor:
            if metric == "cosine":
                z = torch.nn.functional.normalize(x, dim=-1)
                return 1 - z @ z.mT
            d = torch.cdist(x, x, p=p)
            return d * d if metric == "sqeuclidean" else d

        def own(x: Tensor, metric: str = metric) -> Tensor:
            return ops.pairwise_distance(x, metric=metric)

        def error(own=own, metric: str = metric) -> float:
            return worst(own(few), reference.pairwise_distance(few.double(), metric=metric))

        def backward(call: Callable[[Tensor], Tensor]) -> Run:
            leaf = x.clone().requires_grad_()
            out = call(leaf)
            gradient = torch.ones_like(out)
            return lambda: torch.autograd.grad(out, leaf, gradient, retain_graph=True)

        def slope_error(own=own, metric: str = metric) -> float:
            slopes = []
            for call, rows in ((own, few), (lambda t: reference.pairwise_distance(t, metric=metric), few.double())):
                leaf = rows.clone().requires_grad_()
                out = call(leaf)
                weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype, device=out.device).view(out.shape)
                slopes.append(torch.autograd.grad(out, leaf, weight)[0])
            return worst(slopes[0], slopes[1])

        products = L * N * N * D  # one multiply-add for each of half the pairs: two flops
        yield Work(
            f"pairwise_distance {metric}", f"{L} x {N} x {D}", lambda own=own: own(x),
            {"torch": lambda peer=peer: peer(x)}, error, 1e-5, lambda m, f=products: (f / m.gemm["float32"], "GEMM"),
        )  # fmt: skip
        if metric in ("cosine", "manhattan"):
            yield Work(
                f"  its gradient, {metric}", f"{L} x {N} x {D}", backward(own), {"torch": backward(peer)}, slope_error,
                1e-4, lambda m, f=2 * products: (f / m.gemm["float32"], "GEMM"), 8,
            )  # fmt: skip


def rdm_works(device: str, tiny: bool) -> Iterator[Work]:
    L, N, D = (2, 40, 16) if tiny else (13, 5000, 768)
    spaces = [bert_like(N, D, seed) for seed in range(L)]
    x, y = (torch.stack([space[k] for space in spaces]).to(device) for k in (0, 1))
    truth = reference.rdm_correlation(x[:1].double(), y[:1].double())

    def full() -> Tensor:
        """Return the correlations from whole matrices, made layer by layer and multiplied once."""
        i, j = torch.triu_indices(N, N, 1, device=device)
        flat = []
        for layer in (*x, *y):
            z = torch.nn.functional.normalize(layer, dim=-1)
            values = (z @ z.mT)[i, j].double()
            flat.append((values - values.mean()) / (values - values.mean()).norm())
        stack = torch.stack(flat)
        return stack[:L] @ stack[L:].mT

    flops = 2 * L * N * N * D
    if device == "cuda":
        paths = {"FFMA": (0, "float32", 1, 1e-6), "split rows": (1, "bfloat16", 3, 1e-6)}
        for name, (path, kind, terms, tolerance) in paths.items():
            call = lambda a, b, path=path: torch.ops.bertft.rdm_tiles(a, b, 1, 1, 0, path, False)
            yield Work(
                f"rdm_correlation tiles, {name}", f"2 x {L} x {N} x {D}", lambda call=call: call(x, y),
                {"torch": full}, lambda call=call: float((call(x[:1], y[:1]) - truth).abs().max()), tolerance,
                lambda m, kind=kind, terms=terms: (terms * flops / m.gemm[kind], f"{kind} GEMM"), 5,
            )  # fmt: skip
    for compare, tolerance in (("pearson", 1e-6), ("spearman", 1e-5)):  # close float32 values swap ranks
        exact = reference.rdm_correlation(x[:1].double(), y[:1].double(), compare=compare)

        def own(a: Tensor, b: Tensor, compare: str = compare) -> Tensor:
            return ops.rdm_correlation(a, b, compare=compare)

        def error(own=own, exact: Tensor = exact) -> float:
            return float((own(x[:1], y[:1]) - exact).abs().max())

        yield Work(
            f"rdm_correlation {compare}", f"2 x {L} x {N} x {D}", lambda own=own: own(x, y),
            {"torch": full} if compare == "pearson" else {}, error, tolerance,
            lambda m: (flops / m.gemm["float32"], "float32 GEMM"), 5,
        )  # fmt: skip


def moments_works(device: str, tiny: bool) -> Iterator[Work]:
    N, D = (50, 16) if tiny else (65536, 768)
    x, y = (space.to(device) for space in bert_like(N, D))
    means = {f"mean_{name}": ops.provisional_mean(space) for name, space in (("x", x), ("y", y))}
    few = slice(0, min(N, 4096))

    def error() -> float:
        result = ops.cross_moments(x[few], y[few], **means).cross
        exact = reference.cross_moments(x[few].double(), y[few].double(), *means.values(), "cosine", "cosine")[2]
        return worst(result, exact)

    yield Work(
        "cross_moments", f"{N} x {D}", lambda: ops.cross_moments(x, y, **means),
        {"its 3 products by cuBLAS": lambda: (x.mT @ x, x.mT @ y, y.mT @ y)}, error, 1e-5,
        lambda m: (6 * N * D * D / m.gemm["float32"] + 4 * x.nbytes / m.copy, "GEMM and memory"),
    )  # fmt: skip


def probe_works(device: str, tiny: bool) -> Iterator[Work]:
    L, D, R, S = (2, 16, 4, 5) if tiny else (13, 768, 128, 2048)
    lengths = sentence_lengths(S)
    T = int(lengths.sum())
    random = torch.Generator().manual_seed(0)
    h = torch.randn(L, T, D, generator=random).to(device)
    weight = ((torch.rand(L, D, R, generator=random) - 0.5) / 10).to(device).requires_grad_()
    distances = tree_distances(lengths).to(device)

    def step(loss: Callable[..., Tensor], size: int = S) -> tuple[Tensor, Tensor]:
        words, pairs = int(lengths[:size].sum()), int((lengths[:size] ** 2).sum())
        value = loss(h[:, :words], weight, distances[:pairs], lengths[:size])
        return value.detach(), torch.autograd.grad(value.sum(), weight)[0]

    def error() -> float:
        few = min(S, 40)
        words, pairs = int(lengths[:few].sum()), int((lengths[:few] ** 2).sum())
        wide = weight.detach().double().requires_grad_()
        value = reference.distance_probe_loss(h[:, :words].double(), wide, distances[:pairs], lengths[:few])
        exact = torch.autograd.grad(value.sum(), wide)[0]
        ours = step(ops.distance_probe_loss, few)
        return max(worst(ours[0], value.detach()), worst(ours[1], exact))

    yield Work(
        "distance_probe_loss and gradient", f"{L} x {T} x {D}, R {R}", lambda: step(ops.distance_probe_loss),
        {"torch, sentence by sentence": lambda: step(reference.distance_probe_loss)}, error, 1e-4,
        lambda m: (4 * L * T * D * R / m.gemm["float32"], "GEMM"), 5,
    )  # fmt: skip


def works(device: str, tiny: bool) -> Iterator[Work]:
    """Yield every work; each is made when it is needed."""
    for make in (pairwise_works, rdm_works, moments_works, probe_works):
        yield from make(device, tiny)


# Measuring -------------------------------------------------------------------------------------------------------


class Stopwatch:
    """Times of GPU work between two events, after overwriting the L2 cache."""

    def __init__(self) -> None:
        properties = torch.cuda.get_device_properties(0)
        size = 4 * max(getattr(properties, "L2_cache_size", 0), 64 << 20)
        self.flush = torch.empty(size // 4, dtype=torch.int32, device="cuda")

    def seconds(self, run: Run, rounds: int) -> list[float]:
        """Return sorted seconds of at most ``rounds`` runs after two warm-ups; none starts 20 s after the first."""
        for _ in range(2):
            run()
        times, began = [], time.perf_counter()
        for _ in range(rounds):
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            self.flush.zero_()
            start.record()
            run()
            stop.record()
            stop.synchronize()
            times.append(start.elapsed_time(stop) / 1e3)
            if time.perf_counter() - began > 20:
                break
        return sorted(times)


def measure_limits(watch: Stopwatch) -> Limits:
    """Return GEMM rates at a side of 8192 (float64: 4096) and the rate of copying 1 GiB, read and written."""
    gemm = {}
    for name, kind, side in (("float32", torch.float32, 8192), ("tf32", torch.float32, 8192),
                             ("bfloat16", torch.bfloat16, 8192), ("float64", torch.float64, 4096)):  # fmt: skip
        torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
        a, b = (torch.randn(side, side, device="cuda", dtype=kind) for _ in range(2))
        gemm[name] = 2 * side**3 / statistics.median(watch.seconds(lambda a=a, b=b: a @ b, 8))
    torch.backends.cuda.matmul.allow_tf32 = False
    source = torch.empty(1 << 28, device="cuda")
    target = torch.empty_like(source)
    seconds = statistics.median(watch.seconds(lambda: target.copy_(source), 10))
    return Limits(gemm, 2 * source.nbytes / seconds)


def measure(work: Work, watch: Stopwatch, limits: Limits) -> Row:
    """Check a work's result, then time it and its peers; raise WrongResult before timing if it is wrong."""
    error = work.error()
    if not error <= work.tolerance:
        raise WrongResult(f"{work.name}: WRONG, errs by {error:.1e}, allowed {work.tolerance:.0e}; not timed")
    times = watch.seconds(work.ours, work.rounds)
    limit, by = work.limit(limits)
    quarter = len(times) // 4
    row = Row(
        work.name, work.size, statistics.median(times), times[-1 - quarter] - times[quarter], {}, limit, by, error
    )
    for name, run in work.peers.items():
        try:
            row.peers[name] = statistics.median(watch.seconds(run, min(work.rounds, 5)))
        except torch.cuda.OutOfMemoryError:
            row.peers[f"{name} (out of memory)"] = float("inf")
            torch.cuda.empty_cache()
    return row


def table(rows: list[Row], limits: Limits, card: str) -> str:
    """Return the table as Markdown."""
    rates = ", ".join(f"{name} GEMM {rate / 1e12:.1f} TFLOP/s" for name, rate in limits.gemm.items())
    lines = [
        f"{card}; measured: {rates}, copy {limits.copy / 1e12:.2f} TB/s",
        "",
        "| kernel | size | ms | quartiles apart | plain PyTorch, ms | of the measured limit | error |",
        "|---|---|---:|---:|---|---|---:|",
    ]
    for r in rows:
        peers = "; ".join(f"{name} {s * 1e3:.3g} ({s / r.ours:.2g}x)" for name, s in r.peers.items()) or "-"
        lines.append(
            f"| {r.name} | {r.size} | {r.ours * 1e3:.3g} | {r.spread * 1e3:.2g} | {peers} "
            f"| {r.limit / r.ours:.0%} of {r.by} | {r.error:.0e} |"
        )
    return "\n".join(lines)


def dry_run() -> int:
    """Run every work once on the CPU at a tiny size and check its result."""
    for work in works("cpu", tiny=True):
        error = work.error()
        work.ours()
        for run in work.peers.values():
            run()
        print(f"{work.name}: {'right' if error <= work.tolerance else f'WRONG by {error:.1e}'}")
        if not error <= work.tolerance:
            return 1
    return 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_gpu", description=__doc__.split("\n")[0])
    parser.add_argument("--dry-run", action="store_true", help="test the benchmark itself: tiny, on the CPU, no times")
    if parser.parse_args(arguments).dry_run:
        return dry_run()
    if not torch.cuda.is_available():
        print(f"no GPU is visible, so nothing was measured ({cuda.status()['reason']})", file=sys.stderr)
        return 1
    start = time.perf_counter()
    if not cuda.load():
        print(f"the CUDA kernels are not in use: {cuda.status()['reason']}", file=sys.stderr)
        return 1
    print(f"kernels {cuda.status()['reason']}, {time.perf_counter() - start:.0f} s", flush=True)
    watch = Stopwatch()
    limits = measure_limits(watch)
    rows, wrong = [], 0
    for work in works("cuda", tiny=False):
        try:
            rows.append(measure(work, watch, limits))
        except WrongResult as error:
            wrong += 1
            print(f"  {error}", flush=True)
            continue
        print(f"  {work.name}: right, {rows[-1].ours * 1e3:.3g} ms", flush=True)
    print(f"\n{table(rows, limits, torch.cuda.get_device_name())}")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
