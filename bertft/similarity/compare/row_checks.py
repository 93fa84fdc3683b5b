"""Checks of rows on a GPU, whose outcome is read one batch later."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bertft.similarity.compare.comparison import Comparison

SMALL = 1e-10  # centred norm over norm, squared, below which float32 cannot tell whether a row is constant


class RowChecks:
    """Checks of the rows that a comparison adds.

    The kernels refuse a bad row before they add anything, for which the host waits for the GPU once per layer and
    metric. On a GPU the sums therefore take rows unchecked, one flag per batch says whether a row may be bad, and the
    flag is read when the next batch begins, or before the sums are used.
    """

    def __init__(self, comparison: Comparison) -> None:
        self._comparison = comparison
        self._waiting: tuple[Tensor, torch.cuda.Event, Callable[[], object]] | None = None

    def begin(self, spaces: Sequence[Tensor], explain: Callable[[], object]) -> None:
        """Begin to check the rows of ``spaces`` (L, T, D), after the end of the check before.

        ``explain`` raises the error of a bad row. It is called if there may be one, when the rows have been added.
        """
        self.settle()
        if not all(space.is_cuda for space in spaces):
            return
        metrics = set[str]()
        for table in self._comparison.sums.values():
            metrics.update(table)
            for moments in table.values():
                moments.nan = "propagate"
        flag = may_be_bad(spaces, metrics).to("cpu", non_blocking=True)
        done = torch.cuda.Event()
        done.record(torch.cuda.current_stream(spaces[0].device))
        self._waiting = flag, done, explain

    def settle(self) -> None:
        """Wait for the last check; raise its error."""
        if self._waiting is None:
            return
        (flag, done, explain), self._waiting = self._waiting, None
        done.synchronize()
        if flag.item():
            explain()


def may_be_bad(spaces: Sequence[Tensor], metrics: set[str]) -> Tensor:
    """Return one flag, a bool on the device of the ``spaces`` (L, T, D): False if no row is bad under the ``metrics``.

    A row is bad as in `bertft.ops.rows.check_rows`. The squares are taken in float32, so that the flag may also be True
    for rows whose squares overflow or vanish, or that are nearly constant.
    """
    flags = []
    for space in spaces:
        rows = space.float()
        squares = rows.square().sum(-1)
        bad = ~squares.isfinite()
        if "correlation" in metrics:
            bad |= ~((rows - rows.mean(-1, keepdim=True)).square().sum(-1) > SMALL * squares)
        elif "cosine" in metrics:
            bad |= squares == 0
        flags.append(bad.any())
    return torch.stack([flag.to(flags[0].device) for flag in flags]).any()
