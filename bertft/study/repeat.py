"""A study repeated with several seeds in one folder.

```
out/config.yaml   seed1337/models/<task>/  rsa/  probes/     a study's run folder for every seed
    <analysis>/...                                           the stages of an analysis
    results/<analysis>.csv, .png, .svg, .md                  its table, of every seed and pooled; its figures
```
An analysis here is an `Experiment`; every stage runs once (`bertft.runs.folder`).
"""

from __future__ import annotations

import dataclasses
import functools
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bertft.errors import BertftError
from bertft.models.encoder import Encoder
from bertft.models.finetuning.config import FinetuneConfig
from bertft.report.draw.paper import draw
from bertft.report.figure import Figure, HeatMap
from bertft.report.lines import Context, context
from bertft.runs.files import write_bytes_atomically, write_text_atomically
from bertft.runs.folder import CONFIG, RunFolder, Stage
from bertft.runs.pooling import pool_seeds
from bertft.runs.progress import SILENT, Progress
from bertft.runs.rows import Row, merge_rows, write_results
from bertft.runs.settings import validated
from bertft.study.analysis import Analysis
from bertft.study.config import OLDER_DRAW, RepeatConfig, RsaConfig, StudyConfig
from bertft.study.inputs import Inputs
from bertft.study.reader import begun_with, read_study, resolve_source, study_of
from bertft.study.run import check_study, study_stages

__all__ = ["Experiment", "RepeatedStudy", "Setting", "read_setting"]


@dataclass(frozen=True)
class Setting:
    """A study to repeat.

    Attributes:
        name: of the setting.
        study: the study.
        seeds: to repeat it with.
        options: of analyses, by name.
        root: the folder that relative paths in the options start from.
    """

    name: str
    study: StudyConfig
    seeds: tuple[int, ...]
    options: Mapping[str, Any]
    root: Path

    def to_yaml(self) -> str:
        """Return the settings that a folder's results depend on."""
        tree = {"setting": self.name, "study": self.study.to_tree()}
        return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=100)


