"""Training that goes on where it was killed: everything the next epoch depends on, kept after each epoch."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from bertft.runs.digests import digest
from bertft.runs.rows import write_bytes_atomically


class Unfinished:
    """The file of one training, at ``path`` (None keeps nothing), and what it is a training of, ``config``.

    ``every`` is how many seconds of work may be lost: a state that comes sooner after the last one is not kept.
    """

    def __init__(self, path: Path | None, config: dict[str, Any], every: float = 0.0) -> None:
        self.path, self.config, self.every = path, json.dumps(config, sort_keys=True), every
        self._last = time.monotonic()

    def keep(self, epoch: int, state: dict[str, Tensor], order: np.random.Generator, *, last: bool = False) -> None:
        """Replace the file by the state after ``epoch`` (counted from 0) and where the order of batches stands.

        The ``last`` state is kept whenever it comes. What counts epochs may be any piece of work.
        """
        if self.path is not None and (last or time.monotonic() - self._last >= self.every):
            from safetensors.torch import save

            state = {name: tensor.cpu() for name, tensor in state.items()}
            about = {"config": self.config, "epoch": str(epoch), "order": json.dumps(order.bit_generator.state)}
            about["sha256"] = digest(state, json.dumps(about, sort_keys=True))
            write_bytes_atomically(self.path, save(state, about))
            self._last = time.monotonic()

    def found(self, order: np.random.Generator) -> tuple[int, dict[str, Tensor]] | None:
        """The epoch to go on with and the state before it, with ``order`` set to where it stood.

        None to begin: nothing was kept, it is of another training, or the file is damaged.
        """
        from safetensors import SafetensorError, safe_open

        if self.path is None or not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                about = dict(file.metadata() or {})
                written = about.pop("sha256")
                if about.get("config") != self.config:
                    return None
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if digest(state, json.dumps(about, sort_keys=True)) != written:
                return None
            order.bit_generator.state = json.loads(about["order"])
            return int(about["epoch"]) + 1, state
        except (OSError, ValueError, KeyError, SafetensorError):
            return None

    def of(self, **part: int) -> Unfinished:
        """The same file for a training that is one of several."""
        return Unfinished(self.path, {**json.loads(self.config), **part}, self.every)

    def remove(self) -> None:
        """Once the training's result is kept."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


NOTHING = Unfinished(None, {})
