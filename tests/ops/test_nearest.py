"""Largest entries tile by tile, against the sorted matrix."""

from __future__ import annotations

import math

import pytest
import torch

from bertft.ops import reference
from bertft.ops.native import cpu
from bertft.ops.nearest import Best, take_nearest


def matrix(m: int, n: int, dtype: torch.dtype) -> torch.Tensor:
    """Different entries, a few of them -infinity."""
    g = torch.Generator().manual_seed(m * n)
    whole = torch.randperm(m * n, generator=g).view(m, n).to(dtype) - m * n / 2
    return whole.masked_fill(torch.rand(m, n, generator=g) < 0.01, -math.inf)


def sorted_lists(lists: Best) -> list[list[tuple[float, int]]]:
    pairs = zip(lists.value.tolist(), lists.place.tolist(), strict=True)
    return [sorted((v, p) for v, p in zip(values, places, strict=True) if v > -math.inf) for values, places in pairs]


def largest(whole: torch.Tensor, k: int) -> list[list[tuple[float, int]]]:
    lines = [[(v, p) for p, v in enumerate(line) if v > -math.inf] for line in whole.tolist()]
    return [sorted(line)[-k:] for line in lines]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("m", "n", "k", "edge"), [(130, 170, 10, 64), (33, 7, 1, 16), (5, 70, 40, 70), (1, 1, 2, 1)])
def test_lists_are_those_of_the_whole_matrix(m, n, k, edge, dtype, threads):
    whole = matrix(m, n, dtype)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for down in (True, False):
            rows, columns = Best.none(whole, m, k), Best.none(whole, n, k)
            for i in range(0, m, edge):
                for j in range(0, n, edge):
                    tile = whole[i : i + edge, j : j + edge].contiguous()
                    of_columns = columns.of(j, tile.shape[1]) if down else None
                    take_nearest(tile, rows.of(i, len(tile)), of_columns, row=i, column=j)
            assert sorted_lists(rows) == largest(whole, k)
            assert sorted_lists(columns) == (largest(whole.mT, k) if down else [[]] * n)
    finally:
        torch.set_num_threads(before)


def test_the_reference():
    whole = matrix(40, 90, torch.float64)
    lists = Best.none(whole, 40, 7)
    for j in range(0, 90, 30):
        reference.take_nearest(whole[:, j : j + 30], *lists, j)
    assert sorted_lists(lists) == largest(whole, 7)


@pytest.mark.parametrize("down", [True, False])
def test_lists_without_a_kernel_are_those_of_the_whole_matrix(down, monkeypatch):
    monkeypatch.setattr(cpu, "load", lambda: False)
    whole = matrix(30, 40, torch.float64)
    rows, columns = Best.none(whole, 30, 6), Best.none(whole, 40, 6)
    for i, j in ((0, 0), (0, 25), (20, 0), (20, 25)):
        tile = whole[i : i + 20, j : j + 25]
        of_columns = columns.of(j, tile.shape[1]) if down else None
        take_nearest(tile, rows.of(i, len(tile)), of_columns, row=i, column=j)
    assert sorted_lists(rows) == largest(whole, 6)
    assert sorted_lists(columns) == (largest(whole.mT, 6) if down else [[]] * 40)


@pytest.mark.skipif(not cpu.load(), reason="no compiled kernels")
def test_the_op_refuses_lists_that_do_not_fit():
    tile, rows, columns = matrix(8, 9, torch.float32), *(Best.none(torch.zeros(1), lines, 3) for lines in (8, 9))
    down = Best(torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    for lists in (columns, down):
        torch.library.opcheck(torch.ops.bertft.nearest, (tile, *rows, 0, *lists, 0))
    for bad in (
        Best(rows.value[:7], rows.place),
        Best(rows.value, rows.place.int()),
        Best(rows.value.double(), rows.place),
    ):
        with pytest.raises(RuntimeError, match="lists must be contiguous"):
            torch.ops.bertft.nearest(tile, *bad, 0, *columns, 0)
