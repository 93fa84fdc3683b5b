"""Default device."""

from __future__ import annotations

import torch


def device_of(asked: torch.device | str | None = None) -> torch.device:
    """Return the device ``asked`` for; without one, the current GPU if there is one, else the CPU.

    A GPU always has an index, as the ``device`` of a tensor has.
    """
    device = torch.device(asked or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def sent_to(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor of the CPU on ``device``; the host does not wait for the copy to a GPU."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
