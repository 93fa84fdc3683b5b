"""The works of benchmarks/gpu, run small enough to count every request, and their figures at full size.

A figure is a sum over blocks, and what a block does grows with the columns. At whole tiles it is thus an exact
polynomial in the numbers of tiles and of chunks of columns: a few small runs determine it, and `full` evaluates it at
the benchmark's size.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from accuracy import METRICS
from gpu_build import CSRC
from gpu_counters import totals
from gpu_executor import Device, Kernels, Uninitialised
from gradients import differences, points, weights
from matrices import product, rows_summed
from rdm import correlate
from split import split, sums
from test_pairwise_distance import forward, gradient, statistics
from test_probe_loss import data as sentences
from test_probe_loss import run as probe

Sources = dict[str, Path]  # name of a kernel file: its path, where it is not that of csrc/cuda


@dataclass(frozen=True)
class Axis:
    """A size: where it is run, what it is in the benchmark, and the terms that figures are made of."""

    runs: tuple[int, ...]
    full: int
    terms: Callable[[int], tuple[float, ...]]


def linear(runs: tuple[int, ...], full: int) -> Axis:
    return Axis(runs, full, lambda size: (1, size))


def proportional(full: float) -> Axis:
    return Axis((1,), full, lambda size: (size,))


def triangle(full: int) -> Axis:
    """Tiles on and above the diagonal of a square of tiles."""
    return Axis((1, 2), full, lambda side: (side, side * (side - 1) / 2))


def square(full: int) -> Axis:
    return Axis((1, 2), full, lambda side: (side, side * side))


@dataclass
class Case:
    """A work of the benchmark: which kernels of which file it is there to count."""

    work: str
    source: str
    kernels: tuple[str, ...]
    run: Callable[..., list[dict]]
    axes: dict[str, Axis]
    sizes: dict[str, float] = field(default_factory=dict)  # for the formulas of headers
    measured: float = 0.0  # ms on an H200, docs/gpu.md
    launches: list[dict] = field(default_factory=list)  # of the last run

    def full(self, folder: Path | None = None) -> dict[str, Counter]:
        """Return the figures of the kernels at the benchmark's size; ``folder``: of the sources."""
        rows, figures = [], {kernel: [] for kernel in self.kernels}
        for sizes in itertools.product(*(axis.runs for axis in self.axes.values())):
            rows.append(self._terms(sizes))
            self.launches = self.run(folder or CSRC / "cuda", **dict(zip(self.axes, sizes, strict=True)))
            found = totals(self.launches)
            for kernel in self.kernels:
                figures[kernel].append(found[kernel])
        full = self._terms([axis.full for axis in self.axes.values()])
        return {kernel: _extrapolated(np.array(rows), counts, full) for kernel, counts in figures.items()}

    def _terms(self, sizes) -> list[float]:
        each = [axis.terms(size) for axis, size in zip(self.axes.values(), sizes, strict=True)]
        return [float(np.prod(terms)) for terms in itertools.product(*each)]


def _extrapolated(rows: np.ndarray, counts: list[Counter], full: list[float]) -> Counter:
    names = sorted(set().union(*counts))
    values = np.array([[count[name] for name in names] for count in counts], float)
    found = np.array(full) @ np.linalg.solve(rows, values)
    return Counter({name: round(value) for name, value in zip(names, found, strict=True)})


class Recorder:
    """Kernels of a file in counting mode; every call's launches are kept."""

    def __init__(self, source: Path, device: Device | None = None):
        self.kernels, self.launches = Kernels(source, "counting", device=device), []

    def __getattr__(self, name: str):
        call = getattr(self.kernels, name)

        def recorded(*arguments, **options):
            call(*arguments, **options)
            self.launches += self.kernels.launches

        return recorded


def rows_of(n: int, d: int, layers: int = 1) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((layers, n, d)).astype(np.float32)


def plain_distances(metric: str):
    def run(folder: Path, tiles: int, columns: int, batch: int) -> list[dict]:
        kernels = Recorder(folder / "pairwise_distance.cu")
        forward(kernels, rows_of(128 * tiles, 32 * columns, batch), None, "float32", metric)
        return kernels.launches

    return run


