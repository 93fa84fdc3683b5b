"""The k largest entries of every row and column of a matrix that comes tile by tile: lists of nearest neighbours."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from bertft.ops import reference
from bertft.ops.native import cpu as extension


class Best(NamedTuple):
    """``value`` (lines, k), -infinity where fewer than k came, and ``place`` (lines, k) int64, numbers along a line."""

    value: Tensor
    place: Tensor

    @classmethod
    def none(cls, like: Tensor, lines: int, k: int) -> Best:
        """Empty lists of the type and device of ``like``."""
        return cls(like.new_full((lines, k), -math.inf), like.new_zeros((lines, k), dtype=torch.int64))

    def of(self, first: int, count: int) -> Best:
        """Those of ``count`` lines from ``first`` on: views."""
        return Best(self.value[first : first + count], self.place[first : first + count])


def take_nearest(tile: Tensor, rows: Best, columns: Best | None = None, *, row: int = 0, column: int = 0) -> None:
    """Let ``tile`` (m, n) into the lists ``rows`` of its m rows, and in the same pass ``columns`` of its n columns.

    ``row`` and ``column`` are the numbers of the tile's first row and column in the whole matrix. The tile is
    contiguous, float32 or float64, and holds no NaN; lists are changed in place, the order within one is free. Of equal
    entries any may stay.
    """
    if tile.device.type == "cpu" and extension.load():
        down = columns if columns is not None else Best(tile.new_empty(0), rows.place.new_empty(0))
        torch.ops.bertft.nearest(tile, *rows, column, *down, row)
        return
    reference.take_nearest(tile, *rows, column)
    if columns is not None:
        reference.take_nearest(tile.mT, *columns, row)


def _register() -> None:
    torch.library.register_fake("bertft::nearest", lambda *_: None)


extension.on_load(_register)
