"""RBF-kernel structural probes.

Their distances saturate (White, Pimentel, Saphra and Cotterell 2021):

    k(x, y) = exp(-|B'(x - y)|^2 / w),  w = 2 sigma^2
    d_ij = w/2 (k(h_i, h_i) - 2 k(h_i, h_j) + k(h_j, h_j)) = w (1 - k(h_i, h_j)),  depth_i = w (1 - k(h_i, 0))

The kernel's own squared distance, 2 - 2k, has the maximum 2, while distances in a tree are larger. The factor w/2 and
depths as distances from the origin are choices of this module. B absorbs any other scale, so one number learned beside
B suffices. As w grows, d approaches the linear probe's |B'(h_i - h_j)|^2. For every w, d is an increasing function of
that distance. DSpr, NSpr, UUAS and root accuracy depend on the order alone, so the kernel matters only through the B
that is learned.
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
from bertft.probes.structural.training import BATCH, Corpus, Probes, Schedule, batch_of, fit, groups_of, initial
from bertft.probes.vectors import Workspace
from bertft.runs.artefacts import NOTHING, Unfinished
from bertft.runs.progress import SILENT, Progress

START = 16.0  # first w, above most distances in a sentence, so that the probe starts almost linear


@dataclass
class RbfProbes(Probes):
    """RBF-kernel probes; ``widths`` (2, L) is the w of each distance and depth probe."""

    widths: Tensor


def train_rbf(
    train: Corpus,
    dev: Corpus,
    *,
    rank: int = 128,
    epochs: int = 40,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: Progress = SILENT,
    unfinished: Unfinished = NOTHING,
) -> RbfProbes:
    """Train an RBF-kernel distance and depth probe on every layer, all in one loop of plain PyTorch.

    Losses, batches, first B, schedule, ``device`` and ``unfinished`` are those of
    `bertft.probes.structural.training.train_probes`. log w has B's learning rate. Early stopping is the only
    regularisation.
    """
    layers, width = train.vectors.layers, train.vectors.width
    if rank < 1 or epochs < 1:
        raise BertftError(f"structural probes: rank and epochs must be positive, found {rank} and {epochs}")
    there = device_of(device)
    train, dev = train.on(there), dev.on(there)
    start = initial(width, rank, seed).repeat(1, layers, 1, 1).view(2 * layers, width * rank)
    schedule = Schedule(torch.cat([start, torch.full((2 * layers, 1), math.log(START))], dim=1).to(there))
    workspace = Workspace()

    def learn(members: list[int], kinds: tuple[int, ...], chosen: list[int]) -> None:
        probes = [kind * layers + layer for kind in kinds for layer in chosen]
        parameters = schedule.weights[probes].requires_grad_()
        material = batch_of(train, members, kinds, chosen, workspace)
        (slope,) = torch.autograd.grad(losses(parameters, *material).sum(), parameters)
        schedule.gradients[probes] = slope

    def measure() -> Tensor:
        return _dev_losses(dev, schedule, workspace)

    size = (len(train.vectors.lengths), layers)
    fit(schedule, size, learn, measure, epochs, seed, "train RBF probes", progress, unfinished)
    return RbfProbes(
        schedule.best[:, :-1].reshape(2, layers, width, rank).cpu(),
        schedule.lowest.view(2, layers),
        schedule.epochs.view(2, layers),
        schedule.best[:, -1].exp().view(2, layers).cpu(),
    )


def losses(parameters: Tensor, h: Tensor, distances: Tensor | None, depths: Tensor | None, lengths: Tensor) -> Tensor:
    """Return the losses (P,) of the distance probes, the depth probes, or both, distance first, of L layers.

    As for linear probes, a loss is the mean over sentences of the absolute errors' sum divided by n^2 (depth: by n).

    Args:
        parameters: (P, D * R + 1), B row by row and then log w.
        h: (L, T, D).
        distances: (sum n^2,) packed gold distances; None without distance probes.
        depths: (T,) gold depths; None without depth probes.
        lengths: (S,) words of each sentence.
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
    """Return the losses (L,) from points (L, T, R) and w (L,)."""
    device, longest = points.device, int(lengths.max())
    place, lengths = torch.arange(longest, device=device), lengths.to(device)
    there = place < lengths.unsqueeze(1)  # (S, n)
    numbers = ((lengths.cumsum(0) - lengths).unsqueeze(1) + place).clamp(max=points.shape[1] - 1)
    p = points[:, numbers]  # (L, S, n, R)
    apart = pairwise_distance(p, metric="sqeuclidean")
    pairs = there.unsqueeze(2) & there.unsqueeze(1)
    gold = torch.zeros(pairs.shape, dtype=points.dtype, device=device)
    gold[pairs] = distances.to(points.dtype)
    # A word's distance to itself is 0; without rounding errors it has no gradient.
    counted = (pairs & (place.unsqueeze(1) != place)).to(points.dtype)
    share = counted / (lengths.square() * len(lengths)).view(-1, 1, 1)
    return ((_saturated(apart, scale.view(-1, 1, 1, 1)) - gold).abs() * share).sum((1, 2, 3))


def _depth_loss(points: Tensor, scale: Tensor, depths: Tensor, lengths: Tensor) -> Tensor:
    """Return the losses (L,) from points (L, T, R) and w (L,)."""
    share = (lengths * len(lengths)).to(points.dtype).reciprocal().repeat_interleave(lengths).to(points.device)
    error = _saturated(points.square().sum(-1), scale.unsqueeze(1)) - depths.to(points.dtype)
    return (error.abs() * share).sum(1)


def _saturated(squared: Tensor, scale: Tensor) -> Tensor:
    """Return w (1 - exp(-squared / w)), accurate for small squared distances too."""
    return -scale * torch.expm1(-squared / scale)


@torch.no_grad()
def _dev_losses(corpus: Corpus, schedule: Schedule, workspace: Workspace) -> Tensor:
    """Return the mean losses (P,) over the dev sentences, float64; infinite for stopped probes."""
    sentences, layers = len(corpus.vectors.lengths), corpus.vectors.layers
    totals = torch.full((len(schedule.active),), torch.inf, dtype=torch.float64, device=schedule.weights.device)
    for kinds, chosen in groups_of(schedule.active, layers):
        probes = [kind * layers + layer for kind in kinds for layer in chosen]
        totals[probes] = 0
        for first in range(0, sentences, BATCH):
            members: Sequence[int] = range(first, min(first + BATCH, sentences))
            material = batch_of(corpus, members, kinds, chosen, workspace)
            totals[probes] += losses(schedule.weights[probes], *material).double() * len(members)
    return totals.cpu() / sentences
