"""Freezing and truncation sweeps.

Freezing to k (Merchant et al. 2020, Figure 3): embeddings and blocks 1..k keep their weights; -1 freezes nothing, 0 the
embeddings. Truncation to k (Figure 4): blocks above k are removed, and the head reads block k.

    out/freeze/k3/            the fine-tuned model (``keep``), an ordinary Hugging Face folder
    out/freeze/k3.csv         its scores, and k3.done.json once they are complete
    out/prefix/               output of frozen blocks, while the sweep runs (`bertft.models.frozen_cache`)
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bertft.errors import BertftError
from bertft.models.finetuning.card import read_card
from bertft.models.finetuning.config import PRECISIONS, REPORTING, FinetuneConfig, pinned
from bertft.models.finetuning.run import finetune
from bertft.models.loading import load_config
from bertft.models.tasks import get_task
from bertft.runs.folder import Stage
from bertft.runs.progress import SILENT, Progress
from bertft.runs.rows import Row
from bertft.study.analyses.finetuning import finetuning_cost, read_examples
from bertft.study.analysis import Analysis, open_folder, run_analysis
from bertft.study.inputs import Inputs
from bertft.study.timing import StageCost

__all__ = ["KINDS", "Ablation", "Sweep", "SweepInputs", "depths", "sweep", "sweep_stages"]

KINDS = ("freeze", "truncate")


def depths(kind: str, model: str) -> list[int]:
    """Return every k of ``model`` with L blocks: -1..L for freezing, 0..L for truncation."""
    if kind not in KINDS:
        raise BertftError(f"ablate: expected one of {', '.join(KINDS)}, found {kind!r}")
    blocks = getattr(load_config(model), "num_hidden_layers", None)
    if not isinstance(blocks, int):
        raise BertftError(f"model {model}: expected an encoder with a number of blocks, found {blocks!r}")
    return list(range(-1 if kind == "freeze" else 0, blocks + 1))


class Ablation(Analysis[Inputs]):
    """Rows of `sweep_stages` for tasks of a study, under the names of the tasks.

    Settings: `AblateConfig` by task (``ablate``).
    """

    name, order, tasks = "ablate", 60, KINDS

    def stages(self, inputs: Inputs) -> list[Stage]:
        """Return a stage ``<kind>/<task>/k<k>`` for every k."""
        found = []
        for name, ablate in inputs.config.ablate.items():
            for kind, wanted in ablate.sweeps().items():
                sweep = sweep_stages(
                    kind,
                    inputs.driver(name),
                    inputs.out,
                    depths_wanted=wanted,
                    name=f"{kind}/{name}",
                    keep=False,
                    progress=inputs.progress,
                )
                found += [dataclasses.replace(stage, work=partial(self.work, name, stage)) for stage in sweep]
        return found

    def work(self, name: str, stage: Stage) -> list[Row]:
        """Return the rows of one k, under the task's name in the study."""
        return [dataclasses.replace(row, model=name) for row in stage.work()]

    def clean(self, inputs: Inputs) -> None:
        """Remove the output of frozen blocks."""
        shutil.rmtree(inputs.out / "prefix", ignore_errors=True)

    def cost(self, inputs: Inputs, stages: Sequence[Stage], held: int) -> Iterator[StageCost]:
        """Yield the cost of every k."""
        for stage in stages:
            kind, name, _ = stage.name.split("/")
            config = at_depth(inputs.driver(name), kind, int(stage.depends[kind]), inputs.out / "prefix")
            examples = (inputs.task(name, "train"), inputs.task(name, "dev"))
            cost = finetuning_cost(config, *examples, stage=stage.name, held=held)
            yield dataclasses.replace(cost, kept=0, scratch=cost.scratch + cost.kept)  # scored, then removed


@dataclass(frozen=True)
class SweepInputs:
    """Settings of ``bertft ablate``.

    Attributes:
        kind: freeze or truncate.
        config: all of fine-tuning but k; ``out`` is the run folder.
        depths: the k wanted, default all.
        cache: folder for the output of frozen blocks, default ``out/prefix``.
        progress: where to report.
    """

    kind: str
    config: FinetuneConfig
    depths: Sequence[int] | None = None
    cache: Path | None = None
    progress: Progress = SILENT