def row_statistics(folder: Path, rows: int, columns: int) -> list[dict]:
    kernels = Recorder(folder / "pairwise_distance.cu")
    statistics(kernels, rows_of(128 * rows, 32 * columns), "float32", "cosine")
    return kernels.launches


def plain_gradient(folder: Path, rows: int, columns: int, batch: int) -> list[dict]:
    kernels, x = Recorder(folder / "pairwise_distance.cu"), rows_of(64 * rows, 64 * columns, batch)
    weights = rows_of(64 * rows, 64 * rows, batch)
    gradient(kernels, x, None, weights, weights, "float32", "manhattan")
    return kernels.launches


def split_rows(folder: Path, rows: int, columns: int, batch: int) -> list[dict]:
    kernels = Recorder(folder / "split_rows.cu")
    split(kernels, rows_of(128 * rows, 32 * columns, batch), "cosine")
    return kernels.launches


def split_distances(folder: Path, tiles: int, columns: int, batch: int) -> list[dict]:
    n, d, x = 128 * tiles, 32 * columns, rows_of(128 * tiles, 32 * columns, batch)
    found, kernels = split(Kernels("split_rows.cu", "plain"), x, "cosine"), Recorder(folder / "split_gram.cu")
    kernels.split_gram_launch(
        x, None, found.memory, None, found.mean_square, np.empty((batch, n, n), np.float32),
        np.empty(batch, np.int32), np.empty((batch, 4096, 2), np.int32), 4096, 0, METRICS.index("cosine"), batch, n, n,
        d, 0, 2,
    )  # fmt: skip
    return kernels.launches


def entries(path: str, metric: str):
    def run(folder: Path, tiles: int, columns: int, layers: int) -> list[dict]:
        kernels, x = Recorder(folder / "rdm_correlation.cu"), rows_of(128 * tiles, 32 * columns, layers)
        correlate(kernels, x, x.copy(), "float32", metric, path=path)
        return kernels.launches

    return run


def moments(folder: Path, tiles: int) -> list[dict]:
    kernels = Recorder(folder / "rdm_correlation.cu", Device(multiprocessors=2))  # so that blocks take several slices
    x = rows_of(128, 32, 13)
    correlate(kernels, x, x + 1, "float32", "cosine")
    return kernels.launches


def ranks(folder: Path, side: int, layers: int) -> list[dict]:
    kernels, x = Recorder(folder / "rdm_correlation.cu", Device(multiprocessors=132)), rows_of(128 * side, 32, layers)
    correlate(kernels, x, x.copy(), "float32", "cosine", "spearman")
    return kernels.launches


def split_sums(rows: int):
    def run(folder: Path, ranges: int, columns: int) -> list[dict]:
        kernels, u = Recorder(folder / "split_moments.cu"), rows_of(rows * ranges, 128 * columns)[0]
        sums(kernels, u, u + 1)
        return kernels.launches

    return run


def row_sums(folder: Path, rows: int, columns: int) -> list[dict]:
    n, d = 512 * rows, 32 * columns
    kernels, x, u = Recorder(folder / "cross_moments.cu"), rows_of(n, d)[0], np.empty((n, d), np.float32)
    a, p, bad, partial = np.empty(n), np.empty(n), np.zeros(2, np.int64), np.empty((rows, 3, d))
    kernels.prepare_rows_launch(x, np.zeros(d), u, a, p, bad, 0, 0, METRICS.index("cosine"), n, d)
    kernels.space_sums_launch(u, a, p, Uninitialised(partial), np.zeros(3 * d + 6), 0, n, d)
    kernels.accumulate_launch(u[:64], np.zeros((64, d)), 0, 64 * d)
    return kernels.launches


def probe_step(folder: Path, share: int) -> list[dict]:
    kernels = Recorder(folder / "probe_loss.cu")
    p, distances, depths = sentences(1, PROBED, 128, "float32", "uint8")
    probe(kernels, p, distances, depths, PROBED, 128)
    return kernels.launches


