"""The cost of comparing and probing encoders, from a little of each analysis on some of the study's own examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from bertft.data.examples import Sentence
from bertft.data.readers.spans import SpanText
from bertft.data.sources import sample
from bertft.models.encoder import Encoder
from bertft.probes.edge.control import FRACTIONS
from bertft.probes.edge.head import all_inputs
from bertft.probes.edge.targets import EdgeTargets, label_inventory
from bertft.probes.edge.training import EdgeTraining, count, train_heads
from bertft.probes.structural.orthogonal import train_orthogonal
from bertft.probes.structural.rbf import train_rbf
from bertft.probes.structural.rows import rows_of
from bertft.probes.structural.scores import score_sentences
from bertft.probes.structural.training import Probes, Trees, predict, train_probes
from bertft.probes.structural.trees import punctuation
from bertft.probes.vectors import WordVectors, size_of
from bertft.similarity import compare_encoders
from bertft.similarity.compare.stimuli import choose, count_stimuli, example_of
from bertft.study.config import EdgeConfig, ProbesConfig, RsaConfig
from bertft.study.timing import Line, StageCost, line, placed, seconds_of, weights_of

PIECES = 256  # word pieces that are encoded to time the encoder
SENTENCES = (20, 40)  # that probes are trained on for a moment
TEXTS = 32  # of an edge-probing task
DEV_SHARE = 1 / 3  # of a training sentence's time: its loss without gradients
BATCH_PIECES = 4096  # of an encoder's stream
RESERVOIR = 5000  # stimuli that are kept for the intervals


class Comparing:
    """The cost of comparing encoders like ``base`` with it; what the comparison takes a token is measured once."""

    def __init__(self, config: RsaConfig, base: Encoder, tuned: int, *, seed: int, held: int) -> None:
        self.config, self.base, self.tuned, self.seed, self.held = config, base, tuned, seed, held
        self._compare: dict[bool, Line] = {}

    def cost(self, stage: str, texts: Sequence[Any], *, all_layers: bool = False) -> StageCost:
        """Of a comparison on ``texts``; with ``all_layers`` of every layer with every layer."""
        base, unit, tuned = self.base, self.config.unit, self.tuned
        examples = [example_of(text, unit) for text in texts]
        chosen, counts, _ = choose(base, examples, tokens=self.config.tokens, unit=unit, seed=self.seed)
        total, pieces = sum(counts), sum(count_stimuli(base, chosen, unit))
        encode = _encoding(base, chosen, unit)
        row = base.num_layers * base.dim * 4
        encoders = (tuned + 1) * (weights_of(base.model) + BATCH_PIECES * row)
        sample = tuned * 2 * min(total, RESERVOIR) * row
        sums = tuned * 6 * base.dim * row  # where the encoders are
        if all_layers:
            sums += tuned * 4 * (base.num_layers - 1) * base.dim * row  # cross products of two metrics, in float64
        compare = self._line(chosen, counts, encode, unit, all_layers)
        seconds = (tuned + 1) * encode * pieces + tuned * compare.at(total)
        work = f"{total:,} {unit}s, {tuned + 1} encoders"
        return StageCost(stage, work, seconds, 0, 0, *placed(self.held + sample, encoders + sums))

    def words(self, stage: str, sentences: Sequence[Sentence]) -> StageCost:
        """Of the words that moved: two passes, the sums and each word against them, which are taken to cost alike."""
        base, tuned, texts = self.base, self.tuned, [sentence.words for sentence in sentences]
        counts = [len(words) for words in texts]
        total, encode = sum(counts), _encoding(base, texts, "word")
        compare = self._line(texts, counts, encode, "word", False)
        seconds = 2 * ((tuned + 1) * encode * _pieces(base, sentences) + tuned * compare.at(total))
        row = base.num_layers * base.dim * 4
        encoders = (tuned + 1) * (weights_of(base.model) + BATCH_PIECES * row)
        memory = placed(self.held, encoders + tuned * 3 * base.dim * row)
        return StageCost(stage, f"{total:,} words, {tuned + 1} encoders", seconds, 0, 0, *memory)

    def _line(self, texts: Sequence[Any], counts: Sequence[int], encode: float, unit: str, all_layers: bool) -> Line:
        """Seconds of comparing one pair of encoders by stimuli, measured once on the first texts."""
        if all_layers not in self._compare:
            enough = int(np.searchsorted(np.cumsum(counts), PIECES)) + 1
            few, more = texts[:2], texts[: max(enough, 2)]
            one = partial(self._compared, encode=encode, unit=unit, all_layers=all_layers)
            self._compare[all_layers] = line(*one(few), *one(more))
        return self._compare[all_layers]

    def _compared(self, texts: Sequence[Any], *, encode: float, unit: str, all_layers: bool) -> tuple[int, float]:
        """How many stimuli the texts hold, and seconds of comparing the base with itself on them without encoding."""
        pair = {"a": self.base}
        tokens, metric = sum(count_stimuli(self.base, list(texts), unit)), self.config.metric
        run = seconds_of(
            lambda: compare_encoders(
                self.base, pair, texts, metric=metric, tokens=None, unit=unit, all_layers=all_layers
            )
        )
        return tokens, max(0.0, run - 2 * encode * tokens)


class Probing:
    """The cost of structural probes, the same for every encoder: of every rank and kind, on the trees and controls."""

    def __init__(
        self, config: ProbesConfig, encoder: Encoder, train: Sequence[Sentence], dev: Sequence[Sentence], *, held: int
    ) -> None:
        words, dev_words = (sum(len(s.words) for s in corpus) for corpus in (train, dev))
        encode = _encoding(encoder, [s.words for s in train], "word")
        self.seconds = encode * sum(_pieces(encoder, corpus) for corpus in (train, dev))
        self.scoring = 0.0
        parts = 1 + config.control_trees
        kinds = _kinds(config, encoder)
        for trainer, rank in kinds:
            training, scoring = _timed(trainer, rank, encoder, train, dev)
            self.scoring += scoring.at(len(dev))
            epoch = training.per * (len(train) + DEV_SHARE * len(dev))
            self.seconds += parts * (config.epochs * epoch + training.fixed + scoring.at(len(dev)))
        self.scratch = size_of(words + dev_words, encoder.num_layers, encoder.dim, getattr(torch, config.dtype))
        self.kept = parts * sum(_weights(encoder, rank) + 60 * dev_words for _, rank in kinds)
        widest = max(rank for _, rank in kinds)
        projected = dev_words * encoder.num_layers * widest * 4
        self.memory = held + self.scratch + 2 * projected
        self.training = 4 * _weights(encoder, widest) + (self.scratch if torch.cuda.is_available() else 0)
        self.work = f"{len(train):,} + {len(dev):,} sentences, {words + dev_words:,} words, {config.epochs} epochs"
        if parts * len(kinds) > 1:
            self.work += f", {parts * len(kinds)} sets of probes"
        self._held = held

    def cost(self, stage: str, encoders: int) -> StageCost:
        """Of a stage while ``encoders`` bytes of encoders are loaded."""
        memory = placed(self.memory, encoders + self.training)
        return StageCost(stage, self.work, self.seconds, self.kept, self.scratch, *memory, at_most=True)

    def differences(self, stage: str, count: int, encoders: int) -> StageCost:
        """Of the differences of ``count`` encoders' kept probes: less than scoring those anew."""
        memory = placed(self._held, encoders)
        return StageCost(stage, f"kept probes of {count} encoders", count * self.scoring, 0, 0, *memory, at_most=True)