class Sweep(Analysis[SweepInputs]):
    """One sweep in its own run folder; it keeps the models."""

    name, order, tasks = "sweep", 0, KINDS

    def stages(self, inputs: SweepInputs) -> list[Stage]:
        """Return the stages of the sweep."""
        out = Path(inputs.config.out)
        settings: dict[str, Any] = {"depths_wanted": inputs.depths, "cache": inputs.cache}
        return sweep_stages(inputs.kind, inputs.config, out, **settings, progress=inputs.progress)

    def clean(self, inputs: SweepInputs) -> None:
        """Remove the output of frozen blocks unless it is in a separate folder."""
        shutil.rmtree(Path(inputs.config.out) / "prefix", ignore_errors=True)

    def cost(self, inputs: SweepInputs, stages: Sequence[Stage], held: int) -> Iterator[StageCost]:
        """Yield the cost of every k."""
        config, kind = inputs.config, inputs.kind
        examples = read_examples(config)
        for stage in stages:
            own = at_depth(config, kind, int(stage.depends[kind]), inputs.cache or Path(config.out) / "prefix")
            yield finetuning_cost(own, *examples, stage=stage.name, held=held)


def sweep(
    kind: str,
    config: FinetuneConfig,
    *,
    depths_wanted: Sequence[int] | None = None,
    cache: Path | None = None,
    progress: Progress = SILENT,
) -> list[Row]:
    """Run or resume a sweep in the run folder ``config.out``: a model for every k, a table, figures and the page.

    Takes the arguments of `sweep_stages` and returns its rows. Raises ``BertftError`` for a folder that holds anything
    else.
    """
    get_task(config.task)  # refuse a wrong name before anything else
    config = pinned(config)
    chosen = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)
              if getattr(config, field.name) != field.default or field.name == "seed"}  # fmt: skip
    chosen = {"command": f"ablate {kind}", **{k: v for k, v in chosen.items() if k not in ("out", "prefix_cache")}}
    if depths_wanted:
        chosen["k"] = list(depths_wanted)
    inputs = SweepInputs(kind, config, depths_wanted, cache, progress)
    return run_analysis(Sweep(), inputs, open_folder(config.out, chosen), f"ablate {kind}", progress=progress)


def at_depth(config: FinetuneConfig, kind: str, k: int, cache: Path | None) -> FinetuneConfig:
    """Return ``config`` frozen or truncated to k; only frozen blocks use the ``cache``."""
    depth: dict[str, Any] = {kind: k}
    return dataclasses.replace(config, prefix_cache=cache if kind == "freeze" else None, **depth)


def sweep_stages(
    kind: str,
    config: FinetuneConfig,
    out: Path,
    *,
    depths_wanted: Sequence[int] | None = None,
    name: str = "",
    cache: Path | None = None,
    keep: bool = True,
    progress: Progress = SILENT,
) -> list[Stage]:
    """Return a stage for every k of a sweep, to be run in this order in a run folder at ``out``.

    A stage's rows have ``task`` the kind, ``model`` the task's name and ``layer`` k. They hold the task's measures with
    95 % intervals over the dev examples, and ``trained_parameters``.

    Args:
        kind: freeze or truncate.
        config: all of fine-tuning but k.
        out: the run folder.
        depths_wanted: the k wanted, default all of `depths`.
        name: stages are called ``<name>/k<k>``, as are the folders of their models; default ``kind``.
        cache: folder for the output of frozen blocks. Sweeps of one base model on the same data can share it,
            whatever their seeds.
        keep: whether to keep each model once it is scored.
        progress: where to report.
    """
    config = pinned(config)
    wanted = depths(kind, config.model)
    chosen = wanted if depths_wanted is None else list(depths_wanted)
    for k in chosen:
        if k not in wanted:
            raise BertftError(f"ablate: k must lie in {wanted[0]}..{wanted[-1]}, found {k}")
    stages = []
    for k in chosen:
        stem = f"{name or kind}/k{k}"
        own = dataclasses.replace(at_depth(config, kind, k, cache or out / "prefix"), out=out / stem)
        settings = dataclasses.asdict(own)
        left_out = {"out", "prefix_cache", *REPORTING, *(name for name in PRECISIONS if not settings[name])}
        depends = {key: v for key, v in settings.items() if key not in left_out}
        stages.append(
            Stage(
                stem,
                {"ablate": kind, **depends},
                partial(_work, kind, own, k, keep, progress),
                product=f"{stem}/config.json" if keep else None,
            )
        )
    return stages


def _work(kind: str, config: FinetuneConfig, k: int, keep: bool, progress: Progress) -> list[Row]:
    result = finetune(config, progress=progress)
    trained = float(read_card(result.folder)["trained_parameters"])
    rows = [dataclasses.replace(row, task=kind, layer=k) for row in result.rows]
    rows.append(dataclasses.replace(rows[0], measure="trained_parameters", value=trained, low=None, high=None, n=None))
    if not keep:
        shutil.rmtree(result.folder)
    return rows
