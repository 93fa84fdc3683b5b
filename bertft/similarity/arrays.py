"""NumPy arrays where tensors are taken."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bertft.errors import BertftError


def as_tensor(x: Tensor | np.ndarray) -> Tensor:
    """A tensor as it is; of an array the same memory, or a copy where it is read-only or runs backwards."""
    if isinstance(x, Tensor):
        return x
    array = np.asarray(x)
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()
    try:
        return torch.from_numpy(array)
    except TypeError:
        raise BertftError(f"similarity: expected an array of numbers, found one of {array.dtype}") from None
