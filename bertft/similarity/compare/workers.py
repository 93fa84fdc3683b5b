"""Processes that share one comparison.

They exchange their sums at its end.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertft.errors import BertftError

if TYPE_CHECKING:
    from bertft.similarity.compare.comparison import Comparison

PATIENCE = datetime.timedelta(hours=12)  # of the first process to finish, for the last


@dataclass(frozen=True)
class Team:
    """Process ``rank`` of ``size``."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes the results."""
        return self.rank == 0

    def owns(self, buffer: int) -> bool:
        """Return whether this process encodes the text's buffer of this number."""
        return buffer % self.size == self.rank

    def least(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """Return the smallest of each of ``sizes`` over the processes, which must divide a text alike."""
        if self.size == 1:
            return sizes
        import torch.distributed as dist

        found: list[Any] = [None] * self.size
        try:
            dist.all_gather_object(found, sizes)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:120]
            raise BertftError(f"process {self.rank} of {self.size}: another process was lost ({reason})") from None
        return tuple(map(min, zip(*found, strict=True)))

    def add_up(self, comparison: Comparison, kept: str) -> None:
        """Give every process the sums, and the first one the reservoir, of the whole text.

        Takes one all-reduce of each accumulator, whose means all processes share. The sampled sentences go to the first
        process only. ``kept`` is the folder of the processes' own sums, for the error if one of them is lost.
        """
        if self.size == 1:
            return
        import torch.distributed as dist

        try:
            for table in comparison.sums.values():
                for moments in table.values():
                    moments.all_reduce()
            comparison.massive.add_up()
            reservoir = comparison.reservoir
            lists: list[Any] = [None] * self.size
            dist.all_gather_object(lists, (comparison.sentences, reservoir.listing()))
            comparison.sentences = sum(sentences for sentences, _ in lists)
            chosen = reservoir.best_of([entry for _, listing in lists for entry in listing])
            parts: list[Any] | None = [None] * self.size if self.leads else None
            dist.gather_object(reservoir.only(chosen), parts)
            if parts is not None:
                comparison.reservoir = reservoir.of_parts(*parts)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:120]
            raise BertftError(
                f"process {self.rank} of {self.size}: another process was lost while the sums were added ({reason}); "
                f"the sums of every process are kept in {kept}; rerun the same command to resume"
            ) from None


ALONE = Team()


@contextlib.contextmanager
def team() -> Iterator[Team]:
    """Yield the processes started by torchrun, or by anything that sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT.

    The exchange uses Gloo on any device of the encoders, because sums are float64 on the CPU.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    import torch.distributed as dist

    rank = int(os.environ["RANK"])
    try:
        dist.init_process_group("gloo", rank=rank, world_size=size, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise BertftError(f"process {rank} of {size}: cannot connect to the others ({error})") from None
    try:
        yield Team(rank, size)
    finally:
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()


def own_device() -> str | None:
    """Return this process's GPU if a launcher has started several processes on one machine, else None."""
    import torch

    local = os.environ.get("LOCAL_RANK")
    if local is None or not torch.cuda.is_available():
        return None
    return f"cuda:{int(local) % torch.cuda.device_count()}"
