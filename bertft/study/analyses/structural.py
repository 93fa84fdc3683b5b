"""Structural probes of every layer."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bertft.data.examples import Sentence
from bertft.data.location import data_name, pin
from bertft.data.readers.conllu import read_conllu
from bertft.data.sampling import sample
from bertft.data.sources import load
from bertft.models.encoder import Encoder
from bertft.probes.structural import driver
from bertft.probes.structural.driver import structural_probes
from bertft.probes.structural.kind import ProbeKind
from bertft.probes.structural.orthogonal import train_orthogonal
from bertft.probes.structural.rbf import train_rbf
from bertft.probes.structural.rows import rows_of
from bertft.probes.structural.scores import score_sentences
from bertft.probes.structural.training import Corpus, Probes, Trees, predict, train_probes
from bertft.probes.structural.trees import check_scorable, punctuation
from bertft.probes.vectors import WordVectors, check_lengths, size_of
from bertft.report.draw.tree import tree_svg
from bertft.runs.files import write_text_atomically
from bertft.runs.folder import Stage, timestamp
from bertft.runs.progress import Progress
from bertft.runs.rows import Row
from bertft.runs.vocabulary import MeasureName
from bertft.study.analysis import Analysis, close_folder, open_folder
from bertft.study.config import ProbesConfig, settings_of
from bertft.study.inputs import RANDOM, Inputs, load_encoders, pinned_models, treebank_split
from bertft.study.options import StructuralCommand
from bertft.study.probing import command_features, remove_features, study_features, write_notes
from bertft.study.timing import (
    Line,
    StageCost,
    corpus_pieces,
    encoding_seconds,
    line,
    placed,
    random_vectors,
    seconds_of,
    weights_of,
)

TIMED = (20, 40)  # sentences that probes are trained on to time them
DEV_SHARE = 1 / 3  # of a training sentence's time: its loss without gradients
TREE_BYTES = 60  # a word, of predicted trees and scores on disk


class Structural(Analysis[Inputs]):
    """Rows ``dspr``, ``uuas``, ``nspr``, ``root_accuracy`` for each encoder and layer, and differences to the base.

    Settings: `ProbesConfig` (``probes``).
    """

    name, order, tasks = "structural", 40, ("structural",)

    def stages(self, inputs: Inputs) -> list[Stage]:
        """Return a stage ``probes/<encoder>`` for every encoder, and ``differences/probes``."""
        probes = inputs.config.probes
        if probes is None:
            return []
        settings, scored = settings_of(probes), {"format": driver.FORMAT, **inputs.seeds}
        found = []
        for name in ["base", *inputs.config.tasks, *([RANDOM] if probes.control else [])]:
            depends = {"probes": settings, "encoder": inputs.tuned.get(name, name), **scored}
            found.append(Stage(f"probes/{name}", depends, partial(self.work, inputs, name)))
        depends = {"differences": settings, "models": inputs.tuned, **scored}
        return [*found, Stage("differences/probes", depends, partial(self.differences, inputs))]

    def check(self, inputs: Inputs) -> None:
        """Read both treebanks; refuse trees that cannot be scored and sentences beyond the encoder's window."""
        probes = inputs.config.probes
        if probes is None:
            return
        corpora = {f"probes' {role}": inputs.trees(role) for role in ("train", "dev")}
        check_scorable(inputs.trees("dev"))
        check_lengths(probes.window, [inputs.encoder("base")], corpora, inputs.progress)

    def work(self, inputs: Inputs, name: str) -> list[Row]:
        """Return the rows of one encoder."""
        notes: list[str] = []
        assert inputs.config.probes is not None
        rows = _probe(inputs, [name], control=inputs.config.probes.control_trees, notes=notes)
        for note in notes:
            inputs.progress.say(note)
        write_notes(inputs.out / "probes" / f"{name}.notes.txt", notes)
        return rows

    def differences(self, inputs: Inputs) -> list[Row]:
        """Return the differences to the base, paired by sentence, of the probes that earlier stages trained."""
        rows = _probe(inputs, ["base", *inputs.config.tasks], differences=True)
        return [row for row in rows if "_difference" in row.measure]

    def cost(self, inputs: Inputs, stages: Sequence[Stage], held: int) -> Iterator[StageCost]:
        """Yield the cost of each encoder, the same for all, and of the differences."""
        assert inputs.config.probes is not None
        base, tasks = inputs.encoder("base"), len(inputs.config.tasks)
        cost = ProbingCost(inputs.config.probes, base, inputs.trees("train"), inputs.trees("dev"), held=held)
        loaded = (2 + tasks) * weights_of(base.model)
        for stage in stages:
            if stage.name.startswith("probes/"):
                yield cost.of_encoder(stage.name, loaded)
            else:
                yield cost.of_differences(stage.name, 1 + tasks, loaded)


