"""Distance between the weights of two encoders, by block."""

from __future__ import annotations

import math

from torch import nn

from bertft.errors import BertftError
from bertft.models.blocks import blocks, embedding_parameters
from bertft.models.devices import in_float64


def weight_distance(base: nn.Module, tuned: nn.Module) -> list[float]:
    """Return |W' - W| / |W| for the embeddings (entry 0) and blocks 1..L.

    W holds all parameters of a part of ``base``, W' those of ``tuned``; |.| is the Frobenius norm, in float64. 0 means
    unchanged. If ``tuned`` has fewer blocks, only those are compared.

    Raises:
        BertftError: if the parameters of a part differ in shape.
    """
    pairs = [(list(embedding_parameters(base)), list(embedding_parameters(tuned)))]
    pairs += [(list(a.parameters()), list(b.parameters())) for a, b in zip(blocks(base), blocks(tuned), strict=False)]
    distances = []
    for layer, (old, new) in enumerate(pairs):
        if [p.shape for p in old] != [p.shape for p in new]:
            raise BertftError(f"weight_distance: the encoders' parameters differ in shape at layer {layer}")
        moved = sum(float((in_float64(b) - in_float64(a)).square().sum()) for a, b in zip(old, new, strict=True))
        size = sum(float(in_float64(a).square().sum()) for a in old)
        distances.append(math.sqrt(moved / size))
    return distances
