"""Controls of edge probes: control labels and online code."""

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
from bertft.probes.edge.training import Corpus, EdgeTraining, code_bits, train_heads
from bertft.probes.vectors import Vectors, Workspace
from bertft.runs.artefacts import NOTHING, Unfinished
from bertft.runs.progress import SILENT, Progress

# Shares of the training texts at which the online code's blocks end (Voita and Titov 2020).
FRACTIONS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)


def control_labels(texts: Sequence[SpanText], train: Sequence[SpanText], seed: int) -> list[SpanText]:
    """Return ``texts`` with control labels (Hewitt and Liang 2019): one draw for each word type.

    The word type of a target is the last word of its first span, as written. The draw is from the label sets of the
    training targets, weighted by their frequency, so that guessing is as hard as in the real task. It depends on the
    type and ``seed`` alone, so it is the same in every corpus, and a probe can solve the task only by knowing the word.
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
    """The online code of the training labels: ``bits`` (P,) of each probe, ``uniform`` of the uniform code."""

    bits: np.ndarray
    uniform: float

    @property
    def compression(self) -> np.ndarray:
        """The compression (P,): how many times shorter the code is than the uniform one."""
        return self.uniform / self.bits


def online_code(
    inputs: Sequence[Input],
    train: Corpus,
    dev: Corpus,
    config: EdgeTraining,
    progress: Progress = SILENT,
    unfinished: tuple[Unfinished, Unfinished] = (NOTHING, NOTHING),
    device: torch.device | str | None = None,
) -> CodeLength:
    """Return the length of the online code (Voita and Titov 2020) of the training labels under every probe.

    The texts, in an order drawn with the seed, are cut into blocks at `FRACTIONS`. The first block is coded uniformly:
    log2 K bits for each target if every target has one label, else K bits. Every other block is coded (`code_bits`) by
    the probe trained on the blocks before it, with the weights of the least code length on dev.

    The first of ``unfinished`` keeps the bits after each block, the second the training for the current block. The
    other arguments are those of `bertft.probes.edge.training.train_heads`.

    Raises:
        BertftError: if there are fewer than 2 training texts.
    """
    targets = train.targets
    texts = len(targets.texts)
    order = np.random.default_rng(config.seed).permutation(texts)
    edges = sorted({max(1, round(fraction * texts)) for fraction in FRACTIONS})
    if len(edges) < 2:
        raise BertftError(f"edge probes: a description length needs at least 2 training texts, found {texts}")
    labels = len(targets.inventory)
    per_target = math.log2(labels) if targets.single else float(labels)
    bits = np.full(len(inputs), per_target * sum(len(targets.texts[i].targets) for i in order[: edges[0]]))
    blocks, training = unfinished
    nothing = np.random.default_rng(0)  # coding draws nothing
    found = blocks.found(nothing)
    if found is not None:
        bits = found[1]["bits"].numpy()
    pairs = list(enumerate(itertools.pairwise(edges)))[0 if found is None else found[0] :]
    with progress.step("description length", total=len(pairs), unit="blocks") as step:
        for number, (known, end) in pairs:
            past, block = np.sort(order[:known]), np.sort(order[known:end])
            trained = train_heads(
                inputs, subset(train, past), dev, config, criterion="code",
                unfinished=training.of(block=number), device=device,
            )  # fmt: skip
            bits += code_bits(trained.heads, range(len(inputs)), *subset(train, block))
            blocks.keep(number, {"bits": torch.from_numpy(bits)}, nothing)
            step.advance()
    return CodeLength(bits, per_target * len(targets))


def subset(corpus: Corpus, members: np.ndarray) -> Corpus:
    """Return some texts of a corpus."""
    return Corpus(VectorSubset(corpus.vectors, members), corpus.targets.subset(members))


class VectorSubset:
    """The vectors of some sentences of a corpus."""

    def __init__(self, vectors: Vectors, members: np.ndarray) -> None:
        self._vectors, self._members = vectors, np.asarray(members)
        self.lengths = vectors.lengths[self._members]
        self.layers, self.width = vectors.layers, vectors.width

    def batch(
        self, sentences: Sequence[int], layers: torch.Tensor | None = None, *, workspace: Workspace | None = None
    ) -> torch.Tensor:
        """Return the words of ``sentences``, counted among these sentences, as `Vectors.batch` does."""
        return self._vectors.batch(self._members[list(sentences)].tolist(), layers, workspace=workspace)
