"""csrc/cuda/probe_loss.cu on the CPU, against float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accuracy import CODES, MODES, ORDERS, assert_as_exact
from gpu_executor import KernelError, Kernels, Uninitialised

from bertft.ops import reference

TILE = 32
SHORT = 128
# layers, lengths, rank of the distance probe, rank of the depth probe
CASES = [
    (2, (1, 2, 7, 31, 32, 33), 5, 3),
    (1, (40, 0, 3), 40, 0),
    (2, (20, 1), 0, 33),
    (1, (65, 12), 70, 1),
    (1, (0, 0), 4, 4),
    (1, (), 4, 4),
]


def plan(kernels, lengths):
    """(tiles, their number, the number of long ones, words of the longest sentence)."""
    counts, lengths = np.zeros(3, np.int32), np.array(lengths, np.int64)
    kernels.probe_loss_plan(lengths, len(lengths), None, counts)
    kind = np.dtype([("pairs", np.int64), ("word", np.int64), ("words", np.int32), ("first", np.int32)])
    tiles = np.zeros(counts[0], kind)
    kernels.probe_loss_plan(lengths, len(lengths), tiles, counts)
    return tiles, *map(int, counts)


def test_plan_covers_every_word_once_and_starts_with_the_longest():
    lengths = (3, 0, 200, 33, 128, 129, 1)
    tiles, count, long_tiles, longest = plan(Kernels("probe_loss.cu", "checked"), lengths)
    assert (count, long_tiles, longest) == (1 + 7 + 2 + 4 + 5 + 1, 7 + 5, 200)
    assert (np.diff(tiles["words"]) <= 0).all() and (tiles["words"][:long_tiles] > SHORT).all()
    words = [w for t in tiles for w in range(t["word"] + t["first"], t["word"] + min(t["first"] + TILE, t["words"]))]
    assert sorted(words) == list(range(sum(lengths)))
    starts = dict(
        zip(np.cumsum((0, *lengths)).tolist(), np.cumsum((0, *(n * n for n in lengths))).tolist(), strict=True)
    )
    assert all(starts[t["word"]] == t["pairs"] for t in tiles if t["words"])


def run(kernels, p, distances, depths, lengths, distance_rank, with_gradient=True, **options):
    """Return loss (L, 2) and dp, from p (L, T, R)."""
    layers, words, rank = p.shape
    tiles, count, long_tiles, longest = plan(kernels, lengths)
    loss, dp = np.empty((layers, 2), p.dtype), np.empty_like(p)
    partial = np.empty((layers, count, 2))
    kernels.probe_loss_launch(
        p, distances, depths, tiles, count, long_tiles, longest, sum(n > 0 for n in lengths),
        CODES[p.dtype.name], CODES[distances.dtype.name], layers, words, rank, distance_rank,
        Uninitialised(dp) if with_gradient else None, Uninitialised(partial), Uninitialised(loss), **options
    )  # fmt: skip
    return loss, dp


def data(layers, lengths, rank, dtype, distance_dtype, seed=0):
    random = np.random.default_rng(seed)
    words, pairs = sum(lengths), sum(n * n for n in lengths)
    p = (random.standard_normal((layers, words, rank)) * (4 / max(rank, 1)) ** 0.5).astype(dtype)
    distances = random.integers(0, 12, pairs).astype(distance_dtype)  # not symmetric: every ordered pair has its own
    return p, distances, random.integers(0, 9, words).astype(dtype)


def expected(p, distances, depths, lengths, distance_rank, dtype):
    p = torch.tensor(p.astype(dtype), requires_grad=True)
    distances, depths = (torch.tensor(v.astype(dtype)) for v in (distances, depths))
    counts, (layers, words, rank) = torch.tensor(lengths, dtype=torch.int64), p.shape
    loss = torch.zeros(layers, 2, dtype=p.dtype)
    unit = torch.eye(rank, dtype=p.dtype).expand(layers, -1, -1)
    if words:
        if distance_rank:
            loss[:, 0] = reference.distance_probe_loss(p, unit[..., :distance_rank], distances, counts)
        if distance_rank < rank:
            loss[:, 1] = reference.depth_probe_loss(p, unit[..., distance_rank:], depths, counts)
        loss.sum().backward()
    return loss.detach().numpy(), (torch.zeros_like(p) if p.grad is None else p.grad).numpy()


def check(kernels, case, dtype, distance_dtype, **options):
    layers, lengths, distance_rank, depth_rank = case
    arguments = data(layers, lengths, distance_rank + depth_rank, dtype, distance_dtype)
    loss, dp = run(kernels, *arguments, lengths, distance_rank, **options)
    exact = expected(*arguments, lengths, distance_rank, "float64")
    plain = expected(*arguments, lengths, distance_rank, dtype)
    assert_as_exact(loss, plain[0], exact[0])
    assert_as_exact(dp, plain[1], exact[1])
    again, _ = run(kernels, *arguments, lengths, distance_rank, with_gradient=False, **options)
    assert np.array_equal(loss, again)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_loss_and_gradient(mode, order, case):
    check(Kernels("probe_loss.cu", mode), case, "float32", "uint8", order=order)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("distance_dtype", ["uint8", "same"])
def test_types(mode, dtype, distance_dtype):
    kind = dtype if distance_dtype == "same" else distance_dtype
    check(Kernels("probe_loss.cu", mode), (2, (9, 34, 1), 6, 5), dtype, kind)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("n", [128, 129, 512])
def test_long_sentences(mode, n):
    check(Kernels("probe_loss.cu", mode), (1, (3, n, 40), 4 if n == 512 else 9, 2), "float32", "uint8", order="random")


def test_same_words_have_no_gradient():
    kernels, n = Kernels("probe_loss.cu", "checked"), 5
    p = np.ones((1, n, 4), np.float32)
    loss, dp = run(kernels, p, np.zeros(n * n, np.uint8), np.full(n, 4, np.float32), (n,), 4)
    assert not loss.any() and not dp.any()
    loss, dp = run(kernels, p, np.full(n * n, 3, np.uint8), np.full(n, 4, np.float32), (n,), 4)
    assert loss[0, 0] == 3 and not dp.any()  # too close, yet no direction to go


def test_same_input_same_bits():
    kernels = Kernels("probe_loss.cu", "checked")
    arguments, lengths = data(2, (30, 50, 7), 12, "float32", "uint8"), (30, 50, 7)
    first = run(kernels, *arguments, lengths, 8)
    for order in ORDERS:
        again = run(kernels, *arguments, lengths, 8, order=order, seed=9)
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_bad_arguments_are_refused():
    kernels = Kernels("probe_loss.cu", "checked")
    p, distances, depths = data(1, (2,), 2, "float32", "float64")
    with pytest.raises(KernelError):  # float32 vectors, float64 distances
        run(kernels, p, distances, depths, (2,), 1)
    with pytest.raises(KernelError):
        run(kernels, p, distances.astype(np.uint8), depths, (2,), 3)
    with pytest.raises(KernelError):  # a sentence whose signs do not fit into shared memory
        run(kernels, *data(1, (2000,), 1, "float32", "uint8"), (2000,), 1)
