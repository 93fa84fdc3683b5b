"""Checks of probe losses, and errors of non-finite results."""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.ops.rows import check_device


def explain_not_finite(op: str, result: Tensor, **inputs: Tensor) -> NoReturn:
    """Raise BertftError for a ``result`` (L, ...) that is not finite, naming the first bad input and the place in it.

    Inputs are searched in the order given. The place leaves out the last dimension of an input with more than one, so
    that h (L, T, D) is reported as ``h[layer, row]``.
    """
    for name, tensor in inputs.items():
        if not tensor.is_floating_point():
            continue
        bad = ~torch.isfinite(tensor.detach())
        if bad.dim() > 1:
            bad = bad.any(dim=-1)
        if bad.any():
            place = ", ".join(str(int(i)) for i in bad.nonzero()[0])
            count = int(bad.sum())
            more = f" (and {count - 1} more)" if count > 1 else ""
            raise BertftError(f"{op}: {name}[{place}] is not finite{more}")
    layer = int((~torch.isfinite(result.detach())).nonzero()[0, 0])
    raise BertftError(f"{op}: the result of layer {layer} overflows {result.dtype} although every input is finite")


def check_probe(h: Tensor, weight: Tensor, distances: Tensor | None, depths: Tensor | None, lengths: Tensor) -> None:
    """Raise BertftError for arguments of the probe losses that do not fit.

    While torch.compile traces, the values of lengths are not checked.
    """
    if weight.dim() != 3 or weight.shape[2] == 0:
        raise BertftError(f"probe_loss: weight must be (L, D, R) with R > 0, found {tuple(weight.shape)}")
    L, D, _ = weight.shape
    if h.dim() not in (2, 3) or h.shape[-1] != D or (h.dim() == 3 and h.shape[0] != L):
        expected = f"(T, {D}) or ({L}, T, {D})"
        raise BertftError(f"probe_loss: h must be {expected} to go with weight, found {tuple(h.shape)}")
    if not (h.is_floating_point() and weight.is_floating_point()):
        raise BertftError(f"probe_loss: h and weight must be floating, found {h.dtype} and {weight.dtype}")
    if h.device != weight.device:
        raise BertftError(f"probe_loss: h and weight must be on one device, found {h.device} and {weight.device}")
    check_device("probe_loss", "h", h, distances=distances, depths=depths)
    if lengths.dim() != 1 or lengths.is_floating_point() or lengths.device.type != "cpu":
        found = f"{lengths.dtype} {tuple(lengths.shape)} on {lengths.device}"
        raise BertftError(f"probe_loss: lengths must be a vector of integers on the CPU, found {found}")
    T = h.shape[-2]
    if depths is not None and depths.shape != (T,):
        raise BertftError(f"probe_loss: depths must be ({T},), one for each word, found {tuple(depths.shape)}")
    if distances is not None and distances.dim() != 1:
        raise BertftError(f"probe_loss: distances must be packed in one dimension, found {tuple(distances.shape)}")
    if torch.compiler.is_compiling():
        return  # the kernel refuses lengths that do not fit
    counts = lengths.tolist()
    if min(counts, default=0) < 0:
        raise BertftError(f"probe_loss: lengths[{counts.index(min(counts))}] is negative ({min(counts)})")
    if sum(counts) != T:
        raise BertftError(f"probe_loss: lengths sum to {sum(counts)}, but h has {T} words")
    pairs = sum(n * n for n in counts)
    if distances is not None and distances.shape[0] != pairs:
        raise BertftError(f"probe_loss: distances must have {pairs} entries (sum n^2), found {distances.shape[0]}")