def probe_points(folder: Path, rows: int, columns: int, layers: int) -> list[dict]:
    kernels = Recorder(folder / "split_matrix.cu")
    product(kernels, rows_of(128 * rows, 32 * columns, layers), rows_of(32 * columns, 128, layers))
    return kernels.launches


def probe_gradient(folder: Path, ranges: int, columns: int, layers: int) -> list[dict]:
    kernels, n = Recorder(folder / "split_matrix.cu"), 1024 * ranges
    rows_summed(kernels, rows_of(n, 128 * columns, layers), rows_of(n, 128, layers))
    return kernels.launches


def split_weights(folder: Path, tiles: int, batch: int) -> list[dict]:
    kernels, n = Recorder(folder / "split_gradient.cu"), 128 * tiles
    weights(kernels, rows_of(n, n, batch), None, "cosine", n, n, symmetric=True)
    return kernels.launches


def split_points(folder: Path, rows: int, columns: int, batch: int) -> list[dict]:
    kernels = Recorder(folder / "split_gradient.cu")
    points(kernels, rows_of(128 * rows, 128 * columns, batch), np.zeros((batch, 128 * columns)), "cosine")
    return kernels.launches


def split_gradient(folder: Path, rows: int, depth: int, columns: int, batch: int) -> list[dict]:
    n, m, d, kernels = 128 * rows, 128 * depth, 128 * columns, Recorder(folder / "split_matrix.cu")
    plain, mean = Kernels("split_gradient.cu", "plain"), np.zeros((batch, d))
    left, _ = weights(plain, rows_of(n, m, batch), None, "cosine", n, m, symmetric=False)
    sides = [points(plain, rows_of(side, d, batch), mean, "sqeuclidean") for side in (n, m)]
    differences(kernels, left, *sides, "cosine")
    return kernels.launches


def rates(folder: Path, block: int) -> list[dict]:
    kernels = Recorder(folder / "core_rate.cu")
    kernels.core_rate_launch(np.zeros(2, np.int64), np.zeros(512, np.float32))
    return kernels.launches


# Every 102nd of the benchmark's 2,048 sentences by length (log-normal, 1 to 100 words, mean 16.7), 21 of them
PROBED = (1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 17, 18, 20, 22, 26, 32, 43, 68)
WORDS = sum(PROBED)
DISTANCES = {"tiles": triangle(32), "columns": linear((1, 2), 24), "batch": proportional(4)}
LAYERS = {"tiles": triangle(40), "columns": linear((1, 2), 24), "layers": proportional(13)}
TILES = 40 * 41 // 2  # of 5,000 rows