def is_repeated(folder: str | os.PathLike[str]) -> bool:
    """Return whether ``folder`` is that of a `RepeatedStudy`."""
    try:
        tree = yaml.safe_load((Path(folder) / CONFIG).read_text(encoding="utf8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return False
    return isinstance(tree, dict) and "setting" in tree


def read_setting(path: Path, name: str, *, data: str | Path | None = None, model: str | None = None) -> Setting:
    """Return the setting ``name`` of the YAML file ``path``.

    A setting has a ``study`` (its settings, a file next to ``path``, or the name of a built-in one), its ``variant``,
    ``seeds`` and ``options``. Relative paths start at ``data``, by default at the file's folder. ``model`` replaces the
    study's encoder. Raises ``BertftError`` for anything that is not a setting.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf8"))
    except (OSError, yaml.YAMLError) as error:
        raise BertftError(f"{path}: not readable ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(tree, dict) or not isinstance(tree.get(name), dict):
        known = ", ".join(map(str, tree)) if isinstance(tree, dict) else "none"
        raise BertftError(f"{path}: no setting {name!r}, it has: {known}")
    own: RepeatConfig = validated(RepeatConfig, tree[name], str(path), name)
    chosen: dict[str, Any] = {"variant": own.variant, "data": data, "model": model}
    if isinstance(own.study, str):
        file = path.parent / own.study
        study = read_study(file if file.is_file() else own.study, **chosen)
    else:
        study = study_of(own.study, path, **chosen)
    return Setting(name, study, own.seeds, own.options or {}, Path(data) if data else path.parent)


class RepeatedStudy:
    """A study with each of several seeds: its encoders, texts, stages and folder, and the options of analyses."""

    def __init__(self, setting: Setting, out: str | os.PathLike[str], progress: Progress = SILENT) -> None:
        setting = dataclasses.replace(setting, study=begun_with(setting.study, out))
        self.setting, self.out, self.progress = setting, Path(out), progress
        self.folder = RunFolder(out, setting.to_yaml())
        self.seeds = setting.seeds
        self.inputs = functools.cache(self._inputs)

    def options(self, name: str, *needed: str) -> dict[str, Any]:
        """Return the options called ``name``; raise ``BertftError`` if one of the ``needed`` keys is missing.

        Options without needed keys may be left out.
        """
        found = self.setting.options.get(name)
        if found is None and not needed:
            return {}
        if not isinstance(found, dict):
            raise BertftError(f"setting {self.setting.name}: options.{name}: expected a mapping, found {found!r}")
        if missing := [key for key in needed if key not in found]:
            raise BertftError(f"setting {self.setting.name}: options.{name}.{missing[0]}: missing")
        return found

    def source(self, text: str) -> str:
        """Return a source named in the options, with its path resolved."""
        return resolve_source(text, self.setting.root, f"setting {self.setting.name}")

    @property
    def draw(self) -> str:
        """How the study draws its stimuli (``rsa.draw``)."""
        return (self.setting.study.rsa or RsaConfig()).draw

    @property
    def prefix(self) -> Path:
        """Folder for the output of frozen blocks, removed once the analysis that trains on it is done."""
        return self.out / "prefix"

    def study(self, seed: int) -> StudyConfig:
        """Return the study with this seed."""
        config = self.setting.study
        tasks = {name: dataclasses.replace(task, seed=seed) for name, task in config.tasks.items()}
        return dataclasses.replace(config, seed=seed, tasks=tasks)

    def _inputs(self, seed: int) -> Inputs:
        return Inputs(self.study(seed), self.out / f"seed{seed}", self.progress)

    def encoder(self, seed: int, name: str) -> Encoder:
        """Return ``base``, ``random`` or a task's tuned encoder; the stage that trains it must be done."""
        return self.inputs(seed).encoder(name)

    def model(self, seed: int, task: str) -> Path:
        """Return the folder of a task's tuned encoder."""
        return self.out / f"seed{seed}" / "models" / task

    def driver(self, seed: int, task: str, out: Path, **changes: Any) -> FinetuneConfig:
        """Return the fine-tuning configuration of a task of the study, into ``out``, with ``changes``."""
        return dataclasses.replace(self.inputs(seed).driver(task), out=out, **changes)

    def study_stages(self, *kinds: str, seeds: Sequence[int] | None = None) -> list[Stage]:
        """Return the stages ``models`` of the study for every seed, and those of ``kinds``.

        A kind is the first part of a stage's name, such as ``rsa``.
        """
        found = []
        for seed in self.seeds if seeds is None else seeds:
            for stage in study_stages(self.inputs(seed)):
                if stage.name.split("/")[0] in ("models", *kinds):
                    product = stage.product and f"seed{seed}/{stage.product}"
                    found.append(dataclasses.replace(stage, name=f"seed{seed}/{stage.name}", product=product))
        return found

    def stage(self, name: str, seed: int, settings: Mapping[str, Any], work: Callable[[], list[Row]]) -> Stage:
        """Return a stage on the models of one seed, whose rows depend on them and on ``settings``."""
        inputs = self.inputs(seed)
        named = {"draw": self.draw} if self.draw != OLDER_DRAW else {}
        return Stage(name, {"tuned": inputs.tuned, **inputs.seeds, **named, **settings}, work)

    def stages_by_seed(self, folder: str, settings: Mapping[str, Any], work: Callable[[int], list[Row]]) -> list[Stage]:
        """Return a stage ``<folder>/seed<seed>`` for every seed, whose work takes the seed."""
        return [
            self.stage(f"{folder}/seed{seed}", seed, settings, functools.partial(work, seed)) for seed in self.seeds
        ]

    def take(self, folders: Sequence[str | os.PathLike[str]], analyses: Sequence[Analysis[RepeatedStudy]] = ()) -> None:
        """Take finished stages of the same settings from other folders; the own folder must be claimed.

        A study's folder may have its models, similarities and probes, and another folder of a repeated study the stages
        of ``analyses``. Raises ``BertftError`` for a study of another seed.
        """
        for other in folders:
            if is_repeated(other):
                stages = [stage for analysis in analyses for stage in analysis.stages(self)]
                taken = self.folder.adopt(stages, other)
            else:
                seed = read_study(other).seed
                if seed not in self.seeds:
                    raise BertftError(f"{other}: has seed {seed}, expected one of {', '.join(map(str, self.seeds))}")
                stages = self.study_stages("rsa", "probes", "differences", seeds=[seed])
                taken = self.folder.adopt(stages, other, f"seed{seed}")
            self.progress.say(f"{len(taken)} stages taken from {other}: {', '.join(taken) or 'none'}")

    def check(self, analyses: Sequence[Analysis[RepeatedStudy]]) -> None:
        """Refuse another study's folder, missing options and unreadable corpora; write nothing.

        Reads no corpus if every stage is done.
        """
        self.folder.check()
        stages = [stage for analysis in analyses for stage in analysis.stages(self)]
        if all(self.folder.done(stage) is not None for stage in stages):
            return
        check_study(self.inputs(self.seeds[0]))
        for analysis in analyses:
            analysis.check(self)

    def run(self, analysis: Analysis[RepeatedStudy]) -> list[Path]:
        """Run or resume an analysis, then write its table, figures and Markdown; the folder must be claimed.

        Scores of the models are left out of the table where there are other rows. Returns the paths written.
        """
        stages = analysis.stages(self)
        rows = merge_rows(self.folder.run(stages, analysis.name, table=False, progress=self.progress))
        shutil.rmtree(self.prefix, ignore_errors=True)
        analysis.clean(self)
        own = [row for row in rows if row.task != "finetune"] or rows
        own += analysis.derived(own, self._context(own))
        pooled = pool_seeds(own)
        about = self._context(pooled)
        written = [self.out / "results" / f"{analysis.name}.csv"]
        write_results(written[0], merge_rows(own, pooled if len({row.seed for row in own}) > 1 else []))
        for figure in analysis.figures(pooled, about):
            written.append(self._draw(analysis.name, _with_seeds(figure, own)))
        for title, text in analysis.tables(pooled, about).items():
            written.append(self.out / "results" / f"{title}.md")
            write_text_atomically(written[-1], text)
        return written

    def _context(self, rows: Sequence[Row]) -> Context:
        """Return the context of figures: the study's settings, with the options of experiments under ``options``."""
        return context({**self.setting.study.to_tree(), "options": self.setting.options}, rows)

    def _draw(self, name: str, figure: Figure | HeatMap) -> Path:
        stem = self.out / "results" / (name if figure.name == name else f"{name}_{figure.name}")
        png, svg = draw(figure)
        write_bytes_atomically(stem.with_suffix(".png"), png)
        write_bytes_atomically(stem.with_suffix(".svg"), svg)
        if stem.name != name:  # which is the name of the analysis's own table
            write_text_atomically(stem.with_suffix(".csv"), figure.to_csv())
        return stem.with_suffix(".png")


def _with_seeds(figure: Figure | HeatMap, rows: Sequence[Row]) -> Figure | HeatMap:
    """Return the figure with the number of seeds in its caption, if there are several."""
    seeds = len({row.seed for row in rows})
    if seeds == 1:
        return figure
    covered = ", which the intervals cover too" if any(row.low is not None for row in rows) else ""
    return dataclasses.replace(figure, caption=f"{figure.caption} Mean of {seeds} seeds{covered}.")


Experiment = Analysis[RepeatedStudy]
"""An analysis of a repeated study."""