def _probe(
    inputs: Inputs,
    names: Sequence[str],
    *,
    control: bool = False,
    differences: bool = False,
    notes: list[str] | None = None,
) -> list[Row]:
    probes, folder = inputs.config.probes, inputs.out / "probes"
    assert probes is not None
    with study_features(probes, folder / ".features") as store:
        return structural_probes(
            {name: inputs.encoder(name) for name in names},
            inputs.trees("train"),
            inputs.trees("dev"),
            rank=probes.ranks,
            orthogonal=probes.orthogonal,
            rbf=probes.rbf,
            epochs=probes.epochs,
            seed=inputs.config.seed,
            data=probes.name,
            out=folder,
            control=control,
            differences=differences,
            store=store,
            notes=notes,
            progress=inputs.progress,
        )


class ProbingCost:
    """Cost of structural probes, the same for every encoder: all ranks and kinds, on trees and control trees."""

    def __init__(
        self, config: ProbesConfig, encoder: Encoder, train: Sequence[Sentence], dev: Sequence[Sentence], *, held: int
    ) -> None:
        words, dev_words = (sum(len(s.words) for s in corpus) for corpus in (train, dev))
        encode = encoding_seconds(encoder, [s.words for s in train], "word")
        self.seconds = encode * sum(corpus_pieces(encoder, corpus) for corpus in (train, dev))
        self.scoring = 0.0
        parts = 1 + config.control_trees
        kinds = _kinds(config, encoder)
        for trainer, rank in kinds:
            training, scoring = _timed(trainer, rank, encoder, train, dev)
            self.scoring += scoring.at(len(dev))
            epoch = training.per * (len(train) + DEV_SHARE * len(dev))
            self.seconds += parts * (config.epochs * epoch + training.fixed + scoring.at(len(dev)))
        self.scratch = size_of(words + dev_words, encoder.num_layers, encoder.dim, getattr(torch, config.dtype))
        self.kept = parts * sum(_weights(encoder, rank) + TREE_BYTES * dev_words for _, rank in kinds)
        widest = max(rank for _, rank in kinds)
        projected = dev_words * encoder.num_layers * widest * 4
        self.held = held
        self.memory = held + self.scratch + 2 * projected
        self.training = 4 * _weights(encoder, widest) + (self.scratch if torch.cuda.is_available() else 0)
        self.work = f"{len(train):,} + {len(dev):,} sentences, {words + dev_words:,} words, {config.epochs} epochs"
        if parts * len(kinds) > 1:
            self.work += f", {parts * len(kinds)} sets of probes"

    def of_encoder(self, stage: str, loaded: int) -> StageCost:
        """Return the cost of probing one encoder while ``loaded`` bytes of encoders are in memory."""
        memory = placed(self.memory, loaded + self.training)
        return StageCost(stage, self.work, self.seconds, self.kept, self.scratch, *memory, at_most=True)

    def of_differences(self, stage: str, count: int, loaded: int) -> StageCost:
        """Return the cost of comparing ``count`` encoders' trained probes, at most that of scoring them again."""
        memory = placed(self.held, loaded)
        return StageCost(stage, f"kept probes of {count} encoders", count * self.scoring, 0, 0, *memory, at_most=True)


def _kinds(config: ProbesConfig, encoder: Encoder) -> list[tuple[Callable[..., Probes], int]]:
    """Return the trainer and the number of dimensions of each set of probes of an encoder."""
    found: list[tuple[Callable[..., Probes], int]] = [(partial(train_probes, rank=r), r) for r in config.ranks]
    if config.orthogonal:
        found.append((train_orthogonal, encoder.dim))
    if config.rbf:
        found.append((partial(train_rbf, rank=max(config.ranks)), max(config.ranks)))
    return found


def _weights(encoder: Encoder, rank: int) -> int:
    """Return the bytes of the distance and depth probes of every layer."""
    return 2 * encoder.num_layers * encoder.dim * rank * 4


