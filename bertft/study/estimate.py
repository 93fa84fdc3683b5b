"""Forecasts of runs: time, disk and memory of every stage."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertft.models.finetuning.config import FinetuneConfig
from bertft.runs.folder import RunFolder, Stage
from bertft.runs.process import memory_of_gpu, memory_of_machine, resident
from bertft.runs.progress import SILENT, Progress
from bertft.study.analyses import ANALYSES
from bertft.study.analyses.ablation import Sweep, SweepInputs
from bertft.study.analyses.finetuning import finetuning_cost, read_examples
from bertft.study.analysis import Analysis
from bertft.study.config import StudyConfig
from bertft.study.inputs import Inputs
from bertft.study.reader import begun_with
from bertft.study.run import check_study
from bertft.study.timing import StageCost

PAGE = 8_000_000  # bytes of report.html and the figures

__all__ = ["Estimate", "estimate_finetune", "estimate_study", "estimate_sweep"]


@dataclass(frozen=True)
class Estimate:
    """Forecast of a run: the cost of its stages and the resources of this machine.

    Attributes:
        stages: in order.
        free: free bytes on the disk.
        memory: bytes of memory, 0 if unknown.
        gpu: bytes of the GPU, 0 without one.
    """

    stages: list[StageCost]
    free: int
    memory: int
    gpu: int = 0

    @property
    def seconds(self) -> float:
        """Seconds of the stages left to do."""
        return sum(cost.seconds for cost in self.stages if not cost.done)

    @property
    def kept(self) -> int:
        """Bytes that the stages left to do and the page add to the disk."""
        return sum(cost.kept for cost in self.stages if not cost.done) + PAGE

    @property
    def disk(self) -> int:
        """Bytes that must be free on the disk: at most what earlier stages keep and one stage needs while it runs."""
        most, so_far = 0, 0
        for cost in (cost for cost in self.stages if not cost.done):
            so_far += cost.kept
            most = max(most, so_far + cost.scratch)
        return max(most, self.kept)

    @property
    def peak(self) -> int:
        """Peak bytes of memory of the stages left to do."""
        return max((cost.memory for cost in self.stages if not cost.done), default=0)

    @property
    def peak_gpu(self) -> int:
        """Peak bytes on the GPU of the stages left to do."""
        return max((cost.gpu for cost in self.stages if not cost.done), default=0)

    def to_tree(self) -> dict[str, Any]:
        """Return the forecast as plain values."""
        whole = {"seconds": self.seconds, "kept": self.kept, "disk": self.disk, "memory": self.peak}
        whole["gpu"] = self.peak_gpu
        machine = {"disk": self.free, "memory": self.memory, "gpu": self.gpu}
        return {"stages": [dataclasses.asdict(cost) for cost in self.stages], "to_do": whole, "machine": machine}


def estimate_study(config: StudyConfig, out: str | os.PathLike[str], *, progress: Progress = SILENT) -> Estimate:
    """Return the stages that `bertft.study.run.run_study` would run in ``out``, with their cost on this machine.

    Reads every corpus and refuses bad input as the study does; runs the encoder for some seconds; writes nothing.
    Times are for an idle machine. Those of probes are upper limits, because probes may stop early.
    """
    config = begun_with(config, out)
    folder = RunFolder(out, config.to_yaml())
    folder.check()
    inputs = Inputs(config, folder.path, progress)
    if any(folder.done(stage) is None for analysis in ANALYSES for stage in analysis.stages(inputs)):
        check_study(inputs)
    return _estimate(ANALYSES, inputs, folder, progress)


def estimate_finetune(config: FinetuneConfig, *, progress: Progress = SILENT) -> Estimate:
    """Return the cost of `bertft.models.finetuning.run.finetune` with ``config`` on this machine."""
    train, dev = read_examples(config)
    with progress.step("estimate", unit="stages"):
        cost = finetuning_cost(config, train, dev, stage=Path(config.out).name, held=resident())
    return estimate_of([cost], Path(config.out))


def estimate_sweep(
    kind: str,
    config: FinetuneConfig,
    *,
    depths: Sequence[int] | None = None,
    cache: Path | None = None,
    progress: Progress = SILENT,
) -> Estimate:
    """Return the cost of `bertft.study.analyses.ablation.sweep` on this machine; every k is timed separately."""
    inputs = SweepInputs(kind, config, depths, cache, progress)
    return _estimate([Sweep()], inputs, RunFolder(config.out, ""), progress)


def _estimate(analyses: Iterable[Analysis[Any]], inputs: Any, folder: RunFolder, progress: Progress) -> Estimate:
    listed = [(analysis, analysis.stages(inputs)) for analysis in analyses]
    held, found = resident(), list[StageCost]()
    with progress.step("estimate", total=sum(len(stages) for _, stages in listed), unit="stages") as bar:
        for analysis, stages in listed:
            left = [stage for stage in stages if folder.done(stage) is None]
            costs = analysis.cost(inputs, left, held)
            for stage in stages:
                bar.note(stage.name)
                found.append(next(costs, _unknown(stage)) if stage in left else _finished(folder, stage))
                bar.advance()
    return estimate_of(found, folder.path)


def estimate_of(stages: list[StageCost], place: Path) -> Estimate:
    """Return the forecast of these stages in a folder on this machine."""
    return Estimate(stages, _free(place), memory_of_machine(), memory_of_gpu())


def _free(place: Path) -> int:
    """Return the free bytes of the disk that holds ``place``, which need not exist yet."""
    place = place.resolve()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def _unknown(stage: Stage) -> StageCost:
    return StageCost(stage.name, "not estimated", 0.0)


def _finished(folder: RunFolder, stage: Stage) -> StageCost:
    mark = json.loads((folder.path / f"{stage.name}.done.json").read_text(encoding="utf8"))
    return StageCost(stage.name, "done", float(mark["seconds"]), done=True)
