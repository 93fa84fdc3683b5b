"""What went wrong, in one sentence: shared by the ops that turn NaN and infinity into errors."""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor

from bertft.errors import BertftError


def explain_not_finite(op: str, result: Tensor, **inputs: Tensor) -> NoReturn:
    """Raises BertftError for a ``result`` (L, ...) that is not finite: names the first input at fault, and where.

    Inputs are searched in the order given; the last dimension of those with more than one is left out of the place,
    so that h (L, T, D) is reported as ``h[layer, row]``.
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
