"""Edge probes of every layer and mix, with controls."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bertft.data.location import data_name, pin
from bertft.data.readers.spans import SpanText
from bertft.data.sampling import sample
from bertft.data.sources import load
from bertft.models.encoder import Encoder
from bertft.probes.edge.control import FRACTIONS
from bertft.probes.edge.driver import checked, edge_probes
from bertft.probes.edge.head import all_inputs
from bertft.probes.edge.targets import EdgeTargets, label_inventory
from bertft.probes.edge.training import Corpus, EdgeTraining, count, train_heads
from bertft.probes.vectors import check_lengths, size_of
from bertft.runs.folder import Stage, timestamp
from bertft.runs.progress import Progress
from bertft.runs.rows import Row, write_results
from bertft.runs.vocabulary import MeasureName
from bertft.study.analysis import Analysis, close_folder, open_folder
from bertft.study.config import EdgeConfig, settings_of
from bertft.study.inputs import Inputs, load_encoders, pinned_models
from bertft.study.options import EdgeCommand
from bertft.study.probing import command_features, remove_features, study_features, write_notes
from bertft.study.timing import (
    TEXTS,
    Line,
    StageCost,
    encoding_seconds,
    line,
    mean_pieces,
    placed,
    random_vectors,
    seconds_of,
    weights_of,
)

LABELS = "labels.csv"


class Edge(Analysis[Inputs]):
    """Rows ``micro_f1`` and its relatives for each encoder, layer and mix, of every edge-probing task.

    Settings: `EdgeConfig` by task (``edge``).
    """

    name, order, tasks = "edge", 50, ("edge",)

    def stages(self, inputs: Inputs) -> list[Stage]:
        """Return a stage ``edge/<task>`` for every task."""
        return [
            Stage(
                f"edge/{name}",
                {"edge": settings_of(edge), "models": inputs.tuned, **inputs.seeds},
                partial(self.work, inputs, name),
            )
            for name, edge in inputs.config.edge.items()
        ]

    def check(self, inputs: Inputs) -> None:
        """Read the texts of every task; refuse those that cannot be probed."""
        check_spans(inputs, inputs.config.edge)

    def work(self, inputs: Inputs, name: str) -> list[Row]:
        """Return the rows of one task."""
        return probe_edges(inputs, name, inputs.config.edge[name], inputs.out / "edge")

    def cost(self, inputs: Inputs, stages: Sequence[Stage], held: int) -> Iterator[StageCost]:
        """Yield the cost of each task at its highest number of steps."""
        for stage in stages:
            edge = inputs.config.edge[stage.name.partition("/")[2]]
            corpora = checked(*inputs.spans(edge))
            encoders = 1 + len(inputs.config.tasks) + edge.random
            yield edge_cost(edge, inputs.encoder("base"), encoders, corpora, stage=stage.name, held=held)


def check_spans(inputs: Inputs, tasks: Mapping[str, EdgeConfig]) -> None:
    """Read the texts of edge-probing tasks and refuse those beyond the window of the base encoder.

    The base stands for every encoder of the study: all have its tokenizer and its window.
    """
    for name, edge in tasks.items():
        corpora = {f"{name} {role}": texts for role, texts in checked(*inputs.spans(edge)).items()}
        check_lengths(edge.window, [inputs.encoder("base")], corpora, inputs.progress)


def probe_edges(inputs: Inputs, name: str, edge: EdgeConfig, folder: Path) -> list[Row]:
    """Return the rows of the task ``name`` for all encoders of the study.

    Writes to ``folder``: the probes in ``<name>/``, the scores of each label in ``<name>.labels.csv``, and notes on
    the rows, if any, in ``<name>.notes.txt``.
    """
    with study_features(edge, folder / ".features") as store:
        result = edge_probes(
            inputs.encoders(base=True, random=edge.random),
            *inputs.spans(edge),
            data=name,
            training=_training(edge, inputs.config.seed),
            control=edge.control,
            code_length=edge.code_length,
            mixes=edge.mixes,
            store=store,
            out=folder / name,
            progress=inputs.progress,
        )
    for note in result.notes:
        inputs.progress.say(f"{name}: {note}")
    write_results(folder / f"{name}.labels.csv", result.labels)
    write_notes(folder / f"{name}.notes.txt", result.notes)
    return result.rows


def _training(settings: EdgeConfig | EdgeCommand, seed: int) -> EdgeTraining:
    return EdgeTraining(settings.learning_rate, settings.batch_size, settings.interval, settings.steps, seed)


def edge_cost(
    config: EdgeConfig, encoder: Encoder, encoders: int, corpora: dict[str, list[SpanText]], *, stage: str, held: int
) -> StageCost:
    """Return the cost of edge probes of ``encoders`` encoders at the highest number of steps."""
    inventory = label_inventory(corpora["train"])
    targets = {name: EdgeTargets(texts, inventory) for name, texts in corpora.items()}
    words = {name: [text.words for text in own.texts] for name, own in targets.items()}
    step, validation, parameters = _timed(config, encoder, {n: own.texts for n, own in targets.items()}, inventory)
    trainings = (2 if config.control else 1) * (1 + (len(FRACTIONS) - 1 if config.code_length else 0))
    once = step.per * config.steps + validation * (config.steps / config.interval + 1)
    encode = encoding_seconds(encoder, words["train"], "word")
    pieces = sum(len(own) * mean_pieces(encoder, own) for own in words.values())
    kept = sum(sum(map(len, own.kept)) for own in targets.values())
    store = size_of(kept, encoder.num_layers, encoder.dim, getattr(torch, config.dtype))
    copied = store if torch.cuda.is_available() else 0  # to the GPU
    texts = ", ".join(f"{len(own):,} {name}" for name, own in words.items())
    return StageCost(
        stage,
        f"{texts} texts, {encoders} encoders, up to {config.steps:,} steps",
        encoders * (encode * pieces + trainings * once),
        encoders * parameters * (2 if config.control else 1),
        encoders * store,
        *placed(held + store, encoders * weights_of(encoder.model) + 6 * parameters + copied),
        at_most=True,
    )


def _timed(
    config: EdgeConfig, encoder: Encoder, corpora: Mapping[str, Sequence[SpanText]], inventory: Any
) -> tuple[Line, float, int]:
    """Return the seconds of a training step, of a validation, and the bytes of the probes' parameters."""
    some = {name: EdgeTargets(sample(corpora[name], TEXTS, 0), inventory) for name in ("train", "dev")}
    vectors = {name: random_vectors(encoder, own.texts, own.kept) for name, own in some.items()}
    probes = all_inputs(encoder.num_layers, config.mixes)
    train, dev = (Corpus(vectors[name], some[name]) for name in ("train", "dev"))
    batch = min(config.batch_size, len(some["train"].texts))

    def trained(steps: int) -> Any:
        return train_heads(probes, train, dev, EdgeTraining(batch=batch, interval=10_000, steps=steps))

    heads = trained(1).heads
    step = line(1, seconds_of(lambda: trained(1)), 3, seconds_of(lambda: trained(3)))
    validation = seconds_of(lambda: count(heads, range(len(probes)), vectors["dev"], some["dev"]))
    parameters = sum(t.numel() * t.element_size() for t in heads.tensors.values())
    scaled = Line(step.fixed, step.per * config.batch_size / batch)
    return scaled, validation * len(corpora["dev"]) / len(some["dev"].texts), parameters


