"""NumPy arrays where tensors are taken."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bertft.errors import BertftError


def as_tensor(x: Tensor | np.ndarray) -> Tensor:
    """A tensor as it is; of an array the same memory, or a copy where torch could not take that."""
    if isinstance(x, Tensor):
        return x
    array = np.asarray(x)
    native, size = array.dtype.newbyteorder("="), max(1, array.itemsize)
    if not array.flags.writeable or array.dtype != native or any(s < 0 or s % size for s in array.strides):
        array = array.astype(native, order="C")
    try:
        return torch.from_numpy(array)
    except (TypeError, ValueError):
        raise BertftError(f"similarity: expected an array of numbers, found one of {array.dtype}") from None