def _kinds(config: ProbesConfig, encoder: Encoder) -> list[tuple[Callable[..., Probes], int]]:
    """What trains each set of probes of an encoder, and how many dimensions it projects to."""
    found: list[tuple[Callable[..., Probes], int]] = [(partial(train_probes, rank=r), r) for r in config.ranks]
    if config.orthogonal:
        found.append((train_orthogonal, encoder.dim))
    if config.rbf:
        found.append((partial(train_rbf, rank=max(config.ranks)), max(config.ranks)))
    return found


def _weights(encoder: Encoder, rank: int) -> int:
    """Bytes of the distance and depth probes of every layer."""
    return 2 * encoder.num_layers * encoder.dim * rank * 4


def _timed(
    trainer: Callable[..., Probes], rank: int, encoder: Encoder, train: Sequence[Sentence], dev: Sequence[Sentence]
) -> tuple[Line, Line]:
    """Seconds of an epoch by training sentences, and of scoring by dev sentences."""
    some, held_out = sample(train, SENTENCES[1], 0), sample(dev, SENTENCES[1], 0)
    skip, _ = punctuation(held_out)
    points: list[tuple[float, float]] = []
    scored: list[tuple[float, float]] = []
    for size in (SENTENCES[0], *SENTENCES):  # the first one warms up
        own, own_dev = some[:size], held_out[:size]
        vectors, other = _noise(encoder, own), _noise(encoder, own_dev)
        trees, dev_trees = Trees(own), Trees(own_dev)
        one, one_tree = _noise(encoder, own_dev[:1]), Trees(own_dev[:1])
        points.append((len(own), seconds_of(partial(trainer, vectors, trees, one, one_tree, epochs=1))))
        probes = trainer(one, one_tree, one, one_tree, epochs=1)
        score = partial(_score, probes, other, dev_trees, skip[: len(own_dev)], rank)
        scored.append((len(own_dev), seconds_of(score)))
    return line(*points[1], *points[2]), line(*scored[1], *scored[2])


