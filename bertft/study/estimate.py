"""The cost of whole runs: every stage of a study, every k of a sweep."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bertft.data import sources
from bertft.errors import BertftError
from bertft.models.finetuning.run import FinetuneConfig, dev_split
from bertft.models.tasks import get_task
from bertft.probes.edge.driver import checked
from bertft.runs.folder import RunFolder, Stage
from bertft.runs.progress import SILENT, Progress
from bertft.study.analyses.ablation import KINDS, sweep_stages
from bertft.study.config import StudyConfig
from bertft.study.cost_analyses import Comparing, Probing, edge_cost
from bertft.study.cost_finetuning import finetuning_cost
from bertft.study.inputs import Materials, fitting
from bertft.study.run import study_stages
from bertft.study.timing import StageCost, memory_of_gpu, memory_of_machine, resident, weights_of

PAGE = 8_000_000  # bytes of report.html and the figures


@dataclass(frozen=True)
class Estimate:
    """The stages of a run in order, and the machine's bytes: ``free`` on the disk, ``memory`` and ``gpu`` in all."""

    stages: list[StageCost]
    free: int
    memory: int
    gpu: int = 0

    @property
    def seconds(self) -> float:
        """Of the stages that are left to do."""
        return sum(cost.seconds for cost in self.stages if not cost.done)

    @property
    def kept(self) -> int:
        """Bytes that the stages left to do add to the disk."""
        return sum(cost.kept for cost in self.stages if not cost.done) + PAGE

    @property
    def disk(self) -> int:
        """Bytes that must be free on the disk: what was kept before a stage, and what it needs while it runs."""
        most, so_far = 0, 0
        for cost in (cost for cost in self.stages if not cost.done):
            so_far += cost.kept
            most = max(most, so_far + cost.scratch)
        return max(most, self.kept)

    @property
    def peak(self) -> int:
        """Bytes of memory at the fullest moment of what is left to do."""
        return max((cost.memory for cost in self.stages if not cost.done), default=0)

    @property
    def peak_gpu(self) -> int:
        """The same of the GPU's memory."""
        return max((cost.gpu for cost in self.stages if not cost.done), default=0)

    def to_tree(self) -> dict[str, Any]:
        """As plain values."""
        whole = {"seconds": self.seconds, "kept": self.kept, "disk": self.disk, "memory": self.peak}
        whole["gpu"] = self.peak_gpu
        machine = {"disk": self.free, "memory": self.memory, "gpu": self.gpu}
        return {"stages": [dataclasses.asdict(cost) for cost in self.stages], "to_do": whole, "machine": machine}


def estimate_study(config: StudyConfig, out: str | os.PathLike[str], *, progress: Progress = SILENT) -> Estimate:
    """What `bertft.study.run.run_study` would still do in ``out``, and what that costs on this machine.

    Reads every corpus, so bad input is refused as by the study; runs the encoder for some seconds; writes nothing.
    Times are for a machine that does nothing else. Probes may stop early: theirs are upper limits.
    """
    folder = RunFolder(out, config.to_yaml())
    folder.check()
    materials = Materials(config, folder.path, progress)
    stages = study_stages(config, materials)
    left = [stage for stage in stages if folder.done(stage) is None]
    if left:
        materials.check()
    costs = _Costs(config, materials)
    return _estimate(folder, stages, costs.of, progress)


def estimate_finetune(config: FinetuneConfig, *, progress: Progress = SILENT) -> Estimate:
    """The same of `bertft.models.finetuning.run.finetune`."""
    train, dev = _examples(config)
    with progress.step("estimate", unit="stages"):
        cost = finetuning_cost(config, train, dev, stage=str(Path(config.out).name), held=resident())
    return Estimate([cost], _free(Path(config.out)), memory_of_machine(), memory_of_gpu())


def estimate_sweep(
    kind: str,
    config: FinetuneConfig,
    *,
    depths: Sequence[int] | None = None,
    cache: Path | None = None,
    progress: Progress = SILENT,
) -> Estimate:
    """The same of `bertft.study.analyses.ablation.sweep_stages` in the folder ``config.out``: every ``k`` is timed by itself."""
    out = Path(config.out)
    stages = sweep_stages(kind, config, out, depths_wanted=depths, cache=cache)
    train, dev = _examples(config)
    held = resident()

    def cost(stage: Stage) -> StageCost:
        own: dict[str, Any] = {kind: int(stage.depends[kind])}
        prefix = cache or out / "prefix" if kind == "freeze" else None
        return finetuning_cost(
            dataclasses.replace(config, prefix_cache=prefix, **own), train, dev, stage=stage.name, held=held
        )

    return _estimate(RunFolder(out, ""), stages, cost, progress)


