"""Batches that a comparison adds, on a GPU one batch late."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from bertft.similarity.compare.comparison import Comparison
from bertft.similarity.sinks import Beyond

Batch = tuple[Tensor, Tensor, Sequence[Tensor], Callable[[int], str]]


class LateBatches:
    """Batches of a comparison, added when it is known which of their rows are massive activations.

    For that the host would wait for a GPU in every batch. There, the answer is on its way to the CPU while the next
    batch is encoded, and the batch is added after that.
    """

    def __init__(self, comparison: Comparison) -> None:
        self._comparison = comparison
        self._waiting: tuple[Batch, Beyond | None] | None = None

    def add(self, index: Tensor, lengths: Tensor, spaces: Sequence[Tensor], text: Callable[[int], str]) -> None:
        """Add the batch that waits, and this one, now or when the next comes; the arguments of `Comparison.update`."""
        self.settle()
        if not on_gpu(spaces):
            self._comparison.update(index, lengths, spaces, text)
            return
        massive = self._comparison.massive
        massive.fit(spaces)
        self._waiting = (index, lengths, spaces, text), massive.beyond(spaces)

    def settle(self) -> None:
        """Add the batch that waits."""
        if self._waiting is None:
            return
        (batch, beyond), self._waiting = self._waiting, None
        self._comparison.add(*batch, None if beyond is None else beyond.layers())


def on_gpu(spaces: Sequence[Tensor]) -> bool:
    """Return whether all vectors are on a GPU."""
    return all(space.is_cuda for space in spaces)
