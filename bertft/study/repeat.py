"""A study repeated with several seeds in one folder, and analyses over it that share its models.

```
out/config.yaml   seed1337/models/<task>/  rsa/  probes/     as a study's run folder, one for every seed
    <analysis>/...                                           the stages of an analysis
    results/<analysis>.csv, .png, .svg, .md                  its table: every seed, and all together; its figures
```
An analysis is a module with ``stages(lab)`` and ``figures(rows, lab)``; every stage is done once (`bertft.runs.folder`).
It may have ``derived(rows, lab)``, further rows that follow from those of the stages, ``tables(rows, lab)``, Markdown
by name, and ``check(lab)``, which reads what corpora it has of its own.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import yaml

from bertft.errors import BertftError
from bertft.runs.folder import RunFolder, Stage
from bertft.runs.pooling import pool_seeds
from bertft.runs.progress import SILENT, Progress
from bertft.runs.rows import Row, merge_rows, write_bytes_atomically, write_results, write_text_atomically
from bertft.study.config import StudyConfig, settings_of
from bertft.study.inputs import Materials
from bertft.study.reader import read_study, resolve_source, study_of
from bertft.study.run import study_stages

if TYPE_CHECKING:
    from bertft.models.encoder import Encoder
    from bertft.models.finetuning.run import FinetuneConfig
    from bertft.report.figures.catalogue import Figure


__all__ = ["Lab", "Setting", "read_setting"]


@dataclass(frozen=True)
class Setting:
    """A study, the seeds to repeat it with, and the options of analyses by name; ``root`` is where paths start."""

    name: str
    study: StudyConfig
    seeds: tuple[int, ...]
    options: Mapping[str, Any]
    root: Path

    def to_yaml(self) -> str:
        """What a folder's results depend on."""
        tree = {"setting": self.name, "study": self.study.to_tree()}
        return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=100)


