"""Orthogonal structural probes.

Source: Limisiewicz and Marecek 2021.

A layer's distance and depth probes share one rotation and have a scale vector each:

    d_ij = |s * V'(h_i - h_j)|^2,  depth_i = |t * V'h_i|^2,  V (D, D) near orthogonal, s and t (D,)

In terms of linear probes, the weights B are V diag(s) and V diag(t), with the same losses and scores. The penalty
0.05 (|V'V - I| + |VV' - I|), in Frobenius norms, keeps V near orthogonal. The scales s and t show how many directions a
probe uses, and how many of them distance and depth share.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.models.devices import device_of
from bertft.ops.probe_loss import probe_loss, probe_loss_and_gradient
from bertft.probes.structural.training import BATCH, DECAY, IMPROVEMENT, PATIENCE, Corpus, Probes
from bertft.probes.vectors import Workspace
from bertft.runs.artefacts import NOTHING, Unfinished
from bertft.runs.progress import SILENT, Progress

LEARNING_RATE = 0.02
PENALTY = 0.05


@dataclass
class OrthogonalProbes(Probes):
    """Probes with ``weights`` (2, L, D, D) = ``rotation`` (L, D, D) times ``scales`` (2, L, D), column by column."""

    rotation: Tensor
    scales: Tensor

    def dimensions(self) -> Tensor:
        """Return the number of directions (2, L) that distance and depth use: (sum s^2)^2 / sum s^4, 1 to D."""
        squares = self.scales.double().square()
        return squares.sum(-1).square() / squares.square().sum(-1).clamp(min=1e-300)

    def shared(self) -> Tensor:
        """Return the overlap (L,) of distance and depth: sum over directions of the smaller share of s^2, 0 to 1."""
        squares = self.scales.double().square()
        return (squares / squares.sum(-1, keepdim=True).clamp(min=1e-300)).amin(0).sum(-1)


def train_orthogonal(
    train: Corpus,
    dev: Corpus,
    *,
    epochs: int = 40,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: Progress = SILENT,
    unfinished: Unfinished = NOTHING,
) -> OrthogonalProbes:
    """Train the orthogonal probes of every layer, all in one loop.

    As in the authors' code, V starts as the identity and the scales are uniform in (-0.5, 0.5). Adam starts at 0.02.
    The dev loss is that of distance plus depth, without the penalty. After each epoch in which it does not improve by
    1e-4 the learning rate falls to a tenth; Adam's state is kept. A layer stops after 5 such epochs in a row, or after
    ``epochs``, with its best weights. Two things differ: a step descends the sum of both losses and one penalty, while
    the authors alternate between distance and depth; and batches have 20 sentences. ``device`` and ``unfinished`` are
    those of `bertft.probes.structural.training.train_probes`.
    """
    if epochs < 1:
        raise BertftError(f"structural probes: epochs must be positive, found {epochs}")
    layers, width = train.vectors.layers, train.vectors.width
    there = device_of(device)
    train, dev = train.on(there), dev.on(there)
    start = (torch.rand(2, width, generator=torch.Generator().manual_seed(seed)) - 0.5).to(there)
    schedule = _Schedule(torch.eye(width, device=there).repeat(layers, 1, 1), start.repeat(layers, 1, 1))
    order, workspace, sentences = np.random.default_rng(seed), Workspace(), len(train.vectors.lengths)
    done = schedule.resume(unfinished, order)
    with progress.step("train orthogonal probes", total=(epochs - done) * sentences, unit="sentences") as step:
        for epoch in range(done, epochs):
            shuffled = order.permutation(sentences)
            active = schedule.active
            for first in range(0, sentences, BATCH):
                members = shuffled[first : first + BATCH].tolist()
                h = train.vectors.batch(members, torch.tensor(active), workspace=workspace)
                schedule.descend(active, h, *train.trees.batch(members, h.device))
                step.advance(len(members))
            schedule.end_epoch(epoch, active, _dev_losses(dev, schedule, active, workspace))
            step.note(f"epoch {epoch + 1}, {len(schedule.active)} of {layers} layers left")
            if not schedule.active:
                break
            unfinished.keep(epoch, schedule.state(), order)
    rotation, scales = (tensor.cpu() for tensor in schedule.best)
    return OrthogonalProbes(
        weights=(rotation.unsqueeze(1) * scales.unsqueeze(2)).transpose(0, 1).contiguous(),
        dev_loss=schedule.losses,
        epochs=schedule.epochs.repeat(2, 1),
        rotation=rotation,
        scales=scales.transpose(0, 1).contiguous(),
    )


def penalty_gradient(rotation: Tensor) -> Tensor:
    """Return the gradient (L, D, D) of |V'V - I| + |VV' - I|; 0 if V is orthogonal.

    The two norms are equal for a square V.
    """
    deviation = rotation.mT @ rotation - torch.eye(rotation.shape[-1], dtype=rotation.dtype, device=rotation.device)
    norm = torch.linalg.matrix_norm(deviation, keepdim=True)
    return torch.where(norm > 0, 4 * (rotation @ deviation) / norm.clamp(min=1e-30), 0.0)


class _Schedule:
    """Rotations (L, D, D) and scales (L, 2, D), trained in place, with a schedule for each layer."""

    def __init__(self, rotation: Tensor, scales: Tensor) -> None:
        self.rotation, self.scales = rotation, scales
        self.best = (rotation.clone(), scales.clone())
        layers = len(rotation)
        self.active = list(range(layers))
        self.lowest = [float("inf")] * layers
        self.since = [0] * layers  # epochs since the last gain
        self.losses = torch.full((2, layers), torch.inf, dtype=torch.float64)  # of the best weights
        self.epochs = torch.zeros(layers, dtype=torch.int64)
        groups = [{"params": [v, s]} for v, s in zip(rotation, scales, strict=True)]  # views: Adam writes through them
        self.optimizer = torch.optim.Adam(groups, lr=LEARNING_RATE, fused=True)

    def weights(self, chosen: list[int]) -> tuple[Tensor, Tensor]:
        """Return B of the distance and of the depth probes of some layers, (L', D, D) each."""
        v, s = self.rotation[chosen], self.scales[chosen]
        return v * s[:, :1], v * s[:, 1:]

    def descend(self, chosen: list[int], h: Tensor, distances: Tensor, depths: Tensor, lengths: Tensor) -> None:
        """Take one step on the sum of both losses and the penalty."""
        v, s = self.rotation[chosen], self.scales[chosen]
        both = torch.cat(self.weights(chosen), dim=2)
        _, gradients = probe_loss_and_gradient(h, both, distances, depths, lengths, distance_rank=v.shape[-1])
        parts = torch.stack(gradients.chunk(2, dim=2), dim=1)  # (L', 2, D, D)
        along_v = (parts * s.unsqueeze(2)).sum(1) + PENALTY * penalty_gradient(v)
        along_s = (parts * v.unsqueeze(1)).sum(2)
        for layer, own_v, own_s in zip(chosen, along_v, along_s, strict=True):
            rotation, scales = self.optimizer.param_groups[layer]["params"]
            rotation.grad, scales.grad = own_v, own_s
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def end_epoch(self, epoch: int, chosen: list[int], losses: Tensor) -> None:
        """Update the schedule from the dev losses (2, L') of the layers ``chosen``."""
        still = []
        for layer, own in zip(chosen, losses.T, strict=True):
            self.epochs[layer] = epoch + 1
            loss = float(own.sum())
            if loss < self.lowest[layer] - IMPROVEMENT:
                self.lowest[layer], self.since[layer] = loss, 0
                self.losses[:, layer] = own
                self.best[0][layer], self.best[1][layer] = self.rotation[layer], self.scales[layer]
            else:
                self.since[layer] += 1
                self.optimizer.param_groups[layer]["lr"] *= DECAY
            if self.since[layer] < PATIENCE:
                still.append(layer)
        self.active = still

    def state(self) -> dict[str, Tensor]:
        """Return everything that the next epoch depends on."""
        found = {
            **self._tensors(),
            "active": torch.tensor(self.active),
            "lowest": torch.tensor(self.lowest, dtype=torch.float64),
            "since": torch.tensor(self.since),
            "rates": torch.tensor([group["lr"] for group in self.optimizer.param_groups], dtype=torch.float64),
        }
        for number, parameter in enumerate(self._parameters()):
            for name, value in self.optimizer.state[parameter].items():
                found[f"adam.{number}.{name}"] = value
        return found

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restore a state returned by `state`."""
        for name, tensor in self._tensors().items():
            tensor.copy_(state[name])
        self.active, self.lowest, self.since = (state[name].tolist() for name in ("active", "lowest", "since"))
        for group, rate in zip(self.optimizer.param_groups, state["rates"].tolist(), strict=True):
            group["lr"] = rate
        for number, parameter in enumerate(self._parameters()):
            prefix = f"adam.{number}."
            self.optimizer.state[parameter] = {
                name.removeprefix(prefix): value.to(parameter.device)
                for name, value in state.items()
                if name.startswith(prefix)
            }

    def resume(self, unfinished: Unfinished, order: np.random.Generator) -> int:
        """Restore the last state that was kept; return the epoch to begin with, 0 if there was none."""
        found = unfinished.found(order)
        if found is None:
            return 0
        self.restore(found[1])
        return found[0]

    def _tensors(self) -> dict[str, Tensor]:
        return {
            "rotation": self.rotation, "scales": self.scales, "best.rotation": self.best[0],
            "best.scales": self.best[1], "losses": self.losses, "epochs": self.epochs,
        }  # fmt: skip

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]


@torch.no_grad()
def _dev_losses(corpus: Corpus, schedule: _Schedule, chosen: list[int], workspace: Workspace) -> Tensor:
    """Return the mean losses (2, L') over the dev sentences, distance and depth, float64."""
    sentences = len(corpus.vectors.lengths)
    totals = torch.zeros(2, len(chosen), dtype=torch.float64, device=schedule.scales.device)
    weights = schedule.weights(chosen)
    for first in range(0, sentences, BATCH):
        members = range(first, min(first + BATCH, sentences))
        h = corpus.vectors.batch(members, torch.tensor(chosen), workspace=workspace)
        totals += probe_loss(h, *weights, *corpus.trees.batch(members, h.device)).T.double() * len(members)
    return totals.cpu() / sentences
