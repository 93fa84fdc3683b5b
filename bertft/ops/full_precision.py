"""Exact float32 matrix products on the GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def full_precision(like: Tensor) -> Iterator[None]:
    """Keep products on the GPU of ``like`` in full float32 inside the block; do nothing on a CPU.

    Both tf32 (``torch.backends.cuda.matmul``) and autocast are turned off. Fine-tuning may allow them for speed, but
    they would cost a correlation half its digits.
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