def read_setting(path: Path, name: str, *, data: str | Path | None = None, model: str | None = None) -> Setting:
    """The setting ``name`` of the YAML file ``path``: ``study`` (written out, a file beside it or a built-in
    one's name), its ``variant``, ``seeds`` and ``options``.

    Relative paths start at ``data``, or at the file's own folder. Raises ``BertftError`` for what is no setting.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf8"))
    except (OSError, yaml.YAMLError) as error:
        raise BertftError(f"{path}: not readable ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(tree, dict) or not isinstance(tree.get(name), dict):
        known = ", ".join(map(str, tree)) if isinstance(tree, dict) else "none"
        raise BertftError(f"{path}: no setting {name!r}, it has: {known}")
    own = tree[name]
    if unknown := set(own) - {"study", "variant", "seeds", "options"}:
        expected = "study, variant, seeds or options"
        raise BertftError(f"{path}: {name}.{sorted(unknown)[0]}: unknown key, expected {expected}")
    seeds = own.get("seeds")
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int for seed in seeds):
        raise BertftError(f"{path}: {name}.seeds: expected a list of whole numbers, found {seeds!r}")
    chosen: dict[str, Any] = {"variant": own.get("variant"), "data": data, "model": model}
    if isinstance(own.get("study"), str):
        file = path.parent / own["study"]
        study = read_study(file if file.is_file() else own["study"], **chosen)
    else:
        study = study_of(own.get("study"), path, **chosen)
    return Setting(name, study, tuple(seeds), own.get("options") or {}, Path(data) if data else path.parent)


class Lab:
    """What analyses find: the study of each seed, its encoders and texts, their own options, and the folder."""

    def __init__(self, setting: Setting, out: str | os.PathLike[str], progress: Progress = SILENT) -> None:
        self.setting, self.out, self.progress = setting, Path(out), progress
        self.folder = RunFolder(out, setting.to_yaml())
        self.seeds = setting.seeds
        self.materials = functools.cache(self._materials)

    def options(self, name: str, *needed: str) -> dict[str, Any]:
        """The options of one analysis, with the keys it cannot do without; without any, they may be left out."""
        found = self.setting.options.get(name)
        if found is None and not needed:
            return {}
        if not isinstance(found, dict):
            raise BertftError(f"setting {self.setting.name}: options.{name}: expected a mapping, found {found!r}")
        if missing := [key for key in needed if key not in found]:
            raise BertftError(f"setting {self.setting.name}: options.{name}.{missing[0]}: missing")
        return found

    def source(self, text: str) -> str:
        """A source named in the options, its relative path resolved."""
        return resolve_source(text, self.setting.root, f"setting {self.setting.name}")

    @property
    def prefix(self) -> Path:
        """What frozen blocks give out (`bertft.models.frozen_cache`), kept until the analysis that trains on it is done."""
        return self.out / "prefix"

    def study(self, seed: int) -> StudyConfig:
        """The study with this seed."""
        config = self.setting.study
        tasks = {name: dataclasses.replace(task, seed=seed) for name, task in config.tasks.items()}
        return dataclasses.replace(config, seed=seed, tasks=tasks)

    def _materials(self, seed: int) -> Materials:
        return Materials(self.study(seed), self.out / f"seed{seed}", self.progress)

    def encoder(self, seed: int, name: str) -> Encoder:
        """``base``, ``random`` or a task's tuned encoder, once its stage is done."""
        return self.materials(seed).encoder(name)

    def driver(self, seed: int, task: str, out: Path, **changes: Any) -> FinetuneConfig:
        """The fine-tuning driver's configuration of a task of the study, into ``out``, with ``changes``."""
        return dataclasses.replace(self.materials(seed).driver(task), out=out, **changes)

    def study_stages(self, *kinds: str, seeds: Sequence[int] | None = None) -> list[Stage]:
        """The stages of the study itself: ``models``, and those of ``rsa``, ``probes``, ``differences`` asked for."""
        found = []
        for seed in self.seeds if seeds is None else seeds:
            for stage in study_stages(self.study(seed), self.materials(seed)):
                if stage.name.split("/")[0] in ("models", *kinds):
                    product = stage.product and f"seed{seed}/{stage.product}"
                    found.append(dataclasses.replace(stage, name=f"seed{seed}/{stage.name}", product=product))
        return found

    def stage(self, name: str, seed: int, settings: Mapping[str, Any], work: Callable[[], list[Row]]) -> Stage:
        """A stage of an analysis on the models of one seed; its rows depend on them and on ``settings``."""
        study = self.study(seed)
        tuned = {task: settings_of(config) for task, config in study.tasks.items()}
        return Stage(name, {"model": study.model, "tuned": tuned, "seed": seed, **settings}, work)

    def sweep(self, kind: str) -> list[Stage]:
        """The sweep (`bertft.study.analyses.ablation`) of every task and seed. Options ``sweep``: ``seeds``, ``k`` (by kind a list;
        default all) and ``tasks``, by name what differs from the study's fine-tuning, such as ``max_train``, and maybe
        a ``k`` of its own."""
        from bertft.study.analyses.ablation import sweep_stages

        options = self.options("sweep", "seeds", "tasks")
        found = []
        for seed in options["seeds"]:
            for task, own in options["tasks"].items():
                changes = dict(own or {})
                depths = changes.pop("k", options.get("k", {})).get(kind)
                name, config = f"{kind}/{task}/seed{seed}", self.driver(seed, task, self.out, **changes)
                settings = {"depths_wanted": depths, "name": name, "cache": self.prefix, "keep": False}
                found += sweep_stages(kind, config, self.out, **settings, progress=self.progress)
        return found

    def take(self, folders: Sequence[str | os.PathLike[str]]) -> None:
        """Take over what studies elsewhere have finished with the same settings; the folder must be claimed."""
        for other in folders:
            seed = read_study(other).seed
            if seed not in self.seeds:
                raise BertftError(f"{other}: is of seed {seed}, expected one of {', '.join(map(str, self.seeds))}")
            taken = self.folder.adopt(
                self.study_stages("rsa", "probes", "differences", seeds=[seed]), other, f"seed{seed}"
            )
            self.progress.say(f"{len(taken)} stages taken from {other}: {', '.join(taken) or 'none'}")

    def check(self, analyses: Sequence[ModuleType]) -> None:
        """Refuse, writing nothing, another study's folder, options that make no stages and corpora that cannot be read.

        Where every stage is done, no corpus is looked at.
        """
        self.folder.check()
        stages = [stage for analysis in analyses for stage in analysis.stages(self)]
        if all(self.folder.done(stage) is not None for stage in stages):
            return
        self.materials(self.seeds[0]).check()
        for analysis in analyses:
            if hasattr(analysis, "check"):
                analysis.check(self)

    def run(self, analysis: ModuleType) -> list[Path]:
        """Do what an analysis has not done yet, then write its table and figures; the folder must be claimed.

        The models' scores are in the table of the analysis that draws none of their layers, and in no other.
        """
        from bertft.report.draw.paper import in_palette, on_paper

        name = analysis.__name__.rpartition(".")[2]
        rows = merge_rows(self.folder.run(analysis.stages(self), name, table=False, progress=self.progress))
        shutil.rmtree(self.prefix, ignore_errors=True)
        own = [row for row in rows if row.task != "finetune"] or rows
        own += analysis.derived(own, self) if hasattr(analysis, "derived") else []
        pooled = pool_seeds(own)
        several = len({row.seed for row in own}) > 1
        table = self.out / "results" / f"{name}.csv"
        write_results(table, merge_rows(own, pooled if several else []))
        written = [table]
        for figure in analysis.figures(pooled, self):
            if several:
                covered = ", which the intervals cover too" if any(row.low is not None for row in own) else ""
                note = f" Mean of {len({row.seed for row in own})} seeds{covered}."
                figure = dataclasses.replace(figure, caption=figure.caption + note)
            stem = self.out / "results" / (name if figure.name == name else f"{name}_{figure.name}")
            png, svg = on_paper(figure)
            write_bytes_atomically(stem.with_suffix(".png"), in_palette(png))
            write_bytes_atomically(stem.with_suffix(".svg"), svg)
            if stem.name != name:
                write_text_atomically(stem.with_suffix(".csv"), figure.to_csv())
            written += [stem.with_suffix(".png")]
        for title, text in analysis.tables(pooled, self).items() if hasattr(analysis, "tables") else ():
            written.append(self.out / "results" / f"{title}.md")
            write_text_atomically(written[-1], text)
        return written

    def drawn(self, rows: Sequence[Row], *names: str) -> list[Figure]:
        """Those of the report's figures of ``rows`` that have these names."""
        from bertft.report.figures.catalogue import figures
        from bertft.report.lines import context

        found = figures(rows, context(self.setting.study.to_tree(), rows))
        return [figure for figure in found if figure.name in names]
