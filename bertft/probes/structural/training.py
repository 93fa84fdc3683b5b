"""Training of linear structural probes.

Source: Hewitt and Manning 2019.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bertft.data.examples import Sentence
from bertft.errors import BertftError
from bertft.models.devices import device_of
from bertft.ops import probe_steps
from bertft.ops.probe_loss import depth_probe_loss, distance_probe_loss, probe_loss, probe_loss_and_gradient
from bertft.probes.structural.columns import Columns
from bertft.probes.structural.split import KeptBatch, Watch, check_finite, keep_batches, kept_losses, split_once
from bertft.probes.structural.trees import packed_trees
from bertft.probes.vectors import Vectors, Workspace, on_device, sent
from bertft.runs.artefacts import NOTHING, Unfinished
from bertft.runs.progress import SILENT, Progress

LEARNING_RATE = 1e-3
DECAY = 0.1
PATIENCE = 5  # epochs without an improvement of at least IMPROVEMENT before a probe stops
IMPROVEMENT = 1e-4
BATCH = 20
KINDS = ("distance", "depth")


@dataclass
class Probes:
    """Trained probes of all layers.

    ``weights`` (2, L, D, R), distance then depth, hold the B of the squared distance d_ij = |B'(h_i - h_j)|^2 and of
    the depth |B'h_i|^2. ``dev_loss`` (2, L) is the loss of these weights, ``epochs`` (2, L) how long each was trained.
    """

    weights: Tensor
    dev_loss: Tensor
    epochs: Tensor


class Trees:
    """Gold distances and depths of a corpus, packed sentence by sentence for the losses."""

    def __init__(self, sentences: Sequence[Sentence]) -> None:
        self.distances, self.depths = packed_trees(sentences)

    def batch(self, sentences: Sequence[int], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
        """Return packed distances (sum n^2,) and depths (T,) on ``device``, and lengths (S,), of some sentences."""
        return (
            sent(torch.from_numpy(np.concatenate([self.distances[i] for i in sentences])), device),
            sent(torch.from_numpy(np.concatenate([self.depths[i] for i in sentences])), device),
            torch.tensor([len(self.depths[i]) for i in sentences]),
        )


class Corpus(NamedTuple):
    """The sentences of a corpus: the vectors of their words, and their trees."""

    vectors: Vectors
    trees: Trees

    def on(self, device: torch.device) -> Corpus:
        """Return the corpus with its vectors on ``device`` if they fit there."""
        return Corpus(on_device(self.vectors, device), self.trees)


class Schedule:
    """The published schedule of decay, best weights and early stopping, for each of P probes independently."""

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights  # (P, ...), trained in place
        self.gradients = torch.zeros_like(weights)  # for the next step
        self.best = weights.clone()
        self.lowest = torch.full((len(weights),), torch.inf, dtype=torch.float64)  # best loss by the stopping rule
        self.plateau = self.lowest.clone()  # best loss by the decay rule
        self.last_gain = [-1] * len(weights)
        self.active = [True] * len(weights)
        self.epochs = torch.zeros(len(weights), dtype=torch.int64)
        self.parts = list(weights)  # one view for each probe; Adam writes through them
        for part, gradient in zip(self.parts, self.gradients, strict=True):
            part.grad = gradient
        self.rates = [LEARNING_RATE] * len(weights)
        self.optimizer = torch.optim.Adam(self.parts, lr=LEARNING_RATE, fused=True)

    def step(self) -> None:
        """Take one step of Adam on the active probes."""
        self.optimizer.step()

    def end_epoch(self, epoch: int, losses: Tensor) -> None:
        """Update the schedule from the dev losses (P,) of an epoch; those of stopped probes are ignored."""
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
        # One group per learning rate, not per probe: a step costs one call per group.
        common = self.optimizer.param_groups[0]
        self.optimizer.param_groups = [
            {**common, "lr": rate, "params": [p for p, own in zip(self.parts, self.rates, strict=True) if own == rate]}
            for rate in dict.fromkeys(self.rates)
        ]

    def state(self) -> dict[str, Tensor]:
        """Return everything that the next epoch depends on."""
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
        """Restore a state returned by `state`."""
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
        """Restore the last state that was kept; return the epoch to begin with, 0 if there was none."""
        found = unfinished.found(order)
        if found is None:
            return 0
        self.restore(found[1])
        return found[0]


def train_probes(
    train: Corpus,
    dev: Corpus,
    *,
    rank: int = 128,
    epochs: int = 40,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: Progress = SILENT,
    unfinished: Unfinished = NOTHING,
) -> Probes:
    """Train a distance and a depth probe on every layer, all in one loop.

    The training follows the published code:

    - B is uniform in (-0.05, 0.05), and the same for all layers.
    - The loss is the absolute error, divided by the squared length of the sentence (depth: by the length), and averaged
      over the sentences of a batch of 20. All layers see the same batches, in an order drawn with ``seed``.
    - Adam starts at 1e-3. If the dev loss of an epoch is not below the best times 1 - 1e-4 (the rule of PyTorch's
      scheduler with patience 0), the probe's learning rate falls to a tenth and its Adam state is reset.
    - A probe stops after 5 epochs without an improvement of 1e-4, or after ``epochs``, with the weights of its best dev
      loss. A stopped probe costs no more time.

    The work runs on ``device`` (default: the GPU if there is one) and resumes from the state in ``unfinished``. The
    probes returned are on the CPU.
    """
    layers, width = train.vectors.layers, train.vectors.width
    if rank < 1 or epochs < 1:
        raise BertftError(f"structural probes: rank and epochs must be positive, found {rank} and {epochs}")
    there = device_of(device)
    train, dev = train.on(there), dev.on(there)
    start = initial(width, rank, seed).repeat(1, layers, 1, 1).view(2 * layers, width, rank)
    schedule = Schedule(start.to(there))
    workspace, watch = Workspace(), Watch()
    columns, split = Columns(layers, workspace), split_once(train.vectors, rank)
    kept = keep_batches(dev.vectors, _batches(dev), lambda members: dev.trees.batch(members, there), rank)

    def learn(members: list[int], kinds: tuple[int, ...], chosen: list[int]) -> None:
        weights = columns.take(schedule.weights, kinds, chosen)
        ranks = rank if 0 in kinds else 0
        if split is None:
            h, distances, depths, lengths = batch_of(train, members, kinds, chosen, workspace)
            loss, gradients = probe_loss_and_gradient(
                h, weights, distances, depths, lengths, distance_rank=ranks, check_finite=not h.is_cuda
            )
        else:
            words, plan = split.batch(members, chosen, workspace)
            distances, depths, _ = targets_of(train, members, kinds, there)
            loss, gradients = probe_steps.step(words, weights, distances, depths, plan, ranks)
        watch.add(loss)
        columns.give(gradients, schedule.gradients, kinds, chosen)

    def measure() -> Tensor:
        watch.check()
        return _dev_losses(dev, kept, schedule, columns)

    size = (len(train.vectors.lengths), layers)
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
    """Train the probes of a schedule until all have stopped, resuming from the state in ``unfinished``.

    Args:
        schedule: the probes.
        size: number of training sentences and of layers.
        learn: ``learn(sentences, kinds, layers)`` sets the gradients of a batch for a group of probes (`groups_of`).
        measure: returns the dev losses (P,) after an epoch.
        epochs: most epochs.
        seed: seed of the order of batches.
        title: title of the progress bar.
        progress: receives progress.
        unfinished: where the state is kept after each epoch.
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
    """Return the first B of distance and depth probes (2, 1, D, R), uniform in (-0.05, 0.05)."""
    return (torch.rand(2, 1, width, rank, generator=torch.Generator().manual_seed(seed)) - 0.5) / 10


