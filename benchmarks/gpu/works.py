"""Ops beside their rivals, each with its error against float64."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from benchmarks.gpu import rivals
from benchmarks.gpu.card import Limits, Stopwatch
from benchmarks.gpu.run import Item, Result, WrongResult
from benchmarks.stimuli import bert_like, rogue, sentence_lengths, tree_distances
from bertft import ops
from bertft.ops import reference

Contender = Callable[..., Tensor]


@dataclass
class Work:
    """One op at one size.

    ``contenders`` take ``inputs``; the first is ours. Errors are those on ``few``, smaller inputs of which ``exact`` is
    the result. ``flops`` are float32's, of which ``limit`` gives the type whose GEMM bounds them.
    """

    name: str
    inputs: tuple[Tensor, ...]
    few: dict[str, tuple[Tensor, ...]]
    exact: Callable[..., Tensor]
    contenders: dict[str, Contender]
    tolerance: float
    flops: float
    seconds: float = 8
    rounds: int = 10
    limit: str = "float32"
    absolute: bool = False  # the error is not divided by the largest exact value
    loose: dict[str, float] = field(default_factory=dict)  # tolerances of further contenders of ours


def measured(work: Work, watch: Stopwatch, limits: Limits) -> Result:
    """Return times, errors and shares of all contenders; raise WrongResult if one of ours errs by too much."""
    exact = {kind: work.exact(*(t.double() for t in inputs)) for kind, inputs in work.few.items()}
    found: dict[str, Result] = {}
    for name, run in work.contenders.items():
        try:
            error = max(off(run(*inputs), exact[kind], work.absolute) for kind, inputs in work.few.items())
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            found[name] = {"failed": "out of memory"}
            continue
        except Exception as problem:  # a rival's own, of any type
            if not found or name in work.loose:
                raise
            found[name] = {"failed": " ".join(str(problem).split())[:120] or type(problem).__name__}
            continue
        allowed = work.loose.get(name, work.tolerance if not found else float("inf"))
        if not error <= allowed:
            raise WrongResult(f"{name} errs by {error:.1e}, allowed {allowed:.0e}; not timed")
        found[name] = {"error": error, **timed(work, run, watch, limits)}
    return {"contenders": found}


def timed(work: Work, run: Contender, watch: Stopwatch, limits: Limits) -> Result:
    """Return the time of a contender, and the share of the card's rate that it has."""
    try:
        times = watch.milliseconds(lambda: run(*work.inputs), work.rounds)
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        return {"failed": "out of memory"}
    median, quarter = statistics.median(times), len(times) // 4
    share = work.flops * 1e3 / median / limits.rate(work.limit)
    return {"ms": median, "spread": times[-1 - quarter] - times[quarter], "share": share}


def off(result: Tensor, exact: Tensor, absolute: bool) -> float:
    """Return the largest error, as a share of the largest exact value unless it is ``absolute``."""
    error = float((result.double() - exact).abs().max())
    return error if absolute else error / float(exact.abs().max())


def kinds(n: int, d: int, device: str, layers: int = 1) -> dict[str, tuple[Tensor, ...]]:
    """Return rows (layers, n, d) with a large mean, without and with dimensions that vary much more than others."""
    made = {"rogue": rogue, "spread": bert_like}
    return {
        kind: (torch.stack([make(n, d, seed)[0] for seed in range(layers)]).to(device),) for kind, make in made.items()
    }


def distance_works(device: str, tiny: bool) -> Iterator[Work]:
    L, N, D = (2, 40, 16) if tiny else (4, 4096, 768)
    (x,) = kinds(N, D, device, L)["spread"]
    few = kinds(40 if tiny else 1024, D, device)
    for metric in ("cosine", "correlation", "sqeuclidean", "euclidean", "dot", "manhattan"):

        def exact(x: Tensor, metric: str = metric) -> Tensor:
            return reference.pairwise_distance(x, metric=metric)

        ours = {
            name: lambda x, metric=metric, precision=precision: ops.pairwise_distance(
                x, metric=metric, precision=precision
            )
            for name, precision in (("bertft", "float32"), ("bertft fast", "fast"), ("bertft float64", "float64"))
            if metric != "manhattan" or precision == "float32"
        }
        some = ours if metric in ("cosine", "sqeuclidean", "manhattan") else dict([next(iter(ours.items()))])
        yield Work(
            f"pairwise_distance {metric}, {L} x {N} x {D}", (x,), few, exact,
            some | rivals.distances(metric, compiled=metric == "cosine"), 1e-6, L * N * N * D,
            loose={"bertft fast": 2e-3, "bertft float64": 1e-12},
        )  # fmt: skip
    for metric in ("cosine", "sqeuclidean"):
        yield _gradient_work(metric, x, few)


