"""Where work runs that nobody placed."""

from __future__ import annotations

import torch


def device_of(asked: torch.device | str | None = None) -> torch.device:
    """The device that was asked for, else the current GPU where there is one, else the CPU."""
    found = torch.device(asked or ("cuda" if torch.cuda.is_available() else "cpu"))
    if found.type == "cuda" and found.index is None:
        return torch.device("cuda", torch.cuda.current_device())  # as tensors there say it
    return found
