"""The kernels as functions: pure tensor operations that know nothing of models.

Each op has one file here (checks, shape rule, autograd), a kernel in ``csrc`` and its formula in plain PyTorch in
`bertft.ops.reference`, which serves where no compiled kernel does. Inside ``torch.autocast`` all give what they give
outside it.
"""

from __future__ import annotations

from bertft.ops.moments.cross_moments import cross_moments, provisional_mean
from bertft.ops.moments.linear_cka import linear_cka
from bertft.ops.pairwise_distance import pairwise_distance
from bertft.ops.probe_loss import depth_probe_loss, distance_probe_loss, probe_loss, probe_loss_and_gradient
from bertft.ops.rdm.correlation import rdm_correlation

__all__ = [
    "cross_moments",
    "depth_probe_loss",
    "distance_probe_loss",
    "linear_cka",
    "pairwise_distance",
    "probe_loss",
    "probe_loss_and_gradient",
    "provisional_mean",
    "rdm_correlation",
]