def groups_of(active: Sequence[bool], layers: int) -> list[tuple[tuple[int, ...], list[int]]]:
    """Group the layers by which of their two probes, distance (0) and depth (1), are active."""
    wanted: dict[tuple[int, ...], list[int]] = {}
    for layer in range(layers):
        kinds = tuple(kind for kind in (0, 1) if active[kind * layers + layer])
        if kinds:
            wanted.setdefault(kinds, []).append(layer)
    return list(wanted.items())


def batch_of(
    corpus: Corpus,
    members: Sequence[int],
    kinds: tuple[int, ...],
    layers: list[int],
    workspace: Workspace,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor]:
    """Return h (L', T, D) float32, the packed distances and depths, and the lengths, of the sentences ``members``.

    The distances or depths are None if no probe of ``kinds`` learns from them.
    """
    h = corpus.vectors.batch(members, torch.tensor(layers), workspace=workspace)
    return h, *targets_of(corpus, members, kinds, h.device)


def targets_of(
    corpus: Corpus, members: Sequence[int], kinds: tuple[int, ...], device: torch.device
) -> tuple[Tensor | None, Tensor | None, Tensor]:
    """Return the last three results of `batch_of`."""
    distances, depths, lengths = corpus.trees.batch(members, device)
    return distances if 0 in kinds else None, depths if 1 in kinds else None, lengths


