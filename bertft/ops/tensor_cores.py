"""Float32 products over a GPU's float16 tensor cores."""

from __future__ import annotations

import torch
from torch import Tensor

from bertft.ops.native import dispatch


def serve(x: Tensor, y: Tensor | None = None) -> bool:
    """Return whether products of the rows of x (L, N, D), and of y, are formed from halves on this card.

    That needs compiled kernels and tensor cores several times as fast as float32 (``BERTFT_CORE``, docs/gpu.md). While
    torch traces a graph the answer is no: it depends on the card.
    """
    traced = torch.compiler.is_compiling() or type(x) is not Tensor
    return not traced and x.is_cuda and dispatch.serves(x) and bool(torch.ops.bertft.split_core(x, y))
