"""Structural probes (Hewitt and Manning 2019): distance and depth, all layers in one training loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bertft.data.examples import Sentence
from bertft.errors import BertftError
from bertft.models.devices import device_of
from bertft.ops.probe_loss import depth_probe_loss, distance_probe_loss, probe_loss, probe_loss_and_gradient
from bertft.probes.structural.trees import packed_trees
from bertft.probes.vectors import Room, Vectors, on_device
from bertft.runs.artefacts import NOTHING, Unfinished
from bertft.runs.progress import SILENT, Progress

LEARNING_RATE = 1e-3
DECAY = 0.1
PATIENCE = 5  # epochs without an improvement of IMPROVEMENT until a probe stops
IMPROVEMENT = 1e-4
BATCH = 20
KINDS = ("distance", "depth")


@dataclass
class Probes:
    """Trained probes of all layers.

    ``weights`` (2, L, D, R), distance then depth, the B of d_ij = |B'(h_i - h_j)|^2 and of depth |B'h_i|^2;
    ``dev_loss`` (2, L) of these weights; ``epochs`` (2, L) how many each probe was trained.
    """

    weights: Tensor
    dev_loss: Tensor
    epochs: Tensor


class Trees:
    """Gold distances and depths of a corpus, packed a sentence at a time as the losses take them."""

    def __init__(self, sentences: Sequence[Sentence]) -> None:
        self.distances, self.depths = packed_trees(sentences)

    def batch(self, sentences: Sequence[int], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
        """Packed distances (sum n^2,) and depths (T,) on ``device``, and lengths (S,) of some sentences."""
        return (
            torch.from_numpy(np.concatenate([self.distances[i] for i in sentences])).to(device),
            torch.from_numpy(np.concatenate([self.depths[i] for i in sentences])).to(device),
            torch.tensor([len(self.depths[i]) for i in sentences]),
        )


class Schedule:
    """The published schedule, for each of P probes apart: decay, best weights, stop."""

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights  # (P, ...), trained in place
        self.gradients = torch.zeros_like(weights)  # of the next step
        self.best = weights.clone()
        self.lowest = torch.full((len(weights),), torch.inf, dtype=torch.float64)  # of the stopping rule
        self.plateau = self.lowest.clone()  # of the decay rule
        self.last_gain = [-1] * len(weights)
        self.active = [True] * len(weights)
        self.epochs = torch.zeros(len(weights), dtype=torch.int64)
        self.parts = list(weights)  # views, one a probe: Adam writes through them
        for part, gradient in zip(self.parts, self.gradients, strict=True):
            part.grad = gradient
        self.rates = [LEARNING_RATE] * len(weights)
        self.optimizer = torch.optim.Adam(self.parts, lr=LEARNING_RATE, fused=True)

    def step(self) -> None:
        """One step of Adam on the probes that still train."""
        self.optimizer.step()

    def end_epoch(self, epoch: int, losses: Tensor) -> None:
        """Take the dev losses (P,) of an epoch; those of probes that have stopped are not read."""
        for probe, loss in enumerate(losses.tolist()):
            if not self.active[probe]:
                continue
            self.epochs[probe] = epoch + 1
            if loss < self.plateau[probe] * (1 - IMPROVEMENT):
                self.plateau[probe] = loss
            else:
                self.rates[probe] *= DECAY
                self.optimizer.state.pop(self.parts[probe], None)
            if loss < self.lowest[probe] - IMPROVEMENT:
                self.lowest[probe] = loss
                self.last_gain[probe] = epoch
                self.best[probe] = self.weights[probe]
            elif epoch - self.last_gain[probe] >= PATIENCE:
                self.active[probe] = False
                self.parts[probe].grad = None
        self._regroup()

    def _regroup(self) -> None:
        # One group a rate, not one a probe: a step costs a call for every group.
        common = self.optimizer.param_groups[0]
        self.optimizer.param_groups = [
            {**common, "lr": rate, "params": [p for p, own in zip(self.parts, self.rates, strict=True) if own == rate]}
            for rate in dict.fromkeys(self.rates)
        ]

    def state(self) -> dict[str, Tensor]:
        """All that the next epoch depends on."""
        found = {
            "weights": self.weights,
            "best": self.best,
            "lowest": self.lowest,
            "plateau": self.plateau,
            "last_gain": torch.tensor(self.last_gain),
            "active": torch.tensor(self.active),
            "epochs": self.epochs,
            "rates": torch.tensor(self.rates, dtype=torch.float64),
        }
        for probe, part in enumerate(self.parts):
            for name, value in self.optimizer.state.get(part, {}).items():
                found[f"adam.{probe}.{name}"] = value
        return found

    def restore(self, state: dict[str, Tensor]) -> None:
        """Be what ``state`` was taken of."""
        for name in ("weights", "best", "lowest", "plateau", "epochs"):
            getattr(self, name).copy_(state[name])
        self.last_gain, self.active = state["last_gain"].tolist(), state["active"].tolist()
        self.rates = state["rates"].tolist()
        for probe, part in enumerate(self.parts):
            if not self.active[probe]:
                part.grad = None
            prefix = f"adam.{probe}."
            own = {
                name.removeprefix(prefix): value.to(part.device)
                for name, value in state.items()
                if name.startswith(prefix)
            }
            if own:
                self.optimizer.state[part] = own
        self._regroup()

    def resume(self, unfinished: Unfinished, order: np.random.Generator) -> int:
        """The epoch to begin with: 0, or the one after the last that was kept, whose state is restored."""
        found = unfinished.found(order)
        if found is None:
            return 0
        self.restore(found[1])
        return found[0]


def train_probes(
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
) -> Probes:
    """Train a distance and a depth probe on every layer, together, on ``device`` (default: the GPU if there is one).

    As published: B uniform in (-0.05, 0.05); L1 loss normalised by squared length (depth: by length), mean over the
    sentences of a batch of 20; Adam at 1e-3; after an epoch whose dev loss is not lower than the best by a factor
    1 - 1e-4 (the scheduler's rule, patience 0) the probe's learning rate falls to a tenth and its Adam state is reset;
    the weights of the best dev loss are kept; a probe stops after 5 epochs without an improvement of 1e-4, or after
    ``epochs``. Each probe has its own schedule; those that have stopped cost nothing. All layers start from the same B
    and see the same batches, in an order drawn with ``seed``. What ``unfinished`` holds is gone on with. The probes
    that are returned are on the CPU.
    """
    layers, width = train.layers, train.width
    if rank < 1 or epochs < 1:
        raise BertftError(f"structural probes: rank and epochs must be positive, found {rank} and {epochs}")
    there = device_of(device)
    train, dev = on_device(train, there), on_device(dev, there)
    start = initial(width, rank, seed).repeat(1, layers, 1, 1).view(2 * layers, width, rank)
    schedule = Schedule(start.to(there))
    room = Room()
    columns = _Columns(layers, room)

    def learn(members: list[int], kinds: tuple[int, ...], chosen: list[int]) -> None:
        weights = columns.take(schedule.weights, kinds, chosen)
        h, distances, depths, lengths = batch_of(train, train_trees, members, kinds, chosen, room)
        _, gradients = probe_loss_and_gradient(
            h, weights, distances, depths, lengths, distance_rank=rank if len(kinds) == 2 else None
        )
        columns.give(gradients, schedule.gradients, kinds, chosen)

    def measure() -> Tensor:
        return _dev_losses(dev, dev_trees, schedule, room)

    size = (len(train.lengths), layers)
    fit(schedule, size, learn, measure, epochs, seed, "train probes", progress, unfinished)
    shape = (2, layers)
    return Probes(
        schedule.best.cpu().view(*shape, width, rank), schedule.lowest.view(shape), schedule.epochs.view(shape)
    )


def fit(
    schedule: Schedule,
    size: tuple[int, int],
    learn: Callable[[list[int], tuple[int, ...], list[int]], None],
    measure: Callable[[], Tensor],
    epochs: int,
    seed: int,
    title: str,
    progress: Progress,
    unfinished: Unfinished,
) -> None:
    """Train the probes of a schedule until they have stopped, on ``size`` (sentences, layers), gone on with if cut off.

    ``learn(sentences, kinds, layers)`` sets the gradients of a batch for a group of probes (`groups_of`), ``measure()``
    gives the dev losses (P,) after an epoch.
    """
    sentences, layers = size
    order = np.random.default_rng(seed)
    done = schedule.resume(unfinished, order)
    with progress.step(title, total=(epochs - done) * sentences, unit="sentences") as step:
        for epoch in range(done, epochs):
            shuffled, groups = order.permutation(sentences), groups_of(schedule.active, layers)
            for first in range(0, sentences, BATCH):
                members = shuffled[first : first + BATCH].tolist()
                for kinds, chosen in groups:
                    learn(members, kinds, chosen)
                schedule.step()
                step.advance(len(members))
            schedule.end_epoch(epoch, measure())
            step.note(f"epoch {epoch + 1}, {sum(schedule.active)} of {len(schedule.active)} probes left")
            if not any(schedule.active):
                break
            unfinished.keep(epoch, schedule.state(), order)


def initial(width: int, rank: int, seed: int) -> Tensor:
    """(2, 1, D, R) the B that distance and depth probes start from, uniform in (-0.05, 0.05)."""
    return (torch.rand(2, 1, width, rank, generator=torch.Generator().manual_seed(seed)) - 0.5) / 10


def groups_of(active: Sequence[bool], layers: int) -> list[tuple[tuple[int, ...], list[int]]]:
    """Active layers by the kinds that still train there: both in one call, then each alone."""
    wanted: dict[tuple[int, ...], list[int]] = {}
    for layer in range(layers):
        kinds = tuple(kind for kind in (0, 1) if active[kind * layers + layer])
        if kinds:
            wanted.setdefault(kinds, []).append(layer)
    return list(wanted.items())


class _Columns:
    """Weights and gradients as the losses have them, (L', D, kinds * R) with distance before depth, and back.

    Kind by kind, layer by layer they are (2 * L, D, R); of a group (`groups_of`) only some of these are wanted.
    """

    def __init__(self, layers: int, room: Room) -> None:
        self.layers, self.room = layers, room

    def take(self, weights: Tensor, kinds: Sequence[int], chosen: Sequence[int]) -> Tensor:
        """The weights (2 * L, D, R) of a group, side by side."""
        _, width, rank = weights.shape
        parts = [weights[kind * self.layers :][: self.layers] for kind in kinds]
        if len(chosen) < self.layers:
            parts = [part[list(chosen)] for part in parts]
        shape = (len(chosen), width, len(kinds) * rank)
        return torch.cat(parts, dim=2, out=self.room.take("weights", *shape, device=weights.device))

    def give(self, gradients: Tensor, into: Tensor, kinds: Sequence[int], chosen: Sequence[int]) -> None:
        """Put a group's gradients (L', D, kinds * R) where they belong in (2 * L, D, R)."""
        for kind, own in zip(kinds, gradients.chunk(len(kinds), dim=2), strict=True):
            place = into[kind * self.layers :][: self.layers]
            if len(chosen) < self.layers:
                place[list(chosen)] = own
            else:
                place.copy_(own)


def batch_of(
    data: Vectors,
    trees: Trees,
    members: Sequence[int],
    kinds: tuple[int, ...],
    layers: list[int],
    room: Room,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor]:
    """h (L, T, D) float32, packed distances, depths (those that ``kinds`` learn from) and lengths of some sentences."""
    h = data.batch(members, torch.tensor(layers), room=room)
    distances, depths, lengths = trees.batch(members, h.device)
    return h, distances if 0 in kinds else None, depths if 1 in kinds else None, lengths


@torch.no_grad()
def _dev_losses(data: Vectors, trees: Trees, schedule: Schedule, room: Room) -> Tensor:
    """(P,) float64 mean over dev sentences; infinite for probes that have stopped."""
    sentences = len(data.lengths)
    totals = torch.zeros(len(schedule.active), dtype=torch.float64, device=schedule.weights.device)
    for kinds, chosen in groups_of(schedule.active, data.layers):
        probes = [kind * data.layers + layer for kind in kinds for layer in chosen]
        distance, depth = (schedule.weights[[kind * data.layers + k for k in chosen]] for kind in (0, 1))
        for first in range(0, sentences, BATCH):
            members = range(first, min(first + BATCH, sentences))
            h, distances, depths, lengths = batch_of(data, trees, members, kinds, chosen, room)
            if distances is not None and depths is not None:
                losses = probe_loss(h, distance, depth, distances, depths, lengths).T.flatten()
            elif distances is not None:
                losses = distance_probe_loss(h, distance, distances, lengths)
            else:
                assert depths is not None
                losses = depth_probe_loss(h, depth, depths, lengths)
            totals[probes] += losses.double() * len(members)
    losses = totals.cpu() / sentences
    losses[[not active for active in schedule.active]] = torch.inf
    return losses


@torch.no_grad()
def predict(
    probes: Probes, data: Vectors, sentences: int = 256, *, device: torch.device | str | None = None
) -> tuple[Tensor, Tensor]:
    """Projected words (L, T, R) of the distance probes and depths (L, T) of the depth probes, float32, on the CPU.

    Computed on ``device`` (default: the GPU if there is one).
    """
    there = device_of(device)
    data, (distance, depth) = on_device(data, there), probes.weights.to(there)
    points, depths = [], []
    for first in range(0, len(data.lengths), sentences):
        h = data.batch(range(first, min(first + sentences, len(data.lengths))))
        points.append((h @ distance).cpu())
        depths.append((h @ depth).square().sum(-1).cpu())
    return torch.cat(points, dim=1), torch.cat(depths, dim=1)
