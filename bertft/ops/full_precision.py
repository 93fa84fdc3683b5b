"""Matrix products of float32 in float32, whatever the process allows elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def full_precision(like: Tensor) -> Iterator[None]:
    """Inside, no product on the GPU of ``like`` is rounded to tf32; autocast is left out too. Nothing on a CPU.

    What fine-tuning may allow for speed (``torch.backends.cuda.matmul``, ``bf16``) would cost a correlation half its
    digits.
    """
    if not like.is_cuda or torch.compiler.is_compiling():
        yield
        return
    matmul = torch.backends.cuda.matmul
    rounded = matmul.fp32_precision == "tf32"
    if rounded:
        matmul.fp32_precision = "ieee"
    try:
        with torch.autocast("cuda", enabled=False):
            yield
    finally:
        if rounded:
            matmul.fp32_precision = "tf32"