def _examples(config: FinetuneConfig) -> tuple[list[Any], list[Any]]:
    task = get_task(config.task)
    train = sources.load(task.kind, config.train, split="train", limit=config.max_train)
    dev = sources.load(task.kind, config.dev, split=dev_split(config), limit=config.max_dev)
    if not train or not dev:
        raise BertftError(f"finetune: {config.dev if train else config.train} has no examples, expected at least one")
    return train, dev


class _Costs:
    """The cost of each stage of a study; what stages share is measured once."""

    def __init__(self, config: StudyConfig, materials: Materials) -> None:
        self.config, self.materials, self.held = config, materials, resident()
        self._comparing: Comparing | None = None
        self._probing: Probing | None = None

    def of(self, stage: Stage) -> StageCost:
        kind, _, name = stage.name.partition("/")
        costs = {"models": self._models, "rsa": self._rsa, "words": self._words, "edge": self._edge}
        costs |= {"probes": self._probes, "differences": self._differences}
        costs |= {sweep: partial(self._ablate, sweep) for sweep in KINDS}
        return costs[kind](name, stage.name)

    def _models(self, name: str, stage: str) -> StageCost:
        train, dev = self.materials.task(name, "train"), self.materials.task(name, "dev")
        return finetuning_cost(self.materials.driver(name), train, dev, stage=stage, held=self.held)

    def _rsa(self, text: str, stage: str) -> StageCost:
        texts = fitting(self.materials.encoder("base"), self.materials.stimuli(text))
        return self._compared.cost(stage, texts, all_layers=text == self.config.crossed_text)

    def _words(self, _: str, stage: str) -> StageCost:
        return self._compared.words(stage, self.materials.treebank())

    @property
    def _compared(self) -> Comparing:
        assert self.config.rsa is not None
        if self._comparing is None:
            base, tuned, seed = self.materials.encoder("base"), len(self.config.tasks), self.config.seed
            self._comparing = Comparing(self.config.rsa, base, tuned, seed=seed, held=self.held)
        return self._comparing

    def _probes(self, name: str, stage: str) -> StageCost:
        return self._measured().cost(stage, self._encoders * weights_of(self.materials.encoder("base").model))

    def _differences(self, name: str, stage: str) -> StageCost:
        encoders = self._encoders * weights_of(self.materials.encoder("base").model)
        return self._measured().differences(stage, 1 + len(self.config.tasks), encoders)

    def _measured(self) -> Probing:
        assert self.config.probes is not None
        if self._probing is None:
            train, dev = self.materials.trees("train"), self.materials.trees("dev")
            self._probing = Probing(self.config.probes, self.materials.encoder("base"), train, dev, held=self.held)
        return self._probing

    def _edge(self, name: str, stage: str) -> StageCost:
        edge = self.config.edge[name]
        corpora = checked(*self.materials.spans(edge))
        encoders = 1 + len(self.config.tasks) + edge.random
        base = self.materials.encoder("base")
        return edge_cost(edge, base, encoders, corpora, stage=stage, held=self.held)

    def _ablate(self, kind: str, place: str, stage: str) -> StageCost:
        name, _, k = place.partition("/k")
        train, dev = self.materials.task(name, "train"), self.materials.task(name, "dev")
        own: dict[str, Any] = {kind: int(k)}
        prefix = self.materials.out / "prefix" if kind == "freeze" else None
        config = dataclasses.replace(self.materials.driver(name), prefix_cache=prefix, **own)
        cost = finetuning_cost(config, train, dev, stage=stage, held=self.held)
        return dataclasses.replace(cost, kept=0, scratch=cost.scratch + cost.kept)  # the model goes once it is scored

    @property
    def _encoders(self) -> int:
        """How many encoders a study holds at its end."""
        return 2 + len(self.config.tasks)


def _estimate(
    folder: RunFolder, stages: Sequence[Stage], cost: Callable[[Stage], StageCost], progress: Progress
) -> Estimate:
    costs = []
    with progress.step("estimate", total=len(stages), unit="stages") as bar:
        for stage in stages:
            bar.note(stage.name)
            finished = folder.done(stage) is not None
            costs.append(_finished(folder, stage) if finished else cost(stage))
            bar.advance()
    return Estimate(costs, _free(folder.path), memory_of_machine(), memory_of_gpu())


def _free(place: Path) -> int:
    """Bytes that are free where ``place`` is or will be."""
    place = place.resolve()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def _finished(folder: RunFolder, stage: Stage) -> StageCost:
    mark = json.loads((folder.path / f"{stage.name}.done.json").read_text(encoding="utf8"))
    return StageCost(stage.name, "done", float(mark["seconds"]), done=True)
