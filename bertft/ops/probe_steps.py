"""Steps of a training of probes on a GPU.

What a training repeats is done once: words are split into halves, sentences are planned. A step then reads nothing back
from the device and waits for nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bertft.ops import tensor_cores

LEAST_RANK = 64  # columns from which tensor cores serve, as in csrc/bind_cuda_split.h


class SplitWords(NamedTuple):
    """Vectors of T words on a GPU, each number a sum of two halves (csrc/cuda/split_across.cuh).

    ``halves`` (L, P, C, 2, 32) float16 has T rounded up to P rows, of which those from T on need only be finite;
    ``largest`` (L,) int32 gives the power of two of each layer.
    """

    halves: Tensor
    largest: Tensor
    words: int


class Plan(NamedTuple):
    """Sentences as the kernel takes them: ``tiles`` on the device, ``counts`` on the CPU."""

    tiles: Tensor
    counts: Tensor


def serve(h: Tensor, rank: int) -> bool:
    """Return whether split words of the size of h (L, T, D) make steps of probes of this rank faster on its device."""
    return rank >= LEAST_RANK and h.dtype != torch.float64 and tensor_cores.serve(h)


def split_words(h: Tensor) -> SplitWords:
    """Return the words of h (L, T, D) float32, float16 or bfloat16, for which `serve` is true."""
    halves, largest = torch.ops.bertft.probe_words(h)
    return SplitWords(halves, largest, h.shape[1])


def plan(lengths: Tensor) -> Plan:
    """Return the plan of sentences of ``lengths`` (S,) int64, on the CPU."""
    return Plan(*torch.ops.bertft.probe_plan(lengths))


def step(
    words: SplitWords, weight: Tensor, distances: Tensor | None, depths: Tensor | None, plan: Plan, distance_rank: int
) -> tuple[Tensor, Tensor]:
    """Return losses (L, 2) and the gradient (L, D, R) of their sum in ``weight`` (L, D, R) float32.

    The arguments are those of `bertft.ops.probe_loss_and_gradient`. A loss that is not finite is returned.
    """
    return _call(words, weight, distances, depths, plan, distance_rank, True)


def loss(
    words: SplitWords, weight: Tensor, distances: Tensor | None, depths: Tensor | None, plan: Plan, distance_rank: int
) -> Tensor:
    """Return the losses (L, 2) of `step` alone."""
    return _call(words, weight, distances, depths, plan, distance_rank, False)[0]


def _call(
    words: SplitWords,
    weight: Tensor,
    distances: Tensor | None,
    depths: Tensor | None,
    plan: Plan,
    distance_rank: int,
    with_gradient: bool,
) -> tuple[Tensor, Tensor]:
    nothing = weight.new_empty(0)
    distances = nothing if distances is None else distances if distances.dtype == torch.uint8 else distances.float()
    depths = nothing if depths is None else depths.float()
    return torch.ops.bertft.probe_step(*words, weight, distance_rank, distances, depths, *plan, with_gradient, False)