CASES = [
    *(
        Case(f"distances 4 x 4,096 x 768, {metric}, FFMA", "pairwise_distance.cu", ("pairwise_distance_kernel",),
             plain_distances(metric), DISTANCES, {"d": 768, "terms": terms}, measured)
        for metric, terms, measured in (("cosine", 1, 2.77), ("sqeuclidean", 2, 2.43), ("manhattan", 2, 2.42))
    ),
    Case("distances, norms of rows", "pairwise_distance.cu", ("row_statistics_kernel",), row_statistics,
         {"rows": linear((1, 2), 128), "columns": linear((1, 2), 24)}, {"elements": 4 * 4096 * 768}),
    Case("gradient, manhattan, FFMA", "pairwise_distance.cu", ("pairwise_gradient_kernel",), plain_gradient,
         {"rows": square(64), "columns": linear((1, 2), 12), "batch": proportional(4)}, {"n": 4096, "terms": 5}, 43),
    Case("distances, rows split", "split_rows.cu", ("sample_mean_kernel", "split_rows_kernel"), split_rows,
         {"rows": linear((1, 2), 32), "columns": linear((1, 2), 24), "batch": proportional(4)},
         {"elements": 4 * 4096 * 768}),
    Case("distances 4 x 4,096 x 768, tensor cores", "split_gram.cu", ("split_gram_kernel",), split_distances,
         DISTANCES),
    Case("RSA 2 x 13 x 5,000 x 768, entries", "rdm_correlation.cu", ("split_entries_kernel",),
         entries("split", "cosine"), LAYERS),
    Case("RSA, entries, manhattan, FFMA", "rdm_correlation.cu", ("plain_entries_kernel",),
         entries("plain", "manhattan"), LAYERS, {"d": 768, "terms": 2}),
    Case("RSA, sums over entries", "rdm_correlation.cu", ("slice_moments_kernel",), moments,
         {"tiles": proportional(TILES)}, {"slices": 32 * TILES, "jobs": 16, "layers": 26}),
    Case("RSA, ranks", "rdm_correlation.cu", ("range_kernel", "count_kernel", "rank_kernel"), ranks,
         {"side": Axis((1, 2), 40, lambda side: (-(-side * (side + 1) // 128), side * (side + 1) / 2)),
          "layers": proportional(13)}),
    Case("sums of 65,536 x 768, two spaces split", "split_moments.cu", ("largest_kernel", "split_columns_kernel"),
         split_sums(128), {"ranges": linear((1, 2), 512), "columns": linear((1, 2), 6)}, {"elements": 2 * 65536 * 768}),
    Case("sums of 65,536 x 768, U'V", "split_moments.cu", ("split_moments_kernel",), split_sums(1024),
         {"ranges": proportional(64), "columns": square(6)}),
    Case("sums of 65,536 x 768, ranges added", "split_moments.cu", ("fold_ranges_kernel",), split_sums(1024),
         {"ranges": linear((1, 2), 64), "columns": proportional(36)}),
    Case("sums of 65,536 x 768, one space", "cross_moments.cu",
         ("prepare_rows_kernel", "weighted_sums_kernel", "add_partial_kernel", "scalar_sums_kernel"), row_sums,
         {"rows": linear((1, 2), 128), "columns": linear((1, 2), 24)}, {"elements": 65536 * 768}),
    Case("sums of 65,536 x 768, 16 products added", "cross_moments.cu", ("accumulate_kernel",), row_sums,
         {"columns": linear((1, 2), 288), "rows": proportional(16)}),  # 64 x 32 elements of 768 x 768; 16 chunks
    Case("probe, 13 x 34,188 x 768, rank 128", "probe_loss.cu", ("probe_loss_kernel", "fold_kernel"), probe_step,
         {"share": proportional(13 * 34188 / WORDS)},
         {"steps": 13 * 34188 / WORDS * sum((-(-n // 32)) ** 2 for n in PROBED), "rank": 128}),
    Case("probe, points of words split once", "split_matrix.cu", ("product_kernel",), probe_points,
         {"rows": proportional(34188 / 128), "columns": linear((1, 2), 24), "layers": proportional(13)}),
    Case("probe, gradient of words split once", "split_matrix.cu", ("sum_kernel",), probe_gradient,
         {"ranges": proportional(34188 / 1024), "columns": proportional(6), "layers": proportional(13)}),
    Case("gradient 4 x 4,096 x 768, weights split", "split_gradient.cu",
         ("weight_sums_kernel", "split_weights_kernel"), split_weights,
         {"tiles": square(32), "batch": proportional(4)}, {"elements": 4 * 4096 * 4096}),
    Case("gradient, rows split", "split_gradient.cu",
         ("prepare_rows_kernel", "largest_of_columns_kernel", "split_points_kernel"), split_points,
         {"rows": linear((1, 2), 32), "columns": linear((1, 2), 6), "batch": proportional(4)},
         {"elements": 4 * 4096 * 768}),
    Case("gradient 4 x 4,096 x 768, product", "split_matrix.cu", ("product_kernel",), split_gradient,
         {"rows": linear((1, 2), 32), "depth": linear((1, 2), 32), "columns": linear((1, 2), 6),
          "batch": proportional(4)}),
    Case("rate of the cores", "core_rate.cu", ("core_rate_kernel",), rates, {"block": proportional(1)}),
]  # fmt: skip