def run_edge(command: EdgeCommand, out: Path, features: Path | None, progress: Progress) -> str:
    """Run or resume edge probes in ``out``; return the lines that summarise and locate the results."""
    store = command_features(command, out, features)
    command = dataclasses.replace(
        command, models=pinned_models(command.models), train=pin(command.train), dev=pin(command.dev),
        test=command.test and pin(command.test),
    )  # fmt: skip
    folder = open_folder(out, {"command": "probe edge", **dataclasses.asdict(command)})
    train = load("spans", command.train, split="train", limit=command.max_train)
    dev = load("spans", command.dev, split="dev", limit=command.max_dev)
    test = None if command.test is None else load("spans", command.test, split="test", limit=command.max_test)
    encoders = load_encoders(command.models, command.random, command.seed)
    check_lengths(store.window, encoders.values(), checked(train, dev, test), progress)
    with folder.claim():
        result = edge_probes(
            encoders, train, dev, test,
            data=command.name or task_name(command.train), training=_training(command, command.seed),
            control=command.control, code_length=command.code_length, mixes=command.mixes,
            store=store, out=out / "probes", progress=progress,
        )  # fmt: skip
        write_results(out / LABELS, result.labels)
        record = {"notes": result.notes, "seconds": result.seconds, "finished": timestamp()}
        located = close_folder(folder, result.rows, record, progress=progress)
        remove_features(out)
    return "\n".join([*(f"note: {note}" for note in result.notes), *chosen_layers(result.rows), located])


def chosen_layers(rows: Sequence[Row]) -> list[str]:
    """Return lines for each encoder: lexical layer, best layer, top with lexical layer, full mix."""
    by = {(row.model, row.measure, row.layer): row for row in rows}
    found = []
    for model in dict.fromkeys(row.model for row in rows):
        layers = [row for row in rows if row.model == model and row.measure == "micro_f1"]
        best, top = max(layers, key=lambda row: row.value), max(layers, key=lambda row: row.layer or 0)
        places = (
            ("lexical, layer 0", MeasureName("micro_f1"), 0),
            (f"best, layer {best.layer}", MeasureName("micro_f1"), best.layer),
            (f"layers 0 and {top.layer}", MeasureName("micro_f1", input="cat"), top.layer),
            (f"mix of 0 to {top.layer}", MeasureName("micro_f1", input="mix"), top.layer),
        )
        for place, measure, layer in places:
            row = by.get((model, str(measure), layer))
            control = by.get((model, str(dataclasses.replace(measure, control=True)), layer))
            if row is not None:
                beside = "" if control is None else f", control {control.value:.3f}"
                found.append(f"{model}, {place}: micro-F1 {row.value:.3f} [{row.low:.3f}, {row.high:.3f}]{beside}")
    return found


def task_name(source: str) -> str:
    """Return a short name of a task: of ``edge_probing/pos_ewt/train.jsonl.gz`` it is ``pos_ewt``."""
    name = data_name(source)
    return Path(source).parent.name or name if name in ("train", "dev", "test") and "/" in source else name
