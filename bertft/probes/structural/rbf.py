"""Structural probes with an RBF kernel (White, Pimentel, Saphra and Cotterell 2021): their distances level off.

    k(x, y) = exp(-|B'(x - y)|^2 / w),  w = 2 sigma^2
    d_ij = w/2 (k(h_i, h_i) - 2 k(h_i, h_j) + k(h_j, h_j)) = w (1 - k(h_i, h_j)),  depth_i = w (1 - k(h_i, 0))

The kernel's own distance, 2 - 2k, ends at 2, and a tree's go further: the factor w/2 is this module's choice, and so
are depths as distances from the origin. B takes up any other scale of either, so that one number beside B, learned with
it, is enough, and as w grows d becomes the plain probe's |B'(h_i - h_j)|^2. d rises with that for every w: DSpr, NSpr,
UUAS and the root, which ask for order alone, are those of B, and the kernel changes which B is learned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.models.devices import device_of
from bertft.ops import pairwise_distance
from bertft.probes.structural.training import BATCH, Probes, Schedule, Trees, batch_of, fit, groups_of, initial
from bertft.probes.vectors import Room, Vectors, on_device
from bertft.runs.artefacts import NOTHING, Unfinished
from bertft.runs.progress import SILENT, Progress

START = 16.0  # of w: most distances within sentences are below it, so that the probe begins nearly as the plain one


@dataclass
class RbfProbes(Probes):
    """Probes with ``widths`` (2, L), the w of each distance and depth probe."""

    widths: Tensor


def train_rbf(
    train: Vectors,
    train_trees: Trees,
    dev: Vectors,
    dev_trees: Trees,
    *,
    rank: int = 128,
    epochs: int = 40,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: Progress = SILENT,
    unfinished: Unfinished = NOTHING,
) -> RbfProbes:
    """Train an RBF-kernel distance and depth probe on every layer, together, in plain PyTorch.

    Losses, batches, first B, schedule and end are those of `bertft.probes.structural.training.train_probes`; log w has
    B's learning rate. Stopping early is the only regularisation. What ``unfinished`` holds is gone on with.
    """
    layers, width = train.layers, train.width
    if rank < 1 or epochs < 1:
        raise BertftError(f"structural probes: rank and epochs must be positive, found {rank} and {epochs}")
    there = device_of(device)
    train, dev = on_device(train, there), on_device(dev, there)
    start = initial(width, rank, seed).repeat(1, layers, 1, 1).view(2 * layers, width * rank)
    schedule = Schedule(torch.cat([start, torch.full((2 * layers, 1), math.log(START))], dim=1).to(there))
    room = Room()

    def learn(members: list[int], kinds: tuple[int, ...], chosen: list[int]) -> None:
        probes = [kind * layers + layer for kind in kinds for layer in chosen]
        parameters = schedule.weights[probes].requires_grad_()
        material = batch_of(train, train_trees, members, kinds, chosen, room)
        (slope,) = torch.autograd.grad(losses(parameters, *material).sum(), parameters)
        schedule.gradients[probes] = slope

    def measure() -> Tensor:
        return _dev_losses(dev, dev_trees, schedule, room)

    size = (len(train.lengths), layers)
    fit(schedule, size, learn, measure, epochs, seed, "train RBF probes", progress, unfinished)
    return RbfProbes(
        schedule.best[:, :-1].reshape(2, layers, width, rank).cpu(),
        schedule.lowest.view(2, layers),
        schedule.epochs.view(2, layers),
        schedule.best[:, -1].exp().view(2, layers).cpu(),
    )


def losses(parameters: Tensor, h: Tensor, distances: Tensor | None, depths: Tensor | None, lengths: Tensor) -> Tensor:
    """(P,) losses of distance probes, of depth probes, or of distance and then depth probes of the L layers.

    ``parameters`` (P, D * R + 1): B row by row and then log w; ``h`` (L, T, D); packed ``distances`` (sum n^2,) and
    ``depths`` (T,) of sentences of ``lengths`` (S,), None for the kind that is not asked for. As for the plain probes,
    sums of absolute errors over n^2 pairs or n words, and their mean over sentences.
    """
    layers, _, width = h.shape
    kinds = [gold for gold in (distances, depths) if gold is not None]
    found = []
    for gold, own in zip(kinds, parameters.chunk(len(kinds)), strict=True):
        points = torch.bmm(h, own[:, :-1].reshape(layers, width, -1))
        scale = own[:, -1].exp()
        found.append((_distance_loss if gold is distances else _depth_loss)(points, scale, gold, lengths))
    return torch.cat(found)


def _distance_loss(points: Tensor, scale: Tensor, distances: Tensor, lengths: Tensor) -> Tensor:
    """(L,) from points (L, T, R) and w (L,)."""
    device, longest = points.device, int(lengths.max())
    place, lengths = torch.arange(longest, device=device), lengths.to(device)
    there = place < lengths.unsqueeze(1)  # (S, n)
    numbers = ((lengths.cumsum(0) - lengths).unsqueeze(1) + place).clamp(max=points.shape[1] - 1)
    p = points[:, numbers]  # (L, S, n, R)
    apart = pairwise_distance(p, metric="sqeuclidean")
    pairs = there.unsqueeze(2) & there.unsqueeze(1)
    gold = torch.zeros(pairs.shape, dtype=points.dtype, device=device)
    gold[pairs] = distances.to(points.dtype)
    # A word's distance to itself is 0 in the tree and here: rounding must not push it.
    counted = (pairs & (place.unsqueeze(1) != place)).to(points.dtype)
    share = counted / (lengths.square() * len(lengths)).view(-1, 1, 1)
    return ((_levelled(apart, scale.view(-1, 1, 1, 1)) - gold).abs() * share).sum((1, 2, 3))


def _depth_loss(points: Tensor, scale: Tensor, depths: Tensor, lengths: Tensor) -> Tensor:
    """(L,) from points (L, T, R) and w (L,)."""
    share = (lengths * len(lengths)).to(points.dtype).reciprocal().repeat_interleave(lengths).to(points.device)
    error = _levelled(points.square().sum(-1), scale.unsqueeze(1)) - depths.to(points.dtype)
    return (error.abs() * share).sum(1)


def _levelled(squared: Tensor, scale: Tensor) -> Tensor:
    """w (1 - exp(-squared / w)), exact for small squared distances too."""
    return -scale * torch.expm1(-squared / scale)


@torch.no_grad()
def _dev_losses(data: Vectors, trees: Trees, schedule: Schedule, room: Room) -> Tensor:
    """(P,) float64 mean over dev sentences; infinite for probes that have stopped."""
    sentences = len(data.lengths)
    totals = torch.full((len(schedule.active),), torch.inf, dtype=torch.float64, device=schedule.weights.device)
    for kinds, chosen in groups_of(schedule.active, data.layers):
        probes = [kind * data.layers + layer for kind in kinds for layer in chosen]
        totals[probes] = 0
        for first in range(0, sentences, BATCH):
            members: Sequence[int] = range(first, min(first + BATCH, sentences))
            material = batch_of(data, trees, members, kinds, chosen, room)
            totals[probes] += losses(schedule.weights[probes], *material).double() * len(members)
    return totals.cpu() / sentences