def _timed(
    trainer: Callable[..., Probes], rank: int, encoder: Encoder, train: Sequence[Sentence], dev: Sequence[Sentence]
) -> tuple[Line, Line]:
    """Return the seconds of an epoch by training sentences, and of scoring by dev sentences."""
    some, some_dev = sample(train, TIMED[1], 0), sample(dev, TIMED[1], 0)
    skip, _ = punctuation(some_dev)
    points: list[tuple[float, float]] = []
    scored: list[tuple[float, float]] = []
    for size in (TIMED[0], *TIMED):  # the first one warms up
        own, own_dev = some[:size], some_dev[:size]
        corpus, other = Corpus(random_vectors(encoder, own), Trees(own)), random_vectors(encoder, own_dev)
        one = Corpus(random_vectors(encoder, own_dev[:1]), Trees(own_dev[:1]))
        points.append((len(own), seconds_of(partial(trainer, corpus, one, epochs=1))))
        probes = trainer(one, one, epochs=1)
        score = partial(_score, probes, other, Trees(own_dev), skip[: len(own_dev)], rank)
        scored.append((len(own_dev), seconds_of(score)))
    return line(*points[1], *points[2]), line(*scored[1], *scored[2])


def _score(probes: Probes, vectors: WordVectors, trees: Trees, skip: Sequence[np.ndarray], rank: int) -> None:
    points, depths = predict(probes, vectors)
    found = score_sentences(points, depths, trees.distances, trees.depths, skip)
    rows_of({("x", ProbeKind("linear", rank), ""): found}, "x", 0, 1000, False)


def run_structural(command: StructuralCommand, out: Path, features: Path | None, progress: Progress) -> str:
    """Run or resume structural probes in ``out``; return the lines that summarise and locate the results.

    Probes in ``out/probes`` that were trained with the same settings are not trained again.
    """
    store = command_features(command, out, features)
    command = dataclasses.replace(
        command, models=pinned_models(command.models), train=pin(command.train), dev=pin(command.dev)
    )
    folder = open_folder(out, {"command": "probe structural", **dataclasses.asdict(command)})
    train = load("dep", command.train, split="train", limit=command.max_train)
    dev = load("dep", command.dev, split=treebank_split(command.dev), limit=command.max_dev)
    check_scorable(dev)
    encoders = load_encoders(command.models, command.random, command.seed)
    check_lengths(store.window, encoders.values(), {"train": train, "dev": dev}, progress)
    with folder.claim():
        started, notes = time.monotonic(), list[str]()
        rows = structural_probes(
            encoders, train, dev,
            rank=command.rank, orthogonal=command.orthogonal, rbf=command.rbf, epochs=command.epochs, seed=command.seed,
            data=data_name(command.dev), out=out / "probes", control=command.control,
            differences=len(encoders) > 1, store=store, notes=notes, progress=progress,
        )  # fmt: skip
        _draw_trees(out, dev)
        seconds = {"probe structural": round(time.monotonic() - started, 2)}
        record = {"notes": notes, "seconds": seconds, "finished": timestamp()}
        located = close_folder(folder, rows, record, progress=progress)
        remove_features(out)
    return "\n".join([*(f"note: {note}" for note in notes), *best_layers(rows), located])


def best_layers(rows: Sequence[Row]) -> list[str]:
    """Return a line for every encoder and measure: the best layer with its control, and layer 0."""
    by = {(row.model, row.measure, row.layer): row for row in rows}
    found = []
    for model, measure in dict.fromkeys((row.model, row.measure) for row in rows):
        name = MeasureName.parse(measure)
        if name.measure.family != "structural" or name.control or name.derived:
            continue
        best = max((row for row in rows if (row.model, row.measure) == (model, measure)), key=lambda row: row.value)
        beside = f"; layer 0 {by[model, measure, 0].value:.3f}"
        control = by.get((model, str(dataclasses.replace(name, control=True)), best.layer))
        if control is not None:
            beside = f", control {control.value:.3f}{beside}"
        value = f"{best.value:.3f} [{best.low:.3f}, {best.high:.3f}]"
        found.append(f"{model}, {measure}, best layer {best.layer}: {value}{beside}")
    return found


def _draw_trees(out: Path, dev: Sequence[Any]) -> None:
    """Draw gold and predicted trees of one sentence for every set of probes: the first of 8 to 16 words, if any."""
    chosen = next((i for i, s in enumerate(dev) if 8 <= len(s.words) <= 16), 0)
    for path in sorted((out / "probes").glob("*.conllu")):
        if not path.stem.endswith(".control"):
            gold, predicted = dev[chosen], read_conllu(path)[chosen]
            picture = tree_svg(gold.words, gold.heads, predicted.heads, f"{path.stem}: gold above, predicted below")
            write_text_atomically(out / "figures" / f"tree_{path.stem}.svg", picture)
