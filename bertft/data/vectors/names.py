"""Names and types of the arrays in a file of vectors."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bertft.errors import BertftError

WHOLE = ("vectors", "hidden_states")  # of an array of all layers
IDS, GROUPS = ("ids", "id"), ("groups", "group")


def floats(path: object, name: str, kind: str, floating: bool) -> None:
    """Raise BertftError for an array of vectors that are not floating-point numbers."""
    if not floating and name not in (*IDS, *GROUPS):
        raise BertftError(f"{path}: expected floating-point vectors, found {kind} in {name!r}")


def as_floats(rows: np.ndarray) -> Tensor:
    """Return a copy of ``rows`` in native byte order."""
    return torch.from_numpy(np.array(rows, dtype=rows.dtype.newbyteorder("="), order="C"))
