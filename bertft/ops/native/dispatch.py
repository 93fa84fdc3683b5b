"""The choice between compiled kernels and plain PyTorch."""

from __future__ import annotations

from torch import Tensor

from bertft.ops.native import cpu, cuda


def serves(tensor: Tensor) -> bool:
    """Return whether a compiled kernel takes this tensor: it is on the CPU, or on a GPU, and its kernels are in use.

    The first call for a device loads the kernels, and compiles them if need be.
    """
    if tensor.is_cuda:
        return cuda.load()
    return tensor.is_cpu and cpu.load()
