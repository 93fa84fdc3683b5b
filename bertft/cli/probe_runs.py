"""What the ``probe`` commands do beyond their options: check first, work, then write the run folder."""

from __future__ import annotations

import dataclasses
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertft.cli.doctor import versions
from bertft.cli.runs import _vacant
from bertft.errors import BertftError
from bertft.runs.folder import RESULTS, RunFolder, timestamp
from bertft.runs.progress import Progress
from bertft.runs.rows import Row, write_results, write_text_atomically

if TYPE_CHECKING:
    from bertft.models.encoder import Encoder
    from bertft.probes.feature_store import FeatureStore

RANDOM = "random"
LABELS = "labels.csv"


@dataclass(frozen=True)
class EdgeCommand:
    """The settings of ``bertft probe edge``."""

    models: dict[str, str]
    train: str
    dev: str
    test: str | None
    name: str
    control: bool
    code_length: bool
    random: bool
    learning_rate: float
    batch_size: int
    interval: int
    steps: int
    max_train: int | None
    max_dev: int | None
    max_test: int | None
    dtype: str
    stream: bool
    window: str
    seed: int


def run_edge(command: EdgeCommand, out: Path, features: Path | None, progress: Progress) -> str:
    """Edge probes into ``out``; returns the lines that say how it went and where the result is."""
    from bertft.data.sources import load, pin
    from bertft.probes.edge.driver import checked, edge_probes
    from bertft.probes.edge.training import EdgeTraining
    from bertft.probes.lengths import check_lengths

    store = feature_store(command, out, features)
    command = dataclasses.replace(
        command, models=_pinned(command.models), train=pin(command.train), dev=pin(command.dev),
        test=command.test and pin(command.test),
    )  # fmt: skip
    folder = _vacant(out, {"command": "probe edge", **dataclasses.asdict(command)})
    training = EdgeTraining(
        command.learning_rate, command.batch_size, command.interval, command.steps, command.seed
    )  # fmt: skip
    train = load("spans", command.train, split="train", limit=command.max_train)
    dev = load("spans", command.dev, split="dev", limit=command.max_dev)
    test = None if command.test is None else load("spans", command.test, split="test", limit=command.max_test)
    encoders = load_encoders(command.models, command.random, command.seed)
    check_lengths(store.window, encoders.values(), checked(train, dev, test), progress)
    with folder.claim():
        result = edge_probes(
            encoders, train, dev, test,
            data=command.name or task_name(command.train), training=training, control=command.control,
            code_length=command.code_length, store=store, out=out / "probes", progress=progress,
        )  # fmt: skip
        write_results(out / LABELS, result.labels)
        said = finish(folder, result.rows, {"notes": result.notes, "seconds": result.seconds}, progress)
    return "\n".join([*(f"note: {note}" for note in result.notes), *_table(result.rows), *said])


def _table(rows: Sequence[Row]) -> list[str]:
    """Of each encoder the lexical layer, the best one, top beside lexical and the full mix, each beside its control."""
    by = {(row.model, row.measure, row.layer): row for row in rows}
    said = []
    for model in dict.fromkeys(row.model for row in rows):
        layers = [row for row in rows if row.model == model and row.measure == "micro_f1"]
        best, top = max(layers, key=lambda row: row.value), max(layers, key=lambda row: row.layer or 0)
        places = (
            ("lexical, layer 0", "", 0), (f"best, layer {best.layer}", "", best.layer),
            (f"layers 0 and {top.layer}", "cat_", top.layer), (f"mix of 0 to {top.layer}", "mix_", top.layer),
        )  # fmt: skip
        for place, prefix, layer in places:
            row = by.get((model, f"{prefix}micro_f1", layer))
            control = by.get((model, f"{prefix}control_micro_f1", layer))
            if row is not None:
                beside = "" if control is None else f", control {control.value:.3f}"
                said.append(f"{model}, {place}: micro-F1 {row.value:.3f} [{row.low:.3f}, {row.high:.3f}]{beside}")
    return said


@dataclass(frozen=True)
class StructuralCommand:
    """The settings of ``bertft probe structural``."""

    models: dict[str, str]
    train: str
    dev: str
    rank: list[int]
    orthogonal: bool
    rbf: bool
    control: bool
    random: bool
    epochs: int
    max_train: int | None
    max_dev: int | None
    dtype: str
    stream: bool
    window: str
    seed: int


