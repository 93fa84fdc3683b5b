"""Corpora and encoders of a study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bertft.data.examples import Question, inputs_of
from bertft.data.location import pin
from bertft.data.sources import load
from bertft.errors import BertftError
from bertft.models.blocks import reinitialise
from bertft.models.devices import main_device
from bertft.models.encoder import Encoder
from bertft.models.finetuning.config import FinetuneConfig, dev_split
from bertft.models.names import resolve_model
from bertft.models.tasks import get_task
from bertft.probes.edge.driver import checked
from bertft.runs.progress import Progress
from bertft.similarity.paired_stimuli import Draw
from bertft.study.config import EdgeConfig, RsaConfig, StudyConfig, settings_of

__all__ = ["RANDOM", "Inputs", "fitting", "load_encoders", "pinned_models"]

RANDOM = "random"  # the name of an encoder with random weights


class Inputs:
    """Corpora and encoders of a study, loaded on first use and cached."""

    def __init__(self, config: StudyConfig, out: Path, progress: Progress) -> None:
        self.config, self.out, self.progress = config, out, progress
        self._encoders: dict[str, Encoder] = {}
        self._examples: dict[tuple[Any, ...], list[Any]] = {}

    @property
    def tuned(self) -> dict[str, dict[str, Any]]:
        """The settings of every fine-tuned encoder, on which every stage that reads them depends."""
        return {name: settings_of(task) for name, task in self.config.tasks.items()}

    @property
    def seeds(self) -> dict[str, Any]:
        """The encoder and the seed, on which every stage depends."""
        return {"model": self.config.model, "seed": self.config.seed}

    def driver(self, name: str) -> FinetuneConfig:
        """Return the fine-tuning configuration of one task."""
        chosen = {key: value for key, value in self.tuned[name].items() if value is not None}
        return FinetuneConfig(model=self.config.model, out=self.out / "models" / name, dev_name=name, **chosen)

    def task(self, name: str, role: str) -> list[Any]:
        """Return the ``train`` or ``dev`` examples of a task, the same that fine-tuning reads."""
        task = self.config.tasks[name]
        if role == "train":
            return self._load(get_task(task.task).kind, task.train, "train", task.max_train)
        return self._load(get_task(task.task).kind, task.dev, dev_split(self.driver(name)), task.max_dev)

    def stimuli(self, text: str) -> list[Any]:
        """Return the examples that RSA compares on: a text of the study, or the dev examples of the task of that name.

        Of questions on one passage only the first is taken: repeated stimuli would make intervals too narrow. Raises
        ``BertftError`` for fewer than two examples, which give no interval.
        """
        stimuli = self.config.stimuli.get(text)
        if stimuli is None:
            examples = self.task(text, "dev")
        else:
            examples = self._load(stimuli.kind, stimuli.source, None, stimuli.limit)
        if isinstance(examples[0], Question):
            examples = list({example.context: example for example in reversed(examples)}.values())[::-1]
        if len(examples) < 2:
            raise BertftError(f"{text}: RSA needs at least 2 different texts for an interval, found {len(examples)}")
        return examples

    def source_of(self, text: str) -> dict[str, Any]:
        """Return the settings of a text of `stimuli`, on which every stage that reads it depends."""
        stimuli, own = self.config.stimuli.get(text), self.tuned.get(text, {})
        return settings_of(stimuli) if stimuli else {"own": own["dev"], "limit": own["max_dev"]}

    @property
    def rsa(self) -> RsaConfig:
        """The settings of similarity; those of a new study if it measures none."""
        return self.config.rsa or RsaConfig()

    def draw(self, tokens: int | None = None) -> Draw:
        """Return the choice of stimuli that similarity takes, or of as many ``tokens``."""
        rsa = self.rsa
        return Draw(tokens or rsa.tokens, rsa.unit, self.config.seed, rsa.draw)

    def trees(self, role: str) -> list[Any]:
        """Return the ``train`` or ``dev`` treebank of the probes."""
        probes = self.config.probes
        assert probes is not None
        if role == "train":
            return self._load("dep", probes.train, "train", probes.max_train)
        return self._load("dep", probes.dev, treebank_split(probes.dev), probes.max_dev)

    def treebank(self) -> list[Any]:
        """Return the trees of the text `StudyConfig.treebank`."""
        return self.trees("dev") if self.config.probes else self.task(str(self.config.treebank), "dev")

    def spans(self, edge: EdgeConfig) -> list[Any]:
        """Return the training, dev and test texts of an edge-probing task, checked; test is None if it has none."""
        roles = (("train", edge.train, edge.max_train), ("dev", edge.dev, edge.max_dev))
        found: list[Any] = [self._load("spans", source, role, limit) for role, source, limit in roles]
        found.append(None if edge.test is None else self._load("spans", edge.test, "test", edge.max_test))
        checked(*found)
        return found

    def _load(self, kind: str, source: str, split: str | None, limit: int | None) -> list[Any]:
        key = (kind, source, split, limit)
        if key not in self._examples:
            self._examples[key] = load(kind, source, split=split, limit=limit)
            if not self._examples[key]:
                raise BertftError(f"{source}: expected at least one example, found none")
        return self._examples[key]

    def encoder(self, name: str) -> Encoder:
        """Return ``base``, ``random`` (the base with random weights) or the tuned encoder of a task."""
        if name not in self._encoders:
            if name == RANDOM:
                encoder = randomised(self.encoder("base"), self.config.seed)
            else:
                source = resolve_model(self.config.model) if name == "base" else str(self.out / "models" / name)
                encoder = Encoder.from_pretrained(source)
                encoder.name = name
            self._encoders[name] = encoder
        return self._encoders[name]

    def encoders(self, *, base: bool = False, random: bool = False) -> dict[str, Encoder]:
        """Return the tuned encoders by task, after the ``base`` and before the ``random`` one if requested."""
        names = [*(["base"] if base else []), *self.config.tasks, *([RANDOM] if random else [])]
        return {name: self.encoder(name) for name in names}


def treebank_split(source: str) -> str:
    """Return the split of ``source`` that probes are scored on."""
    return "dev" if source.startswith("builtin:") else "validation"


def randomised(encoder: Encoder, seed: int) -> Encoder:
    """Return an encoder of the same architecture with weights drawn from ``seed``."""
    return Encoder(reinitialise(encoder.model, seed).to(main_device(encoder.model)), encoder.tokenizer, RANDOM)


def load_encoders(models: dict[str, str], random: bool, seed: int) -> dict[str, Encoder]:
    """Return the encoders by name and, with ``random``, the first one with weights drawn from ``seed``."""
    if random and RANDOM in models:
        raise BertftError(f"--random: an encoder is already named {RANDOM!r}; rename it with NAME=encoder")
    encoders = {name: Encoder.from_pretrained(source) for name, source in models.items()}
    if random:
        encoders[RANDOM] = randomised(next(iter(encoders.values())), seed)
    return encoders


def pinned_models(models: dict[str, str]) -> dict[str, str]:
    """Return the models with those of the hub pinned to their current commit."""
    return {name: pin(source, "model") for name, source in models.items()}


def fitting(encoder: Encoder, examples: Sequence[Any]) -> list[Any]:
    """Return ``examples`` without text pairs longer than the encoder's window, because a pair cannot be split."""
    inputs = inputs_of(examples, "token")
    if not inputs or inputs[0].kind != "pair":
        return list(examples)
    encoded = encoder.tokenise(inputs, "token")
    return [example for example, item in zip(examples, encoded, strict=True) if len(item) <= encoder.max_length]