def _batches(corpus: Corpus) -> list[range]:
    """Return the batches of sentences in order."""
    sentences = len(corpus.vectors.lengths)
    return [range(first, min(first + BATCH, sentences)) for first in range(0, sentences, BATCH)]


@torch.no_grad()
def _dev_losses(corpus: Corpus, kept: list[KeptBatch] | None, schedule: Schedule, columns: Columns) -> Tensor:
    """Return the mean losses (P,) over the dev sentences, float64; infinite for stopped probes."""
    groups = groups_of(schedule.active, columns.layers)
    if kept is None:
        totals = _summed_losses(corpus, schedule.weights, groups, columns.workspace)
    else:
        totals = kept_losses(kept, schedule.weights, groups, columns)
    losses = totals.cpu() / len(corpus.vectors.lengths)
    check_finite("dev", losses.sum())
    losses[[not active for active in schedule.active]] = torch.inf
    return losses


def _summed_losses(
    corpus: Corpus, weights: Tensor, groups: list[tuple[tuple[int, ...], list[int]]], workspace: Workspace
) -> Tensor:
    """Return the losses (P,) of the probes of ``groups``, summed over sentences; 0 for other probes."""
    layers = corpus.vectors.layers
    totals = torch.zeros(len(weights), dtype=torch.float64, device=weights.device)
    at_once = not totals.is_cuda  # a GPU would be waited for
    for kinds, chosen in groups:
        index = torch.tensor([kind * layers + layer for kind in kinds for layer in chosen], device=totals.device)
        distance, depth = (weights[[kind * layers + k for k in chosen]] for kind in (0, 1))
        for members in _batches(corpus):
            h, distances, depths, lengths = batch_of(corpus, members, kinds, chosen, workspace)
            if distances is not None and depths is not None:
                losses = probe_loss(h, distance, depth, distances, depths, lengths, check_finite=at_once).T.flatten()
            elif distances is not None:
                losses = distance_probe_loss(h, distance, distances, lengths, check_finite=at_once)
            else:
                assert depths is not None
                losses = depth_probe_loss(h, depth, depths, lengths, check_finite=at_once)
            totals.index_add_(0, index, losses.double() * len(members))
    return totals


@torch.no_grad()
def predict(
    probes: Probes, data: Vectors, sentences: int = 256, *, device: torch.device | str | None = None
) -> tuple[Tensor, Tensor]:
    """Return the words projected by the distance probes (L, T, R) and the depths by the depth probes (L, T).

    Both are float32 and on the CPU. The work runs on ``device`` (default: the GPU if there is one), ``sentences`` at a
    time.
    """
    there = device_of(device)
    data, (distance, depth) = on_device(data, there), probes.weights.to(there)
    points, depths = [], []
    for first in range(0, len(data.lengths), sentences):
        h = data.batch(range(first, min(first + sentences, len(data.lengths))))
        points.append((h @ distance).cpu())
        depths.append((h @ depth).square().sum(-1).cpu())
    return torch.cat(points, dim=1), torch.cat(depths, dim=1)