def _score(probes: Probes, vectors: WordVectors, trees: Trees, skip: Sequence[np.ndarray], rank: int) -> None:
    points, depths = predict(probes, vectors)
    found = score_sentences(points, depths, trees.distances, trees.depths, skip)
    rows_of({("x", rank, ""): found}, "x", 0, 1000, False)


def edge_cost(
    config: EdgeConfig, encoder: Encoder, encoders: int, corpora: dict[str, list[SpanText]], *, stage: str, held: int
) -> StageCost:
    """The cost of edge probes of ``encoders`` encoders at the highest number of steps."""
    inventory = label_inventory(corpora["train"])
    targets = {name: EdgeTargets(texts, inventory) for name, texts in corpora.items()}
    some = {name: EdgeTargets(sample(texts, TEXTS, 0), inventory) for name, texts in corpora.items()}
    vectors = {name: _noise(encoder, own.texts, own.kept) for name, own in some.items()}
    material = (all_inputs(encoder.num_layers), vectors["train"], some["train"], vectors["dev"], some["dev"])
    batch = min(config.batch_size, len(some["train"].texts))

    def trained(steps: int) -> Any:
        return train_heads(*material, EdgeTraining(batch=batch, interval=10_000, steps=steps))

    heads = trained(1).heads
    step = line(1, seconds_of(lambda: trained(1)), 3, seconds_of(lambda: trained(3)))
    validate = seconds_of(lambda: count(heads, range(len(material[0])), vectors["dev"], some["dev"]))
    validate *= len(targets["dev"].texts) / len(some["dev"].texts)
    trainings = (2 if config.control else 1) * (1 + (len(FRACTIONS) - 1 if config.code_length else 0))
    once = step.per * config.steps * config.batch_size / batch + validate * (config.steps / config.interval + 1)
    words = {name: [text.words for text in own.texts] for name, own in targets.items()}
    encode = _encoding(encoder, words["train"], "word")
    pieces = sum(len(own) * _mean_pieces(encoder, own) for own in words.values())
    kept = sum(sum(map(len, own.kept)) for own in targets.values())
    store = size_of(kept, encoder.num_layers, encoder.dim, getattr(torch, config.dtype))
    parameters = sum(t.numel() * t.element_size() for t in heads.tensors.values())
    on_gpu = torch.cuda.is_available()  # a copy lies there
    texts = ", ".join(f"{len(own):,} {name}" for name, own in words.items())
    return StageCost(
        stage,
        f"{texts} texts, {encoders} encoders, up to {config.steps:,} steps",
        encoders * (encode * pieces + trainings * once),
        encoders * parameters * (2 if config.control else 1),
        encoders * store,
        *placed(held + store, encoders * weights_of(encoder.model) + 6 * parameters + (store if on_gpu else 0)),
        at_most=True,
    )


def _encoding(encoder: Encoder, examples: Sequence[Any], unit: str) -> float:
    """Seconds a word piece of running an encoder over ``examples``."""
    some = sample(examples, TEXTS, 0)
    mean = _mean_pieces(encoder, some) if unit == "word" else sum(count_stimuli(encoder, some, unit)) / len(some)
    chosen = some[: max(1, int(PIECES / max(mean, 1)))]
    pieces = sum(_pieces_of(encoder, chosen)) if unit == "word" else sum(count_stimuli(encoder, chosen, unit))

    def run() -> None:
        for _ in encoder.stream(chosen, unit=unit, window="split"):
            pass

    run()
    return seconds_of(run) / max(pieces, 1)


def _pieces_of(encoder: Encoder, sentences: Sequence[Sequence[str]]) -> list[int]:
    return count_stimuli(encoder, [tuple(words) for words in sentences], "token")


def _mean_pieces(encoder: Encoder, sentences: Sequence[Sequence[str]]) -> float:
    some = sample(sentences, 256, 0)
    return sum(_pieces_of(encoder, some)) / len(some)


def _pieces(encoder: Encoder, corpus: Sequence[Sentence]) -> float:
    return len(corpus) * _mean_pieces(encoder, [s.words for s in corpus])


def _noise(encoder: Encoder, texts: Sequence[Any], kept: Sequence[np.ndarray] | None = None) -> WordVectors:
    """Vectors of the right shape, drawn at random."""
    lengths = [len(text.words) for text in texts] if kept is None else [len(own) for own in kept]
    shape = (sum(lengths), encoder.num_layers, encoder.dim)
    return WordVectors(torch.randn(shape, generator=torch.Generator().manual_seed(0)).half(), lengths)
