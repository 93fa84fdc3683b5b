"""The k largest entries per row and column of a matrix.

The matrix comes tile by tile.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from bertft.ops import reference
from bertft.ops.native import cpu


class Best(NamedTuple):
    """Largest entries so far of some lines of a matrix.

    ``value`` (lines, k) is -infinity where fewer than k entries came. ``place`` (lines, k) int64 are positions in the
    line.
    """

    value: Tensor
    place: Tensor

    @classmethod
    def none(cls, like: Tensor, lines: int, k: int) -> Best:
        """Return empty lists with the dtype and device of ``like``."""
        return cls(like.new_full((lines, k), -math.inf), like.new_zeros((lines, k), dtype=torch.int64))

    def of(self, first: int, count: int) -> Best:
        """Return views of the ``count`` lines from ``first`` on."""
        return Best(self.value[first : first + count], self.place[first : first + count])


def take_nearest(tile: Tensor, rows: Best, columns: Best | None = None, *, row: int = 0, column: int = 0) -> None:
    """Merge ``tile`` (m, n) into the lists ``rows`` of its m rows and, in the same pass, ``columns`` of its n columns.

    Args:
        tile: contiguous, float32 or float64, without NaN.
        rows: lists of the tile's rows, changed in place. Entries of a list are in no particular order, and among equal
            entries any may stay.
        columns: lists of the tile's columns, changed in place.
        row: position of the tile's first row in the whole matrix.
        column: position of its first column.
    """
    if tile.device.type == "cpu" and cpu.load():
        down = columns if columns is not None else Best(tile.new_empty(0), rows.place.new_empty(0))
        torch.ops.bertft.nearest(tile, *rows, column, *down, row)
        return
    reference.take_nearest(tile, *rows, column)
    if columns is not None:
        reference.take_nearest(tile.mT, *columns, row)


def _register() -> None:
    torch.library.register_fake("bertft::nearest", lambda *_: None)


cpu.on_load(_register)
