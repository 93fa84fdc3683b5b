"""The command ``bertft rsa``: encoders compared on any text."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch

from bertft.data.location import data_name, pin
from bertft.data.sampling import stimuli_order
from bertft.data.streams import stream
from bertft.errors import BertftError
from bertft.models.encoder import Encoder
from bertft.models.fingerprint import fingerprint, sampled_fingerprint
from bertft.models.noise import noise_encoders
from bertft.models.skipping import first_tokens
from bertft.ops.metrics import LINEAR
from bertft.runs import process
from bertft.runs.artefacts import DamagedArtefact, about_of, read_metadata
from bertft.runs.checkpoint import Checkpoint, team_sizes
from bertft.runs.folder import CONFIG, LOCK, RunFolder, Stage
from bertft.runs.progress import SILENT, Progress
from bertft.runs.rows import Row
from bertft.runs.settings import Count, Settings, Within, check
from bertft.runs.vocabulary import BASE, is_noise
from bertft.similarity import Plan, compare_stream
from bertft.similarity.compare.stimuli import taken
from bertft.similarity.compare.workers import Team, own_device, team
from bertft.similarity.sinks import Place
from bertft.similarity.words.labels import LABELS, OF_WORDS, is_label, labels_of
from bertft.similarity.words.moved import FILES, write_moved
from bertft.study.analyses.rsa import Rsa
from bertft.study.analyses.words import find_words, located
from bertft.study.analysis import check_folder, close_folder, open_folder
from bertft.study.config import DeviceMap, Layers, LoadedAs, Precision, Unit, layer_numbers
from bertft.study.inputs import RANDOM, pinned_models
from bertft.study.massive_places import write_massive
from bertft.study.provenance import SOURCES, sources

CHECKPOINTS = "checkpoint"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class RsaCommand(Settings):
    """Settings of ``bertft rsa``; `Plan` documents those not listed here.

    Attributes:
        base: the encoder to compare with.
        tuned: the encoders to compare, by name.
        text: source of the text.
        tokens: number of stimuli, None for the whole text.
        unit: token or word.
        layers: paired, all, or the numbers of the layers to compare, separated by commas.
        noise: also compare the base with a random change of the size of each tuned encoder's.
        skip_first: tokens to leave out at the beginning of every text, None to choose by the base encoder.
        by: labels of words to list the words that moved by.
        dtype: of the encoders' weights.
        device_map: one device for each encoder, or auto to spread its blocks over several (accelerate).
        precision: of the sums' products, float32, fast or float64.
        split: of a data set.
        seed: of the order in which texts are drawn, and of the sample.
    """

    base: str
    tuned: dict[str, str]
    text: str
    tokens: int | None
    unit: Unit
    metrics: list[str]
    compares: list[str]
    measures: list[str]
    sample: Annotated[int, Within(ge=4)]
    intervals: bool
    layers: Layers
    permutations: Count
    null: Count
    noise: bool
    skip_first: Count | None
    by: list[str]
    dtype: LoadedAs
    device_map: DeviceMap
    precision: Precision
    split: str | None
    seed: int

    def checked(self) -> Plan:
        """Return the plan of the comparison; raise ``BertftError`` for a setting with no meaning."""
        check(self, "bertft rsa")
        if reserved := [name for name in self.tuned if name in ("base", RANDOM) or is_noise(name)]:
            raise BertftError(f"--tuned: {reserved.pop()!r} is reserved in the results; choose another name")
        plan = Plan(
            tuple(self.metrics), tuple(self.compares), tuple(self.measures), self.intervals, self.sample, self.seed,
            self.layers == "all", permutations=self.permutations, layers=layer_numbers(self.layers) or (),
            null=self.null, precision=self.precision,
        )  # fmt: skip
        if unknown := [name for name in self.by if not is_label(name)]:
            raise BertftError(f"--by: expected some of {', '.join(LABELS)}, feats:KEY, misc:KEY, found {unknown[0]!r}")
        if self.by and plan.layers:
            raise BertftError(f"--by: lists words in all layers, found --layers {self.layers}")
        if self.by and not self.local:
            raise BertftError(f"--by: needs a --metric among {', '.join(LINEAR)}, found {', '.join(self.metrics)}")
        return plan

    @property
    def local(self) -> list[str]:
        """The metrics under which local RSA is defined."""
        return [metric for metric in self.metrics if metric in LINEAR]

    @property
    def on_trees(self) -> bool:
        """Whether the text must be read as a treebank."""
        return bool(set(self.by) - set(OF_WORDS)) or ".conllu" in Path(self.text).name

    def pinned(self) -> RsaCommand:
        """Return the settings with sources of the hub pinned to their current commit."""
        return dataclasses.replace(
            self, base=pin(self.base, "model"), tuned=pinned_models(self.tuned), text=pin(self.text)
        )

    def to_tree(self) -> dict[str, Any]:
        """Return the settings as ``config.yaml`` holds them; later ones are omitted at their default."""
        return {
            "command": "rsa", "base": self.base, "tuned": self.tuned, "text": self.text, "split": self.split,
            "tokens": "all" if self.tokens is None else self.tokens, "unit": self.unit, "metric": self.metrics,
            "compare": self.compares, "measures": self.measures, "sample": self.sample, "intervals": self.intervals,
            "by": self.by, "dtype": self.dtype, "seed": self.seed,
            **({"precision": self.precision} if self.precision != "float32" else {}),
            **({"layers": self.layers} if self.layers != "paired" else {}),
            **({"device_map": self.device_map} if self.device_map != "one" else {}),
            **({"permutations": self.permutations} if self.permutations else {}),
            **({"null": self.null} if self.null else {}),
            **({"noise": True} if self.noise else {}),
            **({"skip_first": self.skip_first} if self.skip_first else {}),
        }  # fmt: skip


def run_rsa(command: RsaCommand, out: Path, progress: Progress) -> str:
    """Run or resume a comparison in ``out``; return the lines that locate the results.

    With several processes (torchrun) only the first one writes and reports; the others return an empty string.
    """
    plan = command.checked()
    command = command.pinned()
    check_folder(out, command.to_tree(), later=() if command.skip_first is not None else ("skip_first",))
    process.keep_steady()
    base = _load(command.base, command)
    if command.skip_first is None:
        command = dataclasses.replace(command, skip_first=first_tokens(base))
    folder = open_folder(out, command.to_tree())
    run = _Run(command, plan, base, out, progress)
    with team() as members, claimed(folder, members.leads):
        rows, text = folder.done(run.stage), ""
        if rows is not None and members.leads:
            progress.say(f"{run.data} was done before with the same settings")
            if command.by and not all((out / name).exists() for name in FILES):
                text = run.write_words(run.taken())
        elif rows is None:
            begun = time.monotonic()
            sentences = run.taken() if command.by and members.leads else []
            labels_of(command.by, sentences)  # refuse labels that the text lacks before the work starts
            rows = run.compare(members)
            if rows is not None:
                about = run.plan, command.unit, command.skip_first or 0
                write_massive(run.massive, run.base, ["base", *run.compared], run.texts(), about, out)
                folder.finish(run.stage, rows, time.monotonic() - begun)
                run.checkpoint(members).remove()
                text = run.write_words(sentences) if command.by else ""
        if rows is None or not members.leads:
            return ""
        record = {"seconds": folder.seconds([run.stage]), "finished": folder.finished([run.stage])}
        record[SOURCES] = run.sources
        return text + close_folder(folder, rows, record, [Rsa()], progress=progress)


class _Run:
    """The encoders and the text of a comparison."""

    def __init__(self, command: RsaCommand, plan: Plan, base: Encoder, out: Path, progress: Progress) -> None:
        self.command, self.plan, self.out, self.progress = command, plan, out, progress
        self.source = stream("dep" if command.on_trees else "text", command.text, split=command.split)
        self.base = base
        self.tuned = {name: _load(model, command) for name, model in command.tuned.items()}
        weights = _weights_of(out, {"": self.base, **self.tuned})
        self.depends: dict[str, Any] = {**command.to_tree(), "source": self.source.digest, "weights": weights}
        if not plan.float64 and any(map(plan.in_float64, plan.preparations)):
            self.depends["products"] = "float64 where cca, pwcca or linear_r2 need them"
        self.compared = {**self.tuned, **(noise_encoders(self.base, self.tuned, plan.seed) if command.noise else {})}
        for encoder in (self.base, *self.compared.values()):
            encoder.skip_first = command.skip_first or 0
        self.massive: list[Place] = []
        self.data = data_name(command.text)
        self.stage = Stage(f"rsa/{self.data}", self.depends, list)

    @property
    def sources(self) -> dict[str, Any]:
        """The models and the text with their fingerprints, for ``run.json``."""
        models, text = {BASE: self.command.base, **self.command.tuned}, {self.data: self.command.text}
        found = sources("models", models, self.depends["weights"])
        return found | sources("texts", text, {self.data: self.source.digest})

    def texts(self) -> Iterable[Any]:
        """Return the texts in order: those of the source, or shuffled if not all are wanted."""
        return stimuli_order(self.source, self.command.tokens, self.command.seed)

    def taken(self) -> list[Any]:
        """Return the texts that the comparison takes, the last one whole."""
        return taken(self.base, self.texts(), tokens=self.command.tokens, unit=self.command.unit)

    def checkpoint(self, members: Team) -> Checkpoint:
        """Return this process's checkpoint; raise ``BertftError`` for sums of another number of processes."""
        folder = self.out / CHECKPOINTS
        for other in team_sizes(folder):
            if other != members.size:
                raise BertftError(
                    f"{folder}: holds the sums of {other} processes, found {members.size}; "
                    "rerun with that many, or remove it"
                )
        name = f"{members.rank}-of-{members.size}"
        return Checkpoint(folder, {**self.depends, "processes": members.size}, name)

    def compare(self, members: Team) -> list[Row] | None:
        """Return the rows, or None in a process that does not lead."""
        return compare_stream(
            self.base,
            self.compared,
            self.texts(),
            self.plan,
            tokens=self.command.tokens,
            unit=self.command.unit,
            data=self.data,
            checkpoint=self.checkpoint(members),
            team=members,
            texts_in_all=self.source.count,
            massive=self.massive,
            progress=self.progress if members.leads else SILENT,
        )

    def write_words(self, sentences: list[Any]) -> str:
        """Write the words of ``sentences`` that moved; return the line that locates the files."""
        for encoder in (self.base, *self.tuned.values()):
            encoder.skip_first = 0  # local RSA is of every word
        settings: dict[str, Any] = {"float64": self.plan.float64, "progress": self.progress}
        found = find_words(self.base, self.tuned, sentences, self.command.by, self.command.local, **settings)
        write_moved(found, self.out, self.data)
        return located(self.out, FILES)


