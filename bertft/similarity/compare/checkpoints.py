"""Checkpoints and interruptions of a streamed comparison."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

from torch import Tensor

from bertft.errors import BertftError
from bertft.runs.checkpoint import Checkpoint

if TYPE_CHECKING:
    from bertft.similarity.compare.comparison import Comparison
    from bertft.similarity.compare.workers import Team

SHARE = 0.02  # of a run's time that its checkpoints may take
RATE = 5e8  # bytes a second of a checkpoint, until one has been written

Batch = TypeVar("Batch")


class Resumable(Protocol):
    """A pass through stimuli that can be saved between two batches."""

    comparison: Comparison
    team: Team

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the tensors and JSON values to resume from."""


class Pace:
    """When to write the next checkpoint.

    One is due ``every`` seconds, but only once all checkpoints, the next included, stay within `SHARE` of the run's
    time. The price of the next is that of the last one or, before the first, follows from its size. With ``every`` 0
    each batch is followed by one.
    """

    def __init__(self, every: float) -> None:
        self.every, self.begun = every, time.monotonic()
        self.last, self.spent, self.price = self.begun, 0.0, 0.0

    def due(self, comparison: Comparison) -> bool:
        """Return whether a checkpoint of ``comparison`` should be written now."""
        now = time.monotonic()
        if now - self.last < self.every:
            return False
        price = self.price or bytes_of(comparison) / RATE
        return self.every == 0 or self.spent + price <= SHARE * (now - self.begun + price)

    def note(self, begun: float) -> None:
        """Note a checkpoint written from ``begun`` until now."""
        self.last = time.monotonic()
        self.price = self.last - begun
        self.spent += self.price


def bytes_of(comparison: Comparison) -> int:
    """Return the bytes of a checkpoint of ``comparison``: its sums and its sample."""
    sums = sum(moments.nbytes for table in comparison.sums.values() for moments in table.values())
    return sums + sum(tensor.nbytes for tensor in comparison.reservoir.state()[0].values())


def checkpointed(
    run: Resumable, batches: Iterable[Batch], checkpoint: Checkpoint | None, every: float, asked: Sequence[int]
) -> Iterator[Batch]:
    """Yield each of ``batches``, which advance ``run``.

    Saves at the pace of `Pace`, and saves and stops when ``asked`` holds a signal.
    """
    pace = Pace(every)
    for batch in batches:
        yield batch
        if asked:
            _save_and_stop(run, asked[0], checkpoint)
        if checkpoint and pace.due(run.comparison):
            begun = time.monotonic()
            checkpoint.save(*run.state())
            pace.note(begun)
    if asked:  # while the end was looked for
        _save_and_stop(run, asked[0], checkpoint)


@contextlib.contextmanager
def asked_to_stop() -> Iterator[list[int]]:
    """Yield a list to which SIGINT and SIGTERM append their number; a second signal interrupts at once.

    Raises:
        KeyboardInterrupt: A signal came twice, or too late to be seen inside.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        raise KeyboardInterrupt


def _save_and_stop(run: Resumable, number: int, checkpoint: Checkpoint | None) -> NoReturn:
    team = run.team
    if checkpoint:
        checkpoint.save(*run.state())
    if number == signal.SIGTERM and team.size > 1 and checkpoint:
        raise BertftError(
            f"process {team.rank} of {team.size} was stopped, as happens when another process is lost; its sums "
            f"are kept in {checkpoint.folder}; rerun the same command to resume"
        )
    raise KeyboardInterrupt
