"""Training of edge probes: all inputs in one loop, each with the schedule and the end it would have alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
from bertft.probes.vectors import Room, Vectors, on_device
from bertft.runs.artefacts import NOTHING, Unfinished
from bertft.runs.progress import SILENT, Progress

EVALUATE = 64  # texts scored together


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
    unfinished: Unfinished = NOTHING,
    device: torch.device | str | None = None,
) -> TrainedHeads:
    """Train one head an input; ``train`` and ``dev`` are the vectors of the targets' texts, sentence by sentence.

    The work is done, and the heads are then, on ``device`` (default: the GPU if there is one).

    ``criterion`` is what a validation looks at: ``f1``, or ``code`` for the least code length of the dev labels
    (`code_bits`), where the untrained head is a candidate too: with a handful of texts it is the best one.

    All probes see the same batches and the same dropout, drawn with ``config.seed``, and start from one draw; a probe
    that has stopped costs nothing more. A probe's result is that of training it alone, up to rounding. What
    ``unfinished`` holds is gone on with; the state is kept after validations, the last one for the caller to remove.
    """
    there = device_of(device)
    train, dev = on_device(train, there), on_device(dev, there)
    heads = Heads(inputs, train.layers, train.width, targets.roles, len(targets.inventory), config.seed).to(there)
    largest = int(np.sort(targets.counts)[-config.batch :].sum())
    schedule = Schedule(heads, config.learning_rate, largest)
    order = np.random.default_rng(config.seed)
    masks, room = torch.Generator().manual_seed(config.seed), Room()
    texts = len(targets.texts)
    queue: list[list[int]] = []

    def validate(number: int) -> None:
        if criterion == "f1":
            gain = dev_f1(heads, schedule.active, dev, dev_targets)
        else:
            gain = -code_bits(heads, schedule.active, dev, dev_targets)
        schedule.end_validation(number, gain)

    found = unfinished.found(order)
    if found is not None:
        masks.set_state(found[1]["masks"])
        schedule.restore(found[1])
        queue = _batches(found[1]["queue"].tolist(), config.batch)
    elif criterion == "code":
        validate(0)
    begin = 1 if found is None else found[0]
    with progress.step("train edge probes", total=config.steps - begin + 1, unit="steps") as step:
        for number in range(begin, config.steps + 1):
            if not schedule.active:
                break
            if not queue:
                queue = _batches(order.permutation(texts).tolist(), config.batch)
            descend(schedule, train, targets, queue.pop(0), masks, room)
            step.advance()
            if number % config.interval == 0 or number == config.steps:
                validate(number)
                step.note(f"best dev {criterion} {schedule.highest.max():.3f}, {len(schedule.active)} probes left")
                waiting = [text for batch in queue for text in batch]
                state = {"masks": masks.get_state(), "queue": torch.tensor(waiting, dtype=torch.int64)}
                last = number == config.steps or not schedule.active
                unfinished.keep(number, schedule.state() | state, order, last=last)
    heads.tensors = schedule.best
    return TrainedHeads(heads, schedule.highest, schedule.steps)


def _batches(texts: list[int], size: int) -> list[list[int]]:
    return [texts[i : i + size] for i in range(0, len(texts), size)]


def descend(
    schedule: Schedule,
    train: Vectors,
    targets: EdgeTargets,
    members: Sequence[int],
    masks: torch.Generator,
    room: Room,
) -> None:
    """One step of the active probes on the texts ``members``."""
    heads = schedule.heads
    x, batch = train.batch(members, room=room), targets.batch(members).to(heads.device)
    keep = (torch.rand(len(batch.labels), WIDTH, generator=masks) >= DROPOUT).to(heads.device).float() / (1 - DROPOUT)
    for group in schedule.groups:
        passed = heads.passed(heads.select(group.probes), group.probes, x, batch, keep, learn=True)
        # Of the binary cross-entropy's mean over targets and labels.
        slope = passed.logits.sigmoid_().sub_(batch.labels).div_(batch.labels.numel())
        schedule.step(group, passed.backward(slope))
    schedule.taken += 1


@torch.no_grad()
def predictions(
    heads: Heads, probes: Sequence[int], vectors: Vectors, targets: EdgeTargets
) -> Iterator[tuple[slice, range, SpanBatch, Tensor]]:
    """(which of ``probes``, texts, batch, logits (P', N, K)), a few probes and some texts at a time, in their order."""
    vectors, ready = on_device(vectors, heads.device), []
    blocks = targets.blocks(EVALUATE)
    for group in together(probes, heads.device, max(len(batch.labels) for _, batch in blocks)):
        tensors, first = heads.select(group), list(probes).index(group[0])
        direct = through(tensors, heads.owner(group)) if len(targets) > heads.dim else None  # for fewer it is no gain
        ready.append((slice(first, first + len(group)), group, tensors, direct))
    room = Room()
    for texts, batch in blocks:
        x, batch = vectors.batch(texts, room=room), batch.to(heads.device)
        for which, group, tensors, direct in ready:
            yield which, texts, batch, heads.passed(tensors, group, x, batch, through=direct).logits


def count(heads: Heads, probes: Sequence[int], vectors: Vectors, targets: EdgeTargets) -> Counts:
    """Predictions (logit >= 0) of ``probes`` against the targets, text by text."""
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
    """(P',) micro-F1 of ``probes`` over all targets and labels; labels outside the inventory count as missed."""
    hits, predicted = torch.zeros(2, len(probes), dtype=torch.int64, device=heads.device)
    for which, _, batch, logits in predictions(heads, probes, vectors, targets):
        chosen = logits >= 0
        predicted[which] += chosen.sum((1, 2))
        hits[which] += (chosen & batch.labels.bool()).sum((1, 2))
    gold = float(targets.labels.double().sum()) + int(targets.unseen_per_text.sum())
    return (2 * hits.double() / (predicted + gold).clamp(min=1)).cpu().numpy()


def code_bits(heads: Heads, probes: Sequence[int], vectors: Vectors, targets: EdgeTargets) -> np.ndarray:
    """(P',) bits of the targets' labels under each probe.

    Where every target has one label, it costs -log2 softmax(logits): what independent sigmoids say of a label given
    that exactly one holds. Else each of a target's K decisions costs its own -log2 sigmoid(+-logit).
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
