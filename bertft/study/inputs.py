"""What the stages of a study work on: its corpora and encoders."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertft.errors import BertftError
from bertft.models.tasks import get_task
from bertft.runs.progress import Progress
from bertft.study.config import EdgeConfig, StudyConfig

if TYPE_CHECKING:
    from bertft.models.encoder import Encoder
    from bertft.models.finetuning.run import FinetuneConfig

__all__ = ["Materials", "fitting"]


class Materials:
    """Corpora and encoders of a study, each loaded when first needed and kept."""

    def __init__(self, config: StudyConfig, out: Path, progress: Progress) -> None:
        self.config, self.out, self.progress = config, out, progress
        self._encoders: dict[str, Encoder] = {}
        self._examples: dict[tuple[Any, ...], list[Any]] = {}

    def check(self) -> None:
        """Read every corpus and find the model, so that bad input is refused before anything is written."""
        from bertft.data.sources import resolve_model

        resolve_model(self.config.model)
        readers: list[Callable[[], list[Any]]] = [partial(self.task, name, "train") for name in self.config.tasks]
        readers += [partial(self.task, name, "dev") for name in self.config.tasks]
        if self.config.rsa:
            texts = dict.fromkeys([*self.config.own_text.values(), *self.config.stimuli])
            readers += [partial(self.stimuli, text) for text in texts]
            readers += [self.treebank] if self.config.rsa.labels else []
        if self.config.probes:
            readers += [partial(self.trees, "train"), self._scorable_trees]
        with self.progress.step("read the corpora", total=len(readers), unit="files") as bar:
            for reader in readers:
                reader()
                bar.advance()
        if probes := self.config.probes:
            from bertft.probes.lengths import check_lengths

            corpora = {f"probes' {role}": self.trees(role) for role in ("train", "dev")}
            check_lengths(probes.window, [self.encoder("base")], corpora, self.progress)
        self.check_spans(self.config.edge)

    def check_spans(self, tasks: Mapping[str, EdgeConfig]) -> None:
        """Read the texts of edge-probing tasks, and refuse those that the base encoder's window does not hold.

        Every encoder of a study has the base's tokenizer and window: what that cannot take, none of them can.
        """
        from bertft.probes.edge.driver import checked
        from bertft.probes.lengths import check_lengths

        for name, edge in tasks.items():
            corpora = {f"{name} {role}": texts for role, texts in checked(*self.spans(edge)).items()}
            check_lengths(edge.window, [self.encoder("base")], corpora, self.progress)

    def driver(self, name: str) -> FinetuneConfig:
        """The fine-tuning driver's configuration of one task."""
        from bertft.models.finetuning.run import FinetuneConfig

        chosen = {key: value for key, value in dataclasses.asdict(self.config.tasks[name]).items() if value is not None}
        return FinetuneConfig(model=self.config.model, out=self.out / "models" / name, dev_name=name, **chosen)

    def task(self, name: str, role: str) -> list[Any]:
        """The ``train`` or ``dev`` examples of a task, the very ones the fine-tuning driver reads."""
        from bertft.models.finetuning.run import dev_split

        task = self.config.tasks[name]
        if role == "train":
            return self._load(get_task(task.task).kind, task.train, "train", task.max_train)
        return self._load(get_task(task.task).kind, task.dev, dev_split(self.driver(name)), task.max_dev)

    def stimuli(self, text: str) -> list[Any]:
        """What RSA runs on: a text of the study, or the dev examples of the task of that name.

        A passage that several questions share is taken once, with its first question: stimuli that repeat each other
        would make an interval look narrower than it is. An interval needs two texts at least.
        """
        stimuli = self.config.stimuli.get(text)
        if stimuli is None:
            examples = self.task(text, "dev")
        else:
            examples = self._load(stimuli.kind, stimuli.source, None, stimuli.limit)
        if hasattr(examples[0], "context"):
            examples = list({example.context: example for example in reversed(examples)}.values())[::-1]
        if len(examples) < 2:
            raise BertftError(f"{text}: RSA needs at least 2 different texts for an interval, found {len(examples)}")
        return examples

    def trees(self, role: str) -> list[Any]:
        """The ``train`` or ``dev`` treebank of the probes."""
        probes = self.config.probes
        assert probes is not None
        if role == "train":
            return self._load("dep", probes.train, "train", probes.max_train)
        split = "dev" if probes.dev.startswith("builtin:") else "validation"
        return self._load("dep", probes.dev, split, probes.max_dev)

    def treebank(self) -> list[Any]:
        """The trees of the text `StudyConfig.treebank`."""
        return self.trees("dev") if self.config.probes else self.task(str(self.config.treebank), "dev")

    def _scorable_trees(self) -> list[Any]:
        from bertft.probes.structural.trees import check_scorable

        check_scorable(found := self.trees("dev"))
        return found

    def spans(self, edge: EdgeConfig) -> list[Any]:
        """The training, dev and test texts of an edge-probing task (test: None where it has none), checked."""
        from bertft.probes.edge.driver import checked

        roles = (("train", edge.train, edge.max_train), ("dev", edge.dev, edge.max_dev))
        found: list[Any] = [self._load("spans", source, role, limit) for role, source, limit in roles]
        found.append(None if edge.test is None else self._load("spans", edge.test, "test", edge.max_test))
        checked(*found)
        return found

    def _load(self, kind: str, source: str, split: str | None, limit: int | None) -> list[Any]:
        from bertft.data.sources import load

        key = (kind, source, split, limit)
        if key not in self._examples:
            self._examples[key] = load(kind, source, split=split, limit=limit)
            if not self._examples[key]:
                raise BertftError(f"{source}: expected at least one example, found none")
        return self._examples[key]

    def encoder(self, name: str) -> Encoder:
        """``base``, ``random`` (the base's architecture, weights drawn anew) or a task's tuned encoder."""
        from bertft.data.sources import resolve_model
        from bertft.models.encoder import Encoder, reinitialise

        if name not in self._encoders:
            if name == "random":
                base = self.encoder("base")
                encoder = Encoder(reinitialise(base.model, self.config.seed).to(base.device), base.tokenizer, name)
            else:
                source = resolve_model(self.config.model) if name == "base" else str(self.out / "models" / name)
                encoder = Encoder.from_pretrained(source)
                encoder.name = name
            self._encoders[name] = encoder
        return self._encoders[name]


def fitting(encoder: Encoder, examples: Sequence[Any]) -> list[Any]:
    """``examples`` without the text pairs that are longer than the encoder's window, which cannot be cut in two."""
    pairs = [_pair(example) for example in examples]
    if not pairs or pairs[0] is None:
        return list(examples)
    sizes = encoder.tokenizer(pairs, verbose=False)["input_ids"]
    return [example for example, ids in zip(examples, sizes, strict=True) if len(ids) <= encoder.max_length]


def _pair(example: Any) -> tuple[str, str] | None:
    if hasattr(example, "premise"):
        return (example.premise, example.hypothesis)
    return (example.question, example.context) if hasattr(example, "context") else None
