"""Kernels as functions of tensors.

    bertft.ops.<op>                     checks arguments; owns shape rule and gradient
     |
     +-- native.dispatch.serves(x)?     compiled kernels for the tensor's device
          |
          +-- yes: torch.ops.bertft.<op>
          |         +-- CPU: csrc/bind_cpu.cpp  -> csrc/cpu/<op>.cpp     (native.cpu loads it)
          |         +-- GPU: csrc/bind_cuda.cpp -> csrc/cuda/<op>.cu     (native.cuda loads it)
          |
          +-- no:  reference.<op>       plain PyTorch, and the specification of the kernels

    pairwise_distance                                       distances of rows
    probe_loss                          probe_gradient      losses of structural probes
    moments.cross_moments               moments.gradient    sums over stimuli in linear time
     +-- moments.formulas                                   statistics over all pairs from those sums
          +-- moments.layer_pairs       all layers against all: moments.linear_cka, rdm.routes
    rdm.correlation -> rdm.routes       linear (moments), tiles (kernel or rdm.products), exact, sampled
    nearest                             running lists of nearest neighbours
    precision, parts                    float32, fast or float64 products; those without a compiler

The ops know nothing of models. ``torch.autocast`` does not change their results.
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