def _load(name: str, command: RsaCommand) -> Encoder:
    """Return an encoder on this process's own device, or spread over all."""
    spread = None if command.device_map == "one" else command.device_map
    return Encoder.from_pretrained(name, dtype=DTYPES[command.dtype], device=own_device(), device_map=spread)


def _weights_of(folder: Path, encoders: dict[str, Encoder]) -> dict[str, str]:
    """Return the fingerprint of each encoder.

    A folder written before fingerprints covered every weight holds sampled ones. If they are those of ``encoders``,
    they are returned instead, so that the folder is recognised and resumes.
    """
    markers = [*folder.glob("rsa/*.done.json"), *(folder / CHECKPOINTS).glob("*")]
    if markers:
        sampled = {name: sampled_fingerprint(encoder) for name, encoder in encoders.items()}
        for path in markers:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, DamagedArtefact):  # reported later
                if _settings_in(path)["weights"] == sampled:
                    return sampled
    return {name: fingerprint(encoder) for name, encoder in encoders.items()}


def _settings_in(path: Path) -> Any:
    """Return the settings that a stage's marker or a checkpoint was written with."""
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf8"))["settings"]
    return about_of(path, read_metadata(path))["settings"]


@contextlib.contextmanager
def claimed(folder: RunFolder, leads: bool) -> Iterator[None]:
    """Claim the folder for the leading process; remove it again after an error before the first checkpoint."""
    if not leads:
        yield
        return
    existed = folder.path.exists()
    try:
        with folder.claim():
            yield
    except BertftError:
        if not existed and not (folder.path / CHECKPOINTS).exists():
            for name in (CONFIG, LOCK):
                (folder.path / name).unlink(missing_ok=True)
            if folder.path.is_dir() and not any(folder.path.iterdir()):
                folder.path.rmdir()
        raise
