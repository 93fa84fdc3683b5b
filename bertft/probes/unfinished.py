"""Training that goes on where it was killed: everything the next epoch depends on, kept after each epoch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from bertft.results import write_bytes_atomically
from bertft.seal import digest


class Unfinished:
    """The file of one training, at ``path`` (None keeps nothing), and what it is a training of, ``config``."""

    def __init__(self, path: Path | None, config: dict[str, Any]) -> None:
        self.path, self.config = path, json.dumps(config, sort_keys=True)

    def keep(self, epoch: int, state: dict[str, Tensor], order: np.random.Generator) -> None:
        """Replace the file by the state after ``epoch`` (counted from 0) and where the order of batches stands."""
        if self.path is not None:
            from safetensors.torch import save

            about = {"config": self.config, "epoch": str(epoch), "order": json.dumps(order.bit_generator.state)}
            about["sha256"] = digest(state, json.dumps(about, sort_keys=True))
            write_bytes_atomically(self.path, save(state, about))

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

    def remove(self) -> None:
        """Once the training's result is kept."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


NOTHING = Unfinished(None, {})
