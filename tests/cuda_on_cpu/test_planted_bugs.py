"""Planted bugs, each caught in every thread order.

Without a bug nothing is reported.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from gpu_executor import ORDERS, KernelError, Kernels, Uninitialised

PLANTED = Path(__file__).parent / "planted"
WRONG = "wrong result"  # not an error of CUDA's rules, so only the numbers can tell

# file, bug, what it is, what catches it in checked mode, what catches it in plain mode (None: nothing need)
BUGS = [
    ("tiled_gram", 1, "no barrier after the tile is loaded", "RACE|UNINITIALISED", WRONG),
    ("tiled_gram", 2, "column tail: <= for <", "OUT OF BOUNDS read|wrong result", WRONG),
    ("tiled_gram", 3, "lane mask names half the warp", "does not name the calling lane", "does not name the calling"),
    ("tiled_gram", 4, "reduction starts at 8", WRONG, WRONG),
    ("tiled_gram", 5, "no barrier before the tile is overwritten", "RACE", WRONG),
    ("tiled_gram", 6, "no barrier before warp sums are read", "RACE|UNINITIALISED", None),
    ("tiled_gram", 7, "row bound forgotten", "OUT OF BOUNDS read", None),
    ("tiled_gram", 8, "row tail: <= for <", "OUT OF BOUNDS write|RACE", "OUT OF BOUNDS write"),
    ("tiled_gram", 9, "fold reads a partial sum too many", "UNINITIALISED read of 'partial'", WRONG),
    ("sentence_spread", 1, "no barrier after the words are loaded", "RACE|UNINITIALISED", WRONG),
    ("sentence_spread", 2, "word tail: <= for <", "OUT OF BOUNDS read|UNINITIALISED|wrong result", WRONG),
    ("sentence_spread", 3, "half a warp calls a shuffle", "deadlock|exits while lanes", "deadlock|exits while lanes"),
    ("sentence_spread", 4, "early return before a barrier", "exit", "exit"),
    (
        "sentence_spread",
        5,
        "dynamic shared memory too small",
        "OUT OF BOUNDS write: shared memory",
        "past the end of dynamic shared",
    ),
    ("sentence_spread", 6, "barrier in a branch", "deadlock|exit", "deadlock|exit"),
    ("sentence_spread", 7, "shared memory of the block before", "UNINITIALISED", WRONG),
    ("tensor_tile", 1, "last copy not waited for", "cp.async", "cp.async"),
    ("tensor_tile", 2, "registers of a exchanged", WRONG, WRONG),
    ("tensor_tile", 3, "copy issued over data still read", "RACE", None),
    ("tensor_tile", 4, "copy without a commit", "cp.async", "cp.async|wrong result"),
    ("tensor_tile", 5, "ldmatrix rows misaligned", "ldmatrix: row address", "ldmatrix: row address"),
    ("tensor_tile", 6, "ldmatrix quarters exchanged", WRONG, WRONG),
    ("tensor_tile", 7, "ldmatrix transposed", WRONG, WRONG),
]


def tiled_gram(kernels: Kernels, bug: int, **options) -> float:
    """Largest error, relative to the largest value; n and d straddle the tiles."""
    n, d = 35, 20
    x = np.random.default_rng(0).standard_normal((n, d), dtype=np.float32)
    g, partial, total = np.empty((n, n), np.float32), np.empty(10), np.empty(1)
    kernels.gram(x, n, d, Uninitialised(g), Uninitialised(partial), total, bug, **options)
    expected = x.astype(np.float64) @ x.T.astype(np.float64)
    return max(error(g, expected), error(total, expected.sum()))


def sentence_spread(kernels: Kernels, bug: int, **options) -> float:
    lengths, d = (40, 3, 21), 5
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    h = np.random.default_rng(0).standard_normal((offsets[-1], d), dtype=np.float32)
    out = np.empty(3, np.float32)
    kernels.spread(h, offsets, 3, max(lengths), d, Uninitialised(out), bug, **options)
    words = [h[a:b].astype(np.float64) for a, b in pairwise(offsets)]
    return error(out, [((w[:, None] - w) ** 2).sum() / len(w) ** 2 for w in words])


def tensor_tile(kernels: Kernels, bug: int, **options) -> float:
    m, n, k = 32, 16, 48
    # small integers: exact in tf32 and bf16
    draw = np.random.default_rng(0).integers
    a, b = draw(-8, 9, (m, k)).astype(np.float32), draw(-8, 9, (n, k)).astype(np.float32)
    worst = 0.0
    for name, cast in (("product_tf32", np.asarray), ("product_bf16", bfloat16_bits)):
        c = np.empty((m, n), np.float32)
        kernels.call(name, cast(a), cast(b), Uninitialised(c), m, n, k, bug, **options)
        worst = max(worst, error(c, a @ b.T))
    return worst


RUNS = {"tiled_gram": tiled_gram, "sentence_spread": sentence_spread, "tensor_tile": tensor_tile}


def error(got, expected) -> float:
    difference = np.abs(np.asarray(got) - expected).max() / np.abs(expected).max()
    return float(np.nan_to_num(difference, nan=np.inf))


def bfloat16_bits(values: np.ndarray) -> np.ndarray:
    return (values.view(np.uint32) >> 16).astype(np.uint16)


def verdict(file: str, bug: int, mode: str, **options) -> str:
    kernels = Kernels(PLANTED / f"{file}.cu", mode)
    try:
        return WRONG if RUNS[file](kernels, bug, **options) > 1e-5 else "nothing"
    except KernelError as fault:
        return str(fault)


def caught(expected: str, found: str) -> bool:
    return found != "nothing" and any(part in found for part in expected.split("|"))


@pytest.mark.parametrize("file", RUNS)
@pytest.mark.parametrize("mode", ["plain", "checked"])
def test_nothing_reported_without_a_bug(file, mode):
    for order in ORDERS:
        for seed in range(3 if order == "random" else 1):
            assert verdict(file, 0, mode, order=order, seed=seed) == "nothing"


@pytest.mark.parametrize(("file", "bug", "what", "checked", "plain"), BUGS, ids=[f"{b[0]}-{b[1]}" for b in BUGS])
def test_checked_mode_catches(file, bug, what, checked, plain):
    for order in ORDERS:
        found = verdict(file, bug, "checked", order=order, seed=1)
        assert caught(checked, found), f"{what}, order {order}: {found}"


@pytest.mark.slow
@pytest.mark.parametrize(("file", "bug", "what", "checked", "plain"), BUGS, ids=[f"{b[0]}-{b[1]}" for b in BUGS])
def test_plain_mode_catches(file, bug, what, checked, plain):
    if plain is None:
        pytest.skip("only the checker can see this one")
    found = [verdict(file, bug, "plain", order=order, seed=1) for order in ORDERS]
    assert any(caught(plain, f) for f in found), f"{what}: {found}"


def test_a_fault_names_kernel_block_thread_and_line():
    kernels = Kernels(PLANTED / "tiled_gram.cu", "checked")
    with pytest.raises(
        KernelError, match=r"kernel gram_kernel<BUG>, block \(2,0,0\) thread .*tiled_gram\.cu:\d+: OUT OF"
    ) as fault:
        tiled_gram(kernels, bug=7)
    lines = (PLANTED / "tiled_gram.cu").read_text(encoding="utf-8").splitlines()
    assert "? x[" in lines[fault.value.line - 1]
    assert fault.value.kernel == "gram_kernel<BUG>"
    assert "past the end of 'x'" in fault.value.problem
