"""Training and evaluation of edge probes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bertft.errors import BertftError
from bertft.models.devices import device_of
from bertft.probes.edge.forward import through
from bertft.probes.edge.head import DROPOUT, WIDTH, Heads, Input
from bertft.probes.edge.schedule import Schedule, together
from bertft.probes.edge.targets import EdgeTargets, SpanBatch
from bertft.probes.vectors import Vectors, Workspace, on_device
from bertft.runs.artefacts import NOTHING, Unfinished
from bertft.runs.progress import SILENT, Progress

EVALUATE = 64  # texts that are evaluated together


@dataclass(frozen=True)
class EdgeTraining:
    """The settings of the training, those of jiant's template for small tasks.

    A step of Adam at ``learning_rate`` takes ``batch`` texts with all their targets, and clips the gradients of a probe
    to a norm of 5. Micro-F1 on dev is computed every ``interval`` steps. After 5 validations without an improvement the
    learning rate is halved; after 20, or after ``steps``, the training ends. The weights of the best validation are
    kept.
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
    """Heads with their best weights, the dev score (P,) of these, and the ``steps`` (P,) of each training."""

    heads: Heads
    dev_score: np.ndarray
    steps: np.ndarray


@dataclass
class Counts:
    """Counts for each text and label, float32.

    ``hits`` (true positives) and ``predicted`` are (P, S, K), ``gold`` is (S, K). ``missed`` (S,) counts gold labels
    outside the inventory, which no probe can predict.
    """

    hits: Tensor
    predicted: Tensor
    gold: Tensor
    missed: Tensor


class Corpus(NamedTuple):
    """The texts of a corpus: the vectors of their words, and their targets."""

    vectors: Vectors
    targets: EdgeTargets

    def on(self, device: torch.device) -> Corpus:
        """Return the corpus with its vectors on ``device`` if they fit there."""
        return Corpus(on_device(self.vectors, device), self.targets)


def train_heads(
    inputs: Sequence[Input],
    train: Corpus,
    dev: Corpus,
    config: EdgeTraining,
    progress: Progress = SILENT,
    *,
    criterion: str = "f1",
    unfinished: Unfinished = NOTHING,
    device: torch.device | str | None = None,
) -> TrainedHeads:
    """Train one head for each input, all in one loop.

    All probes start from one draw and see the same batches and the same dropout, drawn with ``config.seed``. A stopped
    probe costs no more time. The result of a probe is that of training it alone, up to rounding.

    Args:
        inputs: the input of each probe.
        train: the texts to train on.
        dev: the texts that end the training.
        config: the settings.
        progress: receives progress.
        criterion: the score of a validation: ``f1``, or ``code`` for the code length of the dev labels (`code_bits`).
            With ``code`` the untrained head is a candidate too; for a handful of texts it is the best one.
        unfinished: keeps the state after validations; the training resumes from it. The caller removes it.
        device: where the work runs and the heads are afterwards (default: the GPU if there is one).
    """
    there = device_of(device)
    train, dev = train.on(there), dev.on(there)
    vectors, targets = train
    heads = Heads(inputs, vectors.layers, vectors.width, targets.roles, len(targets.inventory), config.seed).to(there)
    largest = int(np.sort(targets.counts)[-config.batch :].sum())
    schedule = Schedule(heads, config.learning_rate, largest)
    loop = _Loop(schedule, config, criterion, train, dev)
    begin = loop.begin(unfinished)
    with progress.step("train edge probes", total=config.steps - begin + 1, unit="steps") as step:
        for number in range(begin, config.steps + 1):
            if not schedule.active:
                break
            loop.descend()
            step.advance()
            if number % config.interval == 0 or number == config.steps:
                loop.validate(number)
                step.note(f"best dev {criterion} {schedule.highest.max():.3f}, {len(schedule.active)} probes left")
                loop.keep(unfinished, number)
    heads.tensors = schedule.best
    return TrainedHeads(heads, schedule.highest, schedule.steps)


class _Loop:
    """The state of a training: its schedule, the generators of batches and dropout, and the batches of this round."""

    def __init__(self, schedule: Schedule, config: EdgeTraining, criterion: str, train: Corpus, dev: Corpus) -> None:
        self.schedule, self.config, self.criterion, self.train, self.dev = schedule, config, criterion, train, dev
        self.order = np.random.default_rng(config.seed)
        self.masks, self.workspace = torch.Generator().manual_seed(config.seed), Workspace()
        self.queue: list[list[int]] = []

    def begin(self, unfinished: Unfinished) -> int:
        """Restore the state that was kept last, if any, and return the number of the next step, counted from 1."""
        found = unfinished.found(self.order)
        if found is None:
            if self.criterion == "code":
                self.validate(0)
            return 1
        number, state = found
        self.masks.set_state(state["masks"])
        self.schedule.restore(state)
        self.queue = _batches(state["queue"].tolist(), self.config.batch)
        return number

    def descend(self) -> None:
        if not self.queue:
            self.queue = _batches(self.order.permutation(len(self.train.targets.texts)).tolist(), self.config.batch)
        descend(self.schedule, *self.train, self.queue.pop(0), self.masks, self.workspace)

    def validate(self, number: int) -> None:
        heads, active = self.schedule.heads, self.schedule.active
        gain = dev_f1(heads, active, *self.dev) if self.criterion == "f1" else -code_bits(heads, active, *self.dev)
        self.schedule.end_validation(number, gain)

    def keep(self, unfinished: Unfinished, number: int) -> None:
        waiting = [text for batch in self.queue for text in batch]
        state = {"masks": self.masks.get_state(), "queue": torch.tensor(waiting, dtype=torch.int64)}
        last = number == self.config.steps or not self.schedule.active
        unfinished.keep(number, self.schedule.state() | state, self.order, last=last)