def run_structural(command: StructuralCommand, out: Path, features: Path | None, progress: Progress) -> str:
    """Structural probes into ``out``; returns the lines that say how it went and where the result is.

    The trained probes and their trees are kept in ``out/probes``; those that are there already are not trained again.
    """
    from bertft.data.sources import data_name, load, pin
    from bertft.probes.lengths import check_lengths
    from bertft.probes.structural.driver import structural_probes
    from bertft.probes.structural.trees import check_scorable

    store = feature_store(command, out, features)
    command = dataclasses.replace(
        command, models=_pinned(command.models), train=pin(command.train), dev=pin(command.dev)
    )
    folder = _vacant(out, {"command": "probe structural", **dataclasses.asdict(command)})
    train = load("dep", command.train, split="train", limit=command.max_train)
    split = "dev" if command.dev.startswith("builtin:") else "validation"
    dev = load("dep", command.dev, split=split, limit=command.max_dev)
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
        said = finish(folder, rows, {"notes": notes, "seconds": seconds}, progress)
    return "\n".join([*(f"note: {note}" for note in notes), *_tree_table(rows), *said])


def _tree_table(rows: Sequence[Row]) -> list[str]:
    """Of each encoder and set of probes every measure's best layer, beside its control and layer 0."""
    by = {(row.model, row.measure, row.layer): row for row in rows}
    said = []
    for model, measure in dict.fromkeys((row.model, row.measure) for row in rows):
        known = re.fullmatch(r"(dspr|uuas|nspr|root_accuracy)(_\w+)?", measure)
        if known is None or re.match("_(selectivity|difference)", known[2] or ""):
            continue
        best = max((row for row in rows if (row.model, row.measure) == (model, measure)), key=lambda row: row.value)
        beside = f"; layer 0 {by[model, measure, 0].value:.3f}"
        control = by.get((model, f"control_{measure}", best.layer))
        if control is not None:
            beside = f", control {control.value:.3f}{beside}"
        value = f"{best.value:.3f} [{best.low:.3f}, {best.high:.3f}]"
        said.append(f"{model}, {measure}, best layer {best.layer}: {value}{beside}")
    return said


def _draw_trees(out: Path, dev: list[Any]) -> None:
    """One sentence's gold and predicted tree for every set of probes: the first of 8 to 16 words, else the first."""
    from bertft.data.readers.conllu import read_conllu
    from bertft.report.draw.tree import tree_svg

    chosen = next((i for i, s in enumerate(dev) if 8 <= len(s.words) <= 16), 0)
    for path in sorted((out / "probes").glob("*.conllu")):
        if not path.stem.endswith(".control"):
            gold, predicted = dev[chosen], read_conllu(path)[chosen]
            picture = tree_svg(gold.words, gold.heads, predicted.heads, f"{path.stem}: gold above, predicted below")
            write_text_atomically(out / "figures" / f"tree_{path.stem}.svg", picture)


def _pinned(models: dict[str, str]) -> dict[str, str]:
    """Encoders of the hub at the commits they are at now."""
    from bertft.data.sources import pin

    return {name: pin(source, "model") for name, source in models.items()}


def load_encoders(models: dict[str, str], random: bool, seed: int) -> dict[str, Encoder]:
    """The encoders by name, and with ``random`` the first one's architecture with weights drawn from ``seed``."""
    from bertft.models.encoder import Encoder, reinitialise

    if random and RANDOM in models:
        raise BertftError(f"--random: an encoder is called {RANDOM!r} already; give it another name with NAME=encoder")
    encoders = {name: Encoder.from_pretrained(source) for name, source in models.items()}
    if random:
        first = next(iter(encoders.values()))
        model = reinitialise(first.model, seed).to(first.device)
        encoders[RANDOM] = Encoder(model, first.tokenizer, RANDOM)
    return encoders


def feature_store(command: EdgeCommand | StructuralCommand, out: Path, features: Path | None) -> FeatureStore:
    """The feature store of a run: in ``features``, or in the run folder."""
    import torch

    from bertft.probes.feature_store import FeatureStore

    if command.window not in ("refuse", "split"):
        raise BertftError(f"--window: expected refuse or split, found {command.window!r}")
    dtype = getattr(torch, command.dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise BertftError(f"--dtype: expected float16 or float32, found {command.dtype!r}")
    return FeatureStore(features or out / "features", dtype=dtype, window=command.window, stream=command.stream)


def finish(folder: RunFolder, rows: list[Row], record: dict[str, object], progress: Progress) -> list[str]:
    """Write the table, the record and the page; the lines that say where they are."""
    from bertft.report import write_report

    folder.write_table(rows)
    folder.write_record({"versions": versions(), **record, "finished": timestamp()})
    page = write_report(folder.path, progress=progress)
    shutil.rmtree(folder.path / "features", ignore_errors=True)  # only needed to go on after an interruption
    return [f"Results are in {(folder.path / RESULTS).resolve()}", f"The page is at {page.resolve()}"]


def task_name(source: str) -> str:
    """A short name for a task: ``edge_probing/pos_ewt/train.jsonl.gz`` is ``pos_ewt``."""
    from bertft.data.sources import data_name

    name = data_name(source)
    return Path(source).parent.name or name if name in ("train", "dev", "test") and "/" in source else name
