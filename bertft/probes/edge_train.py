"""Training of edge probes: all inputs in one loop, each with the schedule and the end it would have alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bertft.errors import BertftError
from bertft.probes.edge_data import EdgeTargets
from bertft.probes.edge_head import DROPOUT, WIDTH, Heads, Input
from bertft.probes.features import Room, Vectors
from bertft.progress import SILENT, Progress

CLIP = 5.0
HALVE_AFTER, STOP_AFTER = 5, 20  # validations without a gain
EVALUATE = 64  # texts scored together
TOGETHER = 4  # probes passed through together


@dataclass(frozen=True)
class EdgeTraining:
    """How edge probes are trained.

    As in jiant's template for small tasks: Adam at ``learning_rate``, ``batch`` texts a step with all their targets,
    gradients of a probe clipped to a norm of 5, micro-F1 on dev every ``interval`` steps, the rate halved after 5
    validations without a gain, the end after 20 or after ``steps``; the best validation's weights are kept.
    """

    learning_rate: float = 1e-4
    batch: int = 32
    interval: int = 100
    steps: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("learning_rate", "batch", "interval", "steps"):
            if not getattr(self, name) > 0:
                raise BertftError(f"edge probes: {name} must be positive, found {getattr(self, name)}")


@dataclass
class TrainedHeads:
    """Heads with their best weights, the dev score (P,) these had, and how many ``steps`` (P,) each was trained."""

    heads: Heads
    dev_score: np.ndarray
    steps: np.ndarray


@dataclass
class Counts:
    """Per probe, text and label (P, S, K), float32: true positives, predictions and gold labels (S, K).

    ``missed`` (S,) gold labels outside the inventory, which no probe can predict.
    """

    hits: Tensor
    predicted: Tensor
    gold: Tensor
    missed: Tensor

    def micro_f1(self) -> np.ndarray:
        """(P,) float64 over all targets and labels; 0 where nothing is predicted rightly."""
        hits, predicted = (t.double().sum((1, 2)) for t in (self.hits, self.predicted))
        return (2 * hits / (predicted + self.gold.double().sum() + self.missed.sum()).clamp(min=1)).numpy()


def train_heads(
    inputs: Sequence[Input],
    train: Vectors,
    targets: EdgeTargets,
    dev: Vectors,
    dev_targets: EdgeTargets,
    config: EdgeTraining,
    progress: Progress = SILENT,
    *,
    criterion: str = "f1",
) -> TrainedHeads:
    """Train one head an input; ``train`` and ``dev`` are the vectors of the targets' texts, sentence by sentence.

    ``criterion`` is what a validation looks at: ``f1``, or ``code`` for the least code length of the dev labels
    (`code_bits`), where the untrained head is a candidate too: with a handful of texts it is the best one.

    All probes see the same batches and the same dropout, drawn with ``config.seed``, and start from one draw; a probe
    that has stopped costs nothing more. A probe's result is that of training it alone, up to rounding.
    """
    heads = Heads(inputs, train.layers, train.width, targets.roles, len(targets.inventory), config.seed)
    schedule = _Schedule(heads, config.learning_rate)
    order = np.random.default_rng(config.seed)
    masks = torch.Generator().manual_seed(config.seed)
    texts = len(targets.texts)
    queue: list[list[int]] = []

    def validate(number: int) -> None:
        if criterion == "f1":
            gain = count(heads, schedule.active, dev, dev_targets).micro_f1()
        else:
            gain = -code_bits(heads, schedule.active, dev, dev_targets)
        schedule.end_validation(number, gain)

    if criterion == "code":
        validate(0)
    with progress.step("train edge probes", total=config.steps, unit="steps") as step:
        for number in range(1, config.steps + 1):
            if not queue:
                shuffled = order.permutation(texts)
                queue = [shuffled[i : i + config.batch].tolist() for i in range(0, texts, config.batch)]
            _descend(schedule, train, targets, queue.pop(0), masks)
            step.advance()
            if number % config.interval == 0 or number == config.steps:
                validate(number)
                step.note(f"best dev {criterion} {schedule.highest.max():.3f}, {len(schedule.active)} probes left")
                if not schedule.active:
                    break
    heads.tensors = schedule.best
    return TrainedHeads(heads, schedule.highest, schedule.steps)


def _descend(
    schedule: _Schedule,
    train: Vectors,
    targets: EdgeTargets,
    members: Sequence[int],
    masks: torch.Generator,
) -> None:
    """One step of the active probes on the texts ``members``."""
    x, batch = train.batch(members, room=schedule.room), targets.batch(members)
    keep = (torch.rand(len(batch.labels), WIDTH, generator=masks) >= DROPOUT).float() / (1 - DROPOUT)
    # A few probes at a time: what their passes leave between them stays small enough for the cache.
    for first in range(0, len(schedule.active), TOGETHER):
        group = schedule.active[first : first + TOGETHER]
        leaves = {name: t.detach().requires_grad_() for name, t in schedule.heads.select(group).items()}
        logits = schedule.heads.logits(leaves, group, x, batch, keep)
        # Means over targets and labels, one a probe; their sum has each probe's own gradient.
        losses = F.binary_cross_entropy_with_logits(logits, batch.labels.expand_as(logits), reduction="none")
        losses.mean((1, 2)).sum().backward()
        schedule.take(group, {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None})
    schedule.step()


@torch.no_grad()
def count(heads: Heads, probes: Sequence[int], vectors: Vectors, targets: EdgeTargets) -> Counts:
    """Predictions (logit >= 0) of ``probes`` against the targets, text by text."""
    shape = (len(probes), len(targets.texts), len(targets.inventory))
    hits, predicted, gold = torch.zeros(shape), torch.zeros(shape), torch.zeros(shape[1:])
    for first, batch, logits in predictions(heads, probes, vectors, targets):
        chosen, text = logits >= 0, batch.text + first
        hits.index_add_(1, text, (chosen & batch.labels.bool()).float())
        predicted.index_add_(1, text, chosen.float())
        gold.index_add_(0, text, batch.labels)
    return Counts(hits, predicted, gold, torch.from_numpy(targets.unseen_per_text))


@torch.no_grad()
def predictions(heads: Heads, probes: Sequence[int], vectors: Vectors, targets: EdgeTargets) -> Iterator[Any]:
    """(first text, batch, logits (P', N, K)) of all texts, some at a time, in their order."""
    tensors = heads.select(probes)
    for first in range(0, len(targets.texts), EVALUATE):
        members = range(first, min(first + EVALUATE, len(targets.texts)))
        batch = targets.batch(members)
        yield first, batch, heads.logits(tensors, probes, vectors.batch(members), batch, None)


@torch.no_grad()
def code_bits(heads: Heads, probes: Sequence[int], vectors: Vectors, targets: EdgeTargets) -> np.ndarray:
    """(P',) bits of the targets' labels under each probe.

    Where every target has one label, it costs -log2 softmax(logits): what independent sigmoids say of a label given
    that exactly one holds. Else each of a target's K decisions costs its own -log2 sigmoid(+-logit).
    """
    total = torch.zeros(len(probes), dtype=torch.float64)
    for _, batch, logits in predictions(heads, probes, vectors, targets):
        if targets.single:
            nats = -(logits.log_softmax(-1) * batch.labels).sum((1, 2))
        else:
            gold = batch.labels.expand_as(logits)
            nats = F.binary_cross_entropy_with_logits(logits, gold, reduction="none").sum((1, 2))
        total += nats.double()
    return (total / math.log(2)).numpy()


class _Schedule:
    """Adam, clipping, rate and end of each of P probes apart."""

    def __init__(self, heads: Heads, learning_rate: float) -> None:
        self.heads, self.room = heads, Room()
        probes = range(len(heads.inputs))
        self.active = list(probes)
        self.best = {name: t.clone() for name, t in heads.tensors.items()}
        self.highest = np.full(len(probes), -np.inf)
        self.since = np.zeros(len(probes), dtype=int)  # validations since the last gain
        self.plateau = np.zeros(len(probes), dtype=int)  # validations since the last gain or change of the rate
        self.steps = np.zeros(len(probes), dtype=int)
        # A probe's parameters are views of the stacked tensors: Adam writes through them.
        self.views = [{n: t[heads.rows(n, p)] for n, t in heads.tensors.items()} for p in probes]
        groups = [{"params": [v for v in views.values() if v.numel()]} for views in self.views]
        self.optimizer = torch.optim.Adam(groups, lr=learning_rate, fused=True)

    def take(self, group: Sequence[int], gradients: dict[str, Tensor]) -> None:
        """Keep the clipped gradients of the probes ``group``, stacked (a name that is left out has none)."""
        taken = dict.fromkeys(gradients, 0)
        for probe in group:
            own = {}
            for name, gradient in gradients.items():
                rows = self.heads.rows(name, probe)
                width = rows.stop - rows.start
                own[name] = gradient[taken[name] : taken[name] + width]
                taken[name] += width
            parts = [g for g in own.values() if g.numel()]
            norm = math.sqrt(sum(float(n) ** 2 for n in torch._foreach_norm(parts)))
            if norm > CLIP:
                torch._foreach_mul_(parts, CLIP / norm)
            for name, gradient in own.items():
                if gradient.numel():
                    self.views[probe][name].grad = gradient

    def step(self) -> None:
        """One step of Adam on the gradients that were taken."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def end_validation(self, number: int, scores: np.ndarray) -> None:
        """Take the dev scores of the active probes after step ``number``; more is better."""
        still = []
        for probe, value in zip(self.active, scores.tolist(), strict=True):
            self.steps[probe] = number
            if value > self.highest[probe]:
                self.highest[probe] = value
                self.since[probe] = self.plateau[probe] = 0
                for name, view in self.views[probe].items():
                    self.best[name][self.heads.rows(name, probe)] = view
            else:
                self.since[probe] += 1
                self.plateau[probe] += 1
            if self.plateau[probe] > HALVE_AFTER:
                self.optimizer.param_groups[probe]["lr"] *= 0.5
                self.plateau[probe] = 0
            if self.since[probe] < STOP_AFTER:
                still.append(probe)
        self.active = still
