"""Devices of models and of their layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from bertft.models.blocks import blocks


def device_of(asked: torch.device | str | None = None) -> torch.device:
    """Return the device ``asked`` for; without one, the current GPU if there is one, else the CPU.

    A GPU always has an index, as the ``device`` of a tensor has.
    """
    device = torch.device(asked or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def encoder_device(asked: torch.device | str | None = None) -> torch.device:
    """Return the device ``asked`` for; without one, a GPU if there is one, of Apple's too (``mps``), else the CPU."""
    if asked is None and not torch.cuda.is_available() and torch.backends.mps.is_available():
        return torch.device("mps")
    return device_of(asked)


def vector_device(device: torch.device) -> torch.device:
    """Return the device of the vectors of a model on ``device``: the same, but the CPU for ``mps``.

    ``mps`` has no float64. Its memory is that of the CPU, whose kernels multiply float32 rows and sum in float64.
    """
    return torch.device("cpu") if device.type == "mps" else device


def in_float64(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor in float64, on its device if that has float64, else on the CPU."""
    return tensor.detach().to(vector_device(tensor.device)).double()


def main_device(model: nn.Module) -> torch.device:
    """Return the device that a model's inputs and results are on: that of its first weights.

    Weights that accelerate keeps on the CPU or the disk, and moves for each pass, count for the first GPU.
    """
    device = next(model.parameters()).device
    placed: Any = getattr(model, "hf_device_map", None)
    return device_of("cuda") if device.type == "meta" or (placed and _offloaded(placed, device)) else device


def _offloaded(placed: dict[str, Any], device: torch.device) -> bool:
    return device.type == "cpu" and any(isinstance(where, int) for where in placed.values())


def layer_devices(model: nn.Module) -> list[torch.device]:
    """Return the device of the vectors of each layer 0..L of a model that accelerate may have spread over several."""
    main, found = main_device(model), [main_device(model)]
    for block in blocks(model):
        own = next(block.parameters()).device
        found.append(main if own.type in ("meta", "cpu") else own)
    return [vector_device(device) for device in found]


def sent_to(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor of the CPU on ``device``; the host does not wait for the copy to a GPU."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
