"""Checks of rows, and the gradient of preparing them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from bertft.errors import BadRow, BertftError
from bertft.ops.metrics import NORMALISED

Result = TypeVar("Result")
NAN = ("raise", "propagate")


def check_nan(nan: str, *, op: str) -> bool:
    """Return whether bad rows are errors; raise BertftError unless ``nan`` is raise or propagate."""
    if nan not in NAN:
        raise BertftError(f"{op}: nan must be raise or propagate, not {nan!r}")
    return nan == "raise"


def check_matrix(x: Tensor, shape: str, dims: tuple[int, ...], *, op: str, name: str) -> None:
    """Raise BertftError unless x is a floating tensor with one of ``dims`` dimensions.

    The error describes those as ``shape``.
    """
    if x.dim() not in dims or not x.is_floating_point():
        raise BertftError(f"{op}: {name} must be floating {shape}, found {x.dtype} {tuple(x.shape)}")


def check_width(x: Tensor, metric: str, *, op: str, name: str) -> None:
    """Raise BertftError if the rows of x have no elements and ``metric`` needs their direction."""
    if x.shape[-1] == 0 and metric in NORMALISED:
        raise BertftError(f"{op}: {metric} needs rows of at least one number, found {name} of shape {tuple(x.shape)}")


def check_device(op: str, first: str, x: Tensor, **others: Tensor | None) -> None:
    """Raise BertftError unless all ``others`` are on the device of ``x``, which errors call ``first``."""
    for name, tensor in others.items():
        if tensor is not None and tensor.device != x.device:
            raise BertftError(f"{op}: {name} must be on the device of {first}, {x.device}, found {tensor.device}")


def check_rows(x: Tensor, metric: str, *, op: str, name: str = "x", layer: int | None = None) -> None:
    """Raise the `BadRow` that a kernel would raise for x (N, D) or (L, N, D), if none is available.

    A row is bad if it is not finite, if it has norm 0 under cosine, or if it is constant (to 1e-13 of its norm) under
    correlation. ``layer`` is the index of an x (N, D) among others.
    """
    if torch.compiler.is_compiling() or x.numel() == 0:
        return
    rows = x.detach().double()
    bad, reason = ~torch.isfinite(rows).all(-1), "not_finite"
    if metric in NORMALISED and not bad.any():
        rows = rows / rows.abs().amax(-1, keepdim=True)  # NaN for a row of zeros
        norm = torch.linalg.vector_norm(rows, dim=-1)
        centred = rows - rows.mean(-1, keepdim=True) if metric == "correlation" else rows
        bad = ~(torch.linalg.vector_norm(centred, dim=-1) > (1e-13 * norm if metric == "correlation" else 0))
        reason = "no_norm"
    if bad.any():
        *layers, row = bad.nonzero()[0].tolist()
        raise BadRow(op, name, row, layers[0] if layers else layer, reason)


_BAD_ROW = re.compile(r"bertft bad row: op=(\w+) side=([xy]) row=(\d+) layer=(-?\d+) reason=(\w+)")


def raising_bad_row(kernel: Callable[[], Result]) -> Result:
    """Return ``kernel()``; raise `BadRow` for a row that the kernel refuses (``csrc/bad_row.h``)."""
    if torch.compiler.is_compiling():
        return kernel()
    try:
        return kernel()
    except RuntimeError as error:
        found = _BAD_ROW.search(str(error))
        if found is None:
            raise
        op, side, row, layer, reason = found.groups()
        raise BadRow(op, side, int(row), int(layer) if int(layer) >= 0 else None, reason) from None


def metric_rows_backward(x: Tensor, grad: Tensor, metric: str) -> Tensor:
    """Return the gradient of `reference.metric_rows` with respect to x (..., N, D), in the dtype of ``grad``."""
    if metric not in NORMALISED:
        return grad
    x = x.to(grad.dtype)
    if metric == "correlation":
        x = x - x.mean(-1, keepdim=True)
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    unit = x / norm
    out = (grad - unit * (unit * grad).sum(-1, keepdim=True)) / norm
    return out - out.mean(-1, keepdim=True) if metric == "correlation" else out


def as_tensor(x: Tensor | np.ndarray) -> Tensor:
    """Return a tensor unchanged, an array as a tensor on the same memory, or a copy where torch cannot share it."""
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