def _gradient_work(metric: str, x: Tensor, few: dict[str, tuple[Tensor, ...]]) -> Work:
    def slope(call: Contender) -> Contender:
        def run(rows: Tensor) -> Tensor:
            leaf = rows.detach().requires_grad_()
            out = call(leaf)
            weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype, device=out.device).view(out.shape)
            return torch.autograd.grad(out, leaf, weight)[0]

        return run

    L, N, D = x.shape
    plain = rivals.distances(metric, compiled=False)["torch"]
    return Work(
        f"pairwise_distance and its gradient, {metric}, {L} x {N} x {D}", (x,), few,
        slope(lambda rows: reference.pairwise_distance(rows, metric=metric)),
        {
            "bertft": slope(lambda rows: ops.pairwise_distance(rows, metric=metric)),
            "bertft fast": slope(lambda rows: ops.pairwise_distance(rows, metric=metric, precision="fast")),
            "torch": slope(plain),
        },
        1e-5, 3 * L * N * N * D, loose={"bertft fast": 2e-3},
    )  # fmt: skip


def rsa_works(device: str, tiny: bool) -> Iterator[Work]:
    L, N, D = (2, 40, 16) if tiny else (13, 5000, 768)
    few = {}
    for kind, make in (("rogue", rogue), ("spread", bert_like)):
        pairs = [make(40 if tiny else 2000, D, seed) for seed in range(2)]
        few[kind] = tuple(torch.stack([pair[side] for pair in pairs]).to(device) for side in (0, 1))
    x, y = (torch.stack([bert_like(N, D, seed)[side] for seed in range(L)]).to(device) for side in (0, 1))
    for compare in ("pearson", "spearman"):
        ours = {
            name: lambda x, y, compare=compare, precision=precision: ops.rdm_correlation(
                x, y, compare=compare, precision=precision
            )
            for name, precision in (("bertft", "float32"), ("bertft fast", "fast"), ("bertft float64", "float64"))
        }
        others = rivals.correlations() if compare == "pearson" else {}
        tolerance = 1e-7 if compare == "pearson" else 1e-5
        yield Work(
            f"rdm_correlation {compare}, 2 x {L} x {N} x {D}", (x, y), few,
            lambda x, y, compare=compare: reference.rdm_correlation(x, y, compare=compare), ours | others,
            tolerance, 2 * L * N * N * D, 20, 5, absolute=True,
            loose={"bertft fast": 1e-4 if tiny else 1e-5, "bertft float64": 1e-9 if compare == "pearson" else 1e-5},
        )  # fmt: skip


def moments_works(device: str, tiny: bool) -> Iterator[Work]:
    N, D = (50, 16) if tiny else (65536, 768)
    x, y = (space.to(device) for space in bert_like(N, D))
    few = {
        kind: tuple(space.to(device) for space in make(min(N, 4096), D))
        for kind, make in (("rogue", rogue), ("spread", bert_like))
    }

    def ours(precision: str) -> Contender:
        def run(x: Tensor, y: Tensor) -> Tensor:
            means = {"mean_x": ops.provisional_mean(x), "mean_y": ops.provisional_mean(y)}
            return ops.cross_moments(x, y, **means, precision=precision).cross

        return run

    def exact(x: Tensor, y: Tensor) -> Tensor:
        means = ops.provisional_mean(x.float()), ops.provisional_mean(y.float())
        return reference.cross_moments(x, y, *means, "cosine", "cosine")[2]

    names = {"bertft": "float32", "bertft fast": "fast", "bertft float64": "float64"}
    yield Work(
        f"cross_moments, {N} x {D}", (x, y), few, exact, {n: ours(p) for n, p in names.items()} | rivals.sums(),
        1e-6, 6 * N * D * D, loose={"bertft fast": 1e-3, "bertft float64": 1e-9},
    )  # fmt: skip


def probe_works(device: str, tiny: bool) -> Iterator[Work]:
    L, D, R, S = (2, 16, 4, 5) if tiny else (13, 768, 128, 2048)
    lengths = sentence_lengths(S)
    random = torch.Generator().manual_seed(0)
    h = torch.randn(L, int(lengths.sum()), D, generator=random).to(device)
    weight = ((torch.rand(L, D, R, generator=random) - 0.5) / 10).to(device)
    distances = tree_distances(lengths).to(device)
    few = min(S, 40)
    words = int(lengths[:few].sum())

    def step(loss: Callable[..., Tensor]) -> Contender:
        def run(h: Tensor, weight: Tensor) -> Tensor:
            size = few if h.shape[1] == words else S
            leaf = weight.detach().requires_grad_()
            pairs = int((lengths[:size] ** 2).sum())
            value = loss(h, leaf, distances[:pairs], lengths[:size])
            return torch.autograd.grad(value.sum(), leaf)[0]

        return run

    yield Work(
        f"distance_probe_loss and gradient, {L} x {h.shape[1]} x {D}, R {R}", (h, weight),
        {"treebank": (h[:, :words], weight)}, step(reference.distance_probe_loss),
        {"bertft": step(ops.distance_probe_loss), "torch, by sentence": step(reference.distance_probe_loss)},
        1e-4, 4 * L * h.shape[1] * D * R, 15, 3,
    )  # fmt: skip


def ops_items(watch: Stopwatch, limits: Limits, tiny: bool) -> Iterator[Item]:
    """Yield every work; its inputs are made when it is due."""
    for make in (distance_works, rsa_works, moments_works, probe_works):
        for work in make(watch.device, tiny):
            yield Item(work.name, 0 if tiny else work.seconds, lambda work=work: measured(work, watch, limits))
