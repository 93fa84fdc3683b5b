"""Tiles of 128 x 256 pairs (BERTFT_TILE=wide) on the CPU: the bits of tiles of 128 x 128, which others hold to float64.

Shapes lie about 128 and 256: the second half of a tile is whole, cut, a single column, or missing.
"""

from __future__ import annotations

from itertools import cycle

import numpy as np
import pytest
from accuracy import MODES, ORDERS
from gpu_executor import Device, Kernels
from rdm import correlate, layers
from split import PRODUCTS, exact_distances
from test_split_gram import ROUNDING, data, distances

# (layers, n, m or None for y = x, d)
SHAPES = [
    *((1, 1, None, 3), (2, 129, None, 33), (1, 256, None, 40), (1, 257, None, 33), (1, 385, None, 20)),
    *((1, 5, 128, 64), (1, 130, 129, 100), (2, 3, 256, 31), (1, 129, 257, 161), (1, 2, 600, 40)),
]
ROWS_OF_THREE_BLOCKS = (2, 1, 300, 40, 33)  # layers of x, of y, n, d, e: six tiles, four wide ones


@pytest.fixture
def accesses(monkeypatch) -> list[int]:
    """Return the list to which every call of a launcher adds the accesses that were checked."""
    seen, call = [], Kernels.call

    def counted(self, name, *arguments, **options):
        call(self, name, *arguments, **options)
        seen.append(self.accesses)

    monkeypatch.setattr(Kernels, "call", counted)
    return seen


def both(monkeypatch, run):
    """Results of run() with tiles of 128 x 128 and with wide ones."""
    monkeypatch.delenv("BERTFT_TILE", raising=False)
    narrow = run()
    monkeypatch.setenv("BERTFT_TILE", "wide")
    return narrow, run()


def check(monkeypatch, shape, metric, **options):
    (x, exact_x), (y, exact_y) = data(shape)
    narrow, wide = both(monkeypatch, lambda: distances(x, y, metric, **options)[0])
    assert np.array_equal(wide, narrow)
    if wide.size and not options.get("condensed") and options.get("parts") != 1:
        exact = exact_distances(exact_x, exact_y, metric)
        assert np.abs(wide - exact).max() <= ROUNDING * np.abs(exact).max()


def test_same_bits_and_fewer_reads(monkeypatch, accesses):
    """Two blocks of columns are one wide tile; of two rows with themselves the second tile has no second half."""
    check(monkeypatch, (1, 4, 256, 33), "cosine")
    narrow, wide = (accesses[at] for at in (len(accesses) // 2 - 1, -1))
    assert wide < narrow  # four rows are copied for 256 columns at once
    check(monkeypatch, (2, 129, None, 33), "sqeuclidean", parts=1)
    (x, _), _ = layers((2, None, 129, 20, 20))
    kernels = Kernels("rdm_correlation.cu", "checked")
    narrow, wide = both(monkeypatch, lambda: correlate(kernels, x, None, "float32", "cosine", path="split")[0])
    assert np.array_equal(wide, narrow)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("parts", (1, 2))
def test_shapes_and_metrics(monkeypatch, mode, parts):
    for shape, metric in zip(SHAPES, cycle(PRODUCTS), strict=False):
        check(monkeypatch, shape, metric, mode=mode, parts=parts)
    for n in (2, 130, 257, 300):
        check(monkeypatch, (2, n, None, 33), "euclidean", mode=mode, parts=parts, condensed=True)


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_same_bits_in_every_order(monkeypatch, order):
    for shape in ((1, 257, None, 70), (1, 129, 257, 70)):
        check(monkeypatch, shape, "cosine", order=order, seed=2)


@pytest.mark.slow
def test_near_rows_in_the_second_half(monkeypatch):
    (x, _), _ = data((1, 300, None, 40))
    x[0, 200:210] = x[0, :10]
    narrow, wide = both(monkeypatch, lambda: distances(x, None, "sqeuclidean"))
    assert np.array_equal(wide[0], narrow[0])
    assert wide[1][0] == narrow[1][0] == 10
    assert not wide[0][0, range(10), range(200, 210)].any()


@pytest.mark.slow
def test_stages_that_fit(monkeypatch, accesses):
    """Four stages on an H100, three on an A100; where three do not fit tiles stay as they are."""
    (x, _), (y, _) = data((1, 4, 256, 200))
    narrow, wide = both(monkeypatch, lambda: (distances(x, y, "cosine")[0], accesses[-1]))
    for limit in (163, 99):
        out, _ = distances(x, y, "cosine", device=Device(shared_limit=limit << 10))
        assert np.array_equal(out, wide[0])
        assert (accesses[-1] < narrow[1]) == (limit == 163)
    assert wide[1] < narrow[1]


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("path", ("split", "fast"))
def test_correlations_by_groups_of_tiles(monkeypatch, mode, path):
    """Groups of six, four and one tile: a wide tile may belong to two of them."""
    kernels = Kernels("rdm_correlation.cu", mode)
    for compare, tiles in (("pearson", 6), ("pearson", 4), ("pearson", 1), ("spearman", 5)):
        (x, _), (y, _) = layers(ROWS_OF_THREE_BLOCKS)

        def run(x=x, y=y, compare=compare, tiles=tiles):
            return correlate(kernels, x, y, "float32", "cosine", compare, path=path, entries_bytes=tiles * 3 << 16)[0]

        narrow, wide = both(monkeypatch, run)
        assert np.array_equal(wide, narrow)
