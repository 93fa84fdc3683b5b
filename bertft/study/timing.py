"""Stage costs, extrapolated linearly from timed samples."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bertft.data.examples import inputs_of
from bertft.data.sampling import sample
from bertft.models.encoder import Encoder
from bertft.probes.vectors import WordVectors
from bertft.similarity.compare.stimuli import count_stimuli
from bertft.similarity.paired_stimuli import Draw

REPEATS, BUDGET = 3, 1.5  # best of at most 3 runs within 1.5 s
TEXTS = 32  # sampled to time the encoder
PIECES = 256  # word pieces encoded to time the encoder
SENTENCES = 256  # sampled for the mean number of word pieces


@dataclass(frozen=True)
class StageCost:
    """Forecast cost of a stage.

    Attributes:
        stage: the stage's name.
        work: the amount of work, in words.
        seconds: on this machine if nothing else runs; of a stage that is ``done``, as recorded.
        kept: bytes left on disk at the end.
        scratch: further bytes on disk while the stage runs.
        memory: peak bytes of the process.
        gpu: peak bytes on the GPU, 0 without one.
        at_most: whether training may stop earlier.
        done: whether the run folder already holds the stage.
    """

    stage: str
    work: str
    seconds: float
    kept: int = 0
    scratch: int = 0
    memory: int = 0
    gpu: int = 0
    at_most: bool = False
    done: bool = False


@dataclass(frozen=True)
class Line:
    """The linear function ``fixed + per * amount``."""

    fixed: float
    per: float

    def at(self, amount: float) -> float:
        """Return the value at ``amount``."""
        return self.fixed + self.per * amount


def line(small: float, cost_small: float, large: float, cost_large: float) -> Line:
    """Return the line through two points, ``small`` below ``large``, with no negative part."""
    if large <= small:
        return Line(0.0, cost_large / large)
    per = max((cost_large - cost_small) / (large - small), 0.0)
    fixed = cost_large - per * large
    return Line(fixed, per) if fixed >= 0 else Line(0.0, cost_large / large)


def seconds_of(work: Callable[[], object]) -> float:
    """Return the seconds that ``work`` takes on an idle machine: the best of a few runs.

    With a GPU, measures wall time up to the end of its kernels. Without one, measures at most the processor time,
    because the wall time of a busy machine includes other processes.
    """
    gpu = torch.cuda.is_available()
    found: list[float] = []
    while not found or (len(found) < REPEATS and sum(found) < BUDGET):
        start, used = time.perf_counter(), time.process_time()
        work()
        if gpu:
            torch.cuda.synchronize()
        clock, processor = time.perf_counter() - start, time.process_time() - used
        found.append(clock if gpu else min(clock, processor))
    return max(min(found), 1e-9)


def placed(held: int, moved: int) -> tuple[int, int]:
    """Return a stage's memory on the CPU and on the GPU; the ``moved`` bytes are on the GPU if there is one."""
    return (held, moved) if torch.cuda.is_available() else (held + moved, 0)


def weights_of(model: torch.nn.Module, *, trained: bool = False) -> int:
    """Return the bytes of a model's weights, or only of those that are ``trained``."""
    return sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad or not trained)


def piece_counts(encoder: Encoder, examples: Sequence[Any], unit: str) -> list[int]:
    """Return the number of word pieces of each example, a word sequence where ``unit`` is ``word``."""
    return count_stimuli(encoder, inputs_of(examples, unit), "token")


def mean_pieces(encoder: Encoder, sentences: Sequence[Sequence[str]]) -> float:
    """Return the mean number of word pieces of a sentence, estimated on a sample."""
    some = sample(sentences, SENTENCES, 0)
    return sum(piece_counts(encoder, some, "word")) / len(some)


def corpus_pieces(encoder: Encoder, corpus: Sequence[Any]) -> float:
    """Return the number of word pieces of a corpus of sentences, estimated on a sample."""
    return len(corpus) * mean_pieces(encoder, [sentence.words for sentence in corpus])


def encoding_seconds(encoder: Encoder, examples: Sequence[Any], unit: str) -> float:
    """Return the seconds per word piece of encoding ``examples``, measured on some of them."""
    some = sample(examples, TEXTS, 0)
    counts = piece_counts(encoder, some, unit)
    chosen = some[: max(1, int(PIECES / max(sum(counts) / len(some), 1)))]

    def run() -> None:
        for _ in encoder.stream(chosen, unit=unit, window="split"):
            pass

    run()
    return seconds_of(run) / max(sum(counts[: len(chosen)]), 1)


def corpus_cost(
    stage: str, encoder: Encoder, examples: Sequence[Any], draw: Draw, *, passes: int, held: int, sums: int
) -> StageCost:
    """Return the cost of ``passes`` of an encoder over the drawn stimuli, with ``sums`` bytes beside two encoders."""
    counts = piece_counts(encoder, examples, draw.unit)
    total = min(sum(counts), draw.tokens or sum(counts))
    seconds = passes * total * encoding_seconds(encoder, inputs_of(examples, draw.unit), draw.unit)
    batch = draw.batch_tokens * encoder.num_layers * encoder.dim * 4
    memory = placed(held, 2 * (weights_of(encoder.model) + batch) + sums)
    return StageCost(stage, f"{total:,} {draw.unit}s, {passes} passes", seconds, 0, 0, *memory)


def random_vectors(encoder: Encoder, texts: Sequence[Any], kept: Sequence[np.ndarray] | None = None) -> WordVectors:
    """Return random vectors of the shape of the texts' words, or of the ``kept`` ones."""
    lengths = [len(text.words) for text in texts] if kept is None else [len(own) for own in kept]
    shape = (sum(lengths), encoder.num_layers, encoder.dim)
    return WordVectors(torch.randn(shape, generator=torch.Generator().manual_seed(0)).half(), lengths)
