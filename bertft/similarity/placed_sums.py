"""Sums that live beside the rows they are added from."""

from __future__ import annotations

import torch
from torch import Tensor


class PlacedSums:
    """Tensors by name, on the CPU or, newer than those, on the GPU that adds rows to them.

    The sums of a chunk take too many bytes to move from a GPU at each update, so that they stay there until they are
    needed on the CPU.
    """

    def __init__(self, tensors: dict[str, Tensor] | None = None) -> None:
        self._settled = tensors or {}
        self._ahead: dict[str, Tensor] = {}

    def __bool__(self) -> bool:
        return bool(self._settled)

    @property
    def on_gpu(self) -> bool:
        """Whether the newest sums are on a GPU."""
        return bool(self._ahead)

    def latest(self, name: str) -> Tensor:
        """Return the newest tensor of this name, wherever it is."""
        return (self._ahead or self._settled)[name]

    def settle(self) -> dict[str, Tensor]:
        """Return the sums on the CPU, fetched from the GPU if they are ahead there.

        Drops the GPU's tensors, because the caller may change those returned.
        """
        if self._ahead:
            self._settled.update({name: tensor.cpu() for name, tensor in self._ahead.items()})
            self._ahead = {}
        return self._settled

    def on(self, device: torch.device) -> dict[str, Tensor]:
        """Return the sums to which rows on ``device`` are added.

        Those are on the CPU if the device is, or if they would take more than a quarter of a GPU's free memory.
        """
        if device.type == "cpu" or (self._ahead and self.latest("mean_x").device != device):
            self.settle()
        if device.type == "cpu":
            return self._settled
        if not self._ahead:
            if sum(tensor.nbytes for tensor in self._settled.values()) > torch.cuda.mem_get_info(device)[0] // 4:
                return self._settled
            self._ahead = {name: tensor.to(device) for name, tensor in self._settled.items()}
        return self._ahead
