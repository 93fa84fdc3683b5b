"""Rows that a metric cannot take, as sentences; and the gradient of bringing rows into a metric's form."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.ops.metrics import NORMALISED

Result = TypeVar("Result")
NAN = ("raise", "propagate")


def check_nan(nan: str, *, op: str) -> bool:
    """Whether bad rows are errors; BertftError unless ``nan`` is raise or propagate."""
    if nan not in NAN:
        raise BertftError(f"{op}: nan must be raise or propagate, not {nan!r}")
    return nan == "raise"


def check_matrix(x: Tensor, shape: str, dims: tuple[int, ...], *, op: str, name: str) -> None:
    """BertftError unless x is a floating tensor with one of ``dims`` dimensions; ``shape`` says which in words."""
    if x.dim() not in dims or not x.is_floating_point():
        raise BertftError(f"{op}: {name} must be floating {shape}, found {x.dtype} {tuple(x.shape)}")


def check_width(x: Tensor, metric: str, *, op: str, name: str) -> None:
    """Raise BertftError if the rows of x have no elements and ``metric`` needs their direction."""
    if x.shape[-1] == 0 and metric in NORMALISED:
        raise BertftError(f"{op}: {metric} needs rows of at least one number, found {name} of shape {tuple(x.shape)}")


def check_device(op: str, first: str, x: Tensor, **others: Tensor | None) -> None:
    """BertftError unless all ``others`` are on the device of ``x``, whose name is ``first``."""
    for name, tensor in others.items():
        if tensor is not None and tensor.device != x.device:
            raise BertftError(f"{op}: {name} must be on the device of {first}, {x.device}, found {tensor.device}")


def check_rows(x: Tensor, metric: str, *, op: str, name: str = "x") -> None:
    """For the plain-PyTorch way, x (N, D) or (L, N, D): the error that the kernels raise for a bad row.

    A row that is not finite; or of norm 0 under cosine, or constant (to 1e-13 of its norm) under correlation.
    """
    if torch.compiler.is_compiling() or x.numel() == 0:
        return
    rows = x.detach().double()
    bad, why = ~torch.isfinite(rows).all(-1), "holds NaN or infinity"
    if metric in NORMALISED and not bad.any():
        rows = rows / rows.abs().amax(-1, keepdim=True)  # NaN for a row of zeros
        norm = torch.linalg.vector_norm(rows, dim=-1)
        centred = rows - rows.mean(-1, keepdim=True) if metric == "correlation" else rows
        bad = ~(torch.linalg.vector_norm(centred, dim=-1) > (1e-13 * norm if metric == "correlation" else 0))
        why = "has norm 0, so its cosine or correlation is undefined"
    if bad.any():
        *layer, row = bad.nonzero()[0].tolist()
        where = f"row {row} of {name}" + (f" in layer {layer[0]}" if layer else "")
        raise BertftError(f"{op}: {where} {why}")


def with_sentence(call: Callable[[], Result], *, op: str | None = None, x: str = "x", y: str = "y") -> Result:
    """``call()``; a kernel's error about a row becomes BertftError with the kernel's own sentence.

    ``op``, ``x`` and ``y`` say what they are to the caller, such as ``x="x in layer 3"``.
    """
    if torch.compiler.is_compiling():
        return call()
    try:
        return call()
    except (RuntimeError, BertftError) as error:
        found = re.search("<bertft>(.*?)</bertft>", str(error))
        if found is None and isinstance(error, RuntimeError):
            raise
        sentence = found[1] if found else str(error)
        sentence = re.sub(" of ([xy]) ", lambda name: f" of {x if name[1] == 'x' else y} ", sentence)
        raise BertftError(re.sub("^[a-z_]+", op, sentence) if op else sentence) from None


def metric_rows_backward(x: Tensor, grad: Tensor, metric: str) -> Tensor:
    """Gradient of `reference.metric_rows` with respect to x (..., N, D), in the dtype of ``grad``."""
    if metric not in NORMALISED:
        return grad
    x = x.to(grad.dtype)
    if metric == "correlation":
        x = x - x.mean(-1, keepdim=True)
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    unit = x / norm
    out = (grad - unit * (unit * grad).sum(-1, keepdim=True)) / norm
    return out - out.mean(-1, keepdim=True) if metric == "correlation" else out