def _batches(texts: list[int], size: int) -> list[list[int]]:
    return [texts[i : i + size] for i in range(0, len(texts), size)]


def descend(
    schedule: Schedule,
    train: Vectors,
    targets: EdgeTargets,
    members: Sequence[int],
    masks: torch.Generator,
    workspace: Workspace,
) -> None:
    """Take one step of the active probes on the texts ``members``; ``masks`` draws the dropout."""
    heads = schedule.heads
    x, batch = train.batch(members, workspace=workspace), targets.batch(members).to(heads.device)
    keep = (torch.rand(len(batch.labels), WIDTH, generator=masks) >= DROPOUT).to(heads.device).float() / (1 - DROPOUT)
    for group in schedule.groups:
        passed = heads.passed(heads.select(group.probes), group.probes, x, batch, keep, learn=True)
        # The gradient of the binary cross-entropy, averaged over targets and labels.
        slope = passed.logits.sigmoid_().sub_(batch.labels).div_(batch.labels.numel())
        schedule.step(group, passed.backward(slope))
    schedule.taken += 1


@torch.no_grad()
def predictions(
    heads: Heads, probes: Sequence[int], vectors: Vectors, targets: EdgeTargets
) -> Iterator[tuple[slice, range, SpanBatch, Tensor]]:
    """Yield the positions in ``probes``, the texts, their batch, and the logits (P', N, K), block by block in order."""
    vectors, ready = on_device(vectors, heads.device), []
    blocks = targets.blocks(EVALUATE)
    for group in together(probes, heads.device, max(len(batch.labels) for _, batch in blocks)):
        tensors, first = heads.select(group), list(probes).index(group[0])
        direct = (
            through(tensors, heads.owner(group)) if len(targets) > heads.dim else None
        )  # for fewer targets it takes longer
        ready.append((slice(first, first + len(group)), group, tensors, direct))
    workspace = Workspace()
    for texts, batch in blocks:
        x, batch = vectors.batch(texts, workspace=workspace), batch.to(heads.device)
        for which, group, tensors, direct in ready:
            yield which, texts, batch, heads.passed(tensors, group, x, batch, through=direct).logits


def count(heads: Heads, probes: Sequence[int], vectors: Vectors, targets: EdgeTargets) -> Counts:
    """Count the predictions (logit >= 0) of ``probes`` and the targets, text by text."""
    shape = (len(probes), len(targets.texts), len(targets.inventory))
    hits, predicted, gold = (torch.zeros(own, device=heads.device) for own in (shape, shape, shape[1:]))
    for which, texts, batch, logits in predictions(heads, probes, vectors, targets):
        chosen, text = logits >= 0, batch.text + texts.start
        hits[which].index_add_(1, text, (chosen & batch.labels.bool()).float())
        predicted[which].index_add_(1, text, chosen.float())
        if which.start == 0:
            gold.index_add_(0, text, batch.labels)
    return Counts(hits.cpu(), predicted.cpu(), gold.cpu(), torch.from_numpy(targets.unseen_per_text))


def dev_f1(heads: Heads, probes: Sequence[int], vectors: Vectors, targets: EdgeTargets) -> np.ndarray:
    """Return micro-F1 (P',) of ``probes`` over all targets and labels; labels outside the inventory count as missed."""
    hits, predicted = torch.zeros(2, len(probes), dtype=torch.int64, device=heads.device)
    for which, _, batch, logits in predictions(heads, probes, vectors, targets):
        chosen = logits >= 0
        predicted[which] += chosen.sum((1, 2))
        hits[which] += (chosen & batch.labels.bool()).sum((1, 2))
    gold = float(targets.labels.double().sum()) + int(targets.unseen_per_text.sum())
    return (2 * hits.double() / (predicted + gold).clamp(min=1)).cpu().numpy()


def code_bits(heads: Heads, probes: Sequence[int], vectors: Vectors, targets: EdgeTargets) -> np.ndarray:
    """Return the code length (P',) of the targets' labels under each probe, in bits.

    If every target has one label, it costs -log2 softmax(logits), the probability that independent sigmoids give to the
    label if exactly one is true. Otherwise each of the K decisions costs -log2 sigmoid(+-logit).
    """
    total = torch.zeros(len(probes), dtype=torch.float64, device=heads.device)
    for which, _, batch, logits in predictions(heads, probes, vectors, targets):
        if targets.single:
            nats = -(logits.log_softmax(-1) * batch.labels).sum((1, 2))
        else:
            gold = batch.labels.expand_as(logits)
            nats = F.binary_cross_entropy_with_logits(logits, gold, reduction="none").sum((1, 2))
        total[which] += nats.double()
    return (total / math.log(2)).cpu().numpy()
