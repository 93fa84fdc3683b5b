"""What an edge probe's score is held against: control labels, and the length of a code for the real ones."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch

from bertft.data.readers.spans import SpanText
from bertft.errors import BertftError
from bertft.probes.edge.head import Input
from bertft.probes.edge.targets import EdgeTargets
from bertft.probes.edge.training import EdgeTraining, code_bits, train_heads
from bertft.probes.vectors import Room, Vectors
from bertft.runs.artefacts import NOTHING, Unfinished
from bertft.runs.progress import SILENT, Progress

# Shares of the training texts at which the online code's blocks end (Voita and Titov 2020).
FRACTIONS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)


def control_labels(texts: Sequence[SpanText], train: Sequence[SpanText], seed: int) -> list[SpanText]:
    """``texts`` with control labels (Hewitt and Liang 2019): one draw for every word type, the same in every corpus.

    A target's word type is the last word of its first span, as written. The draw is from the label sets of the
    training targets, as often as they occur there, so that the control task is as hard to guess as the real one, and
    it depends on the type and ``seed`` alone: a probe can only solve the task by knowing the word.
    """
    pool = sorted(target.labels for text in train for target in text.targets)

    def draw(word: str) -> tuple[str, ...]:
        digest = hashlib.sha256(f"{seed} {word}".encode()).digest()
        return pool[int.from_bytes(digest[:8], "big") % len(pool)]

    return [
        dataclasses.replace(
            text,
            targets=tuple(
                dataclasses.replace(target, labels=draw(text.words[target.first[1] - 1])) for target in text.targets
            ),
        )
        for text in texts
    ]


@dataclasses.dataclass(frozen=True)
class CodeLength:
    """Online code of the training labels: ``bits`` (P,) of each probe, ``uniform`` of the code that knows nothing."""

    bits: np.ndarray
    uniform: float

    @property
    def compression(self) -> np.ndarray:
        """How many times shorter than the uniform code (P,)."""
        return self.uniform / self.bits


def online_code(
    inputs: Sequence[Input],
    train: Vectors,
    targets: EdgeTargets,
    dev: Vectors,
    dev_targets: EdgeTargets,
    config: EdgeTraining,
    progress: Progress = SILENT,
    unfinished: tuple[Unfinished, Unfinished] = (NOTHING, NOTHING),
    device: torch.device | str | None = None,
) -> CodeLength:
    """The online code's length (Voita and Titov 2020) of the training labels under every probe.

    The texts, in an order drawn with the seed, are cut into blocks at `FRACTIONS`. The first block is sent uniformly,
    every other one with the probe trained on the blocks before it, that of the least code length on dev. What a label
    costs is said at `code_bits`; uniformly it is log2 K where every target has one label, else K bits. Of
    ``unfinished`` the first holds the bits after each block, the second the training of the block that is on.
    ``device`` as in `bertft.probes.edge.training.train_heads`.
    """
    texts = len(targets.texts)
    order = np.random.default_rng(config.seed).permutation(texts)
    edges = sorted({max(1, round(fraction * texts)) for fraction in FRACTIONS})
    if len(edges) < 2:
        raise BertftError(f"edge probes: a description length needs at least 2 training texts, found {texts}")
    labels = len(targets.inventory)
    per_target = math.log2(labels) if targets.single else float(labels)
    bits = np.full(len(inputs), per_target * sum(len(targets.texts[i].targets) for i in order[: edges[0]]))
    blocks, training = unfinished
    nothing = np.random.default_rng(0)  # no order is drawn while blocks are sent
    found = blocks.found(nothing)
    if found is not None:
        bits = found[1]["bits"].numpy()
    pairs = list(enumerate(itertools.pairwise(edges)))[0 if found is None else found[0] :]
    with progress.step("description length", total=len(pairs), unit="blocks") as step:
        for number, (known, end) in pairs:
            past, block = np.sort(order[:known]), np.sort(order[known:end])
            trained = train_heads(
                inputs, Chosen(train, past), targets.subset(past), dev, dev_targets, config, criterion="code",
                unfinished=training.of(block=number), device=device,
            )  # fmt: skip
            bits += code_bits(trained.heads, range(len(inputs)), Chosen(train, block), targets.subset(block))
            blocks.keep(number, {"bits": torch.from_numpy(bits)}, nothing)
            step.advance()
    return CodeLength(bits, per_target * len(targets))


class Chosen:
    """Some sentences of other vectors, as vectors of their own."""

    def __init__(self, vectors: Vectors, members: np.ndarray) -> None:
        self._vectors, self._members = vectors, np.asarray(members)
        self.lengths = vectors.lengths[self._members]
        self.layers, self.width = vectors.layers, vectors.width

    def batch(
        self, sentences: Sequence[int], layers: torch.Tensor | None = None, *, room: Room | None = None
    ) -> torch.Tensor:
        return self._vectors.batch(self._members[list(sentences)].tolist(), layers, room=room)
