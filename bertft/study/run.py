"""The whole comparison in one resumable run folder: fine-tune, compare, probe, report.

```
out/config.yaml  results.csv  run.json  report.html  figures/
    models/<task>/  models/<task>.csv        fine-tuned encoder, its scores
    rsa/<text>.csv                           similarity of every tuned encoder to the base, layer by layer
    words/moved.csv  local.csv  words.csv  sentences.csv    which words of a treebank moved, and sentences
    probes/<encoder>.csv, .safetensors       structural probes of every layer; .notes.txt what to know of them
    differences/probes.csv                   every tuned encoder's less the base's, paired by sentence
    edge/<task>.csv, .labels.csv, <task>/    edge probes of every encoder on one task; .notes.txt what to know of them
    freeze/<task>/k<k>.csv  truncate/...     scores of a task fine-tuned anew for every k
```
Each stage's ``.csv`` has a ``.done.json`` beside it, keyed by the settings it depends on: a run that was cut off goes
on where it stopped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertft.runs.folder import RUN, RunFolder, Stage, timestamp
from bertft.runs.progress import SILENT, Progress
from bertft.runs.rows import Row, write_results, write_text_atomically
from bertft.study.analyses.ablation import sweep_stages
from bertft.study.config import EdgeConfig, ProbesConfig, StudyConfig, settings_of
from bertft.study.inputs import Materials, fitting
from bertft.study.reader import read_study

if TYPE_CHECKING:
    from bertft.models.encoder import Encoder
    from bertft.probes.feature_store import FeatureStore

__all__ = ["StudyConfig", "read_study", "run_study", "study_stages"]


def run_study(config: StudyConfig, out: str | os.PathLike[str], *, progress: Progress = SILENT) -> Path:
    """Run (or resume) a study in the folder ``out`` and return the path of its ``report.html``.

    Every corpus is read and checked before the folder is made. Raises ``BertftError`` for bad input, for a folder
    that holds another study and for a folder another process is at work in.
    """
    from bertft.cli.doctor import versions
    from bertft.report import write_report
    from bertft.study.timing import fullest

    folder = RunFolder(out, config.to_yaml())
    folder.check()
    materials = Materials(config, folder.path, progress)
    stages = study_stages(config, materials)
    if any(folder.done(stage) is None for stage in stages):
        materials.check()
    with folder.claim():
        record: dict[str, Any] = {"versions": versions(), "stages": [s.name for s in stages], "started": timestamp()}
        so_far = _memory(folder.path / RUN)

        def write_record() -> None:
            record["memory"] = max(fullest(), so_far)
            folder.write_record(record)

        write_record()  # for the page of a study that is cut off
        folder.run(stages, config.name, after=write_record, progress=progress)
        shutil.rmtree(folder.path / "prefix", ignore_errors=True)  # what sweeps kept of frozen blocks
        record |= {"seconds": folder.seconds(stages), "finished": timestamp(), "disk": _size(folder.path)}
        write_record()
        return write_report(folder.path, progress=progress)


def study_stages(config: StudyConfig, materials: Materials) -> list[Stage]:
    """Every stage in order: models, RSA on each text, probes of each encoder."""
    seeds = {"model": config.model, "seed": config.seed}
    tuned = {name: settings_of(task) for name, task in config.tasks.items()}
    stages = [
        Stage(
            f"models/{name}",
            {"finetune": tuned[name], **seeds},
            partial(_finetune, name, materials),
            product=f"models/{name}/config.json",
        )
        for name in config.tasks
    ]
    if config.rsa:
        own = config.own_text
        common = {"metric": config.rsa.metric, "tokens": config.rsa.tokens, "unit": config.rsa.unit}
        for text in [*dict.fromkeys(own.values()), *config.stimuli]:
            stimuli = config.stimuli.get(text)
            read = (
                dataclasses.asdict(stimuli) if stimuli else {"own": tuned[text]["dev"], "limit": tuned[text]["max_dev"]}
            )
            depends: dict[str, Any] = {"text": read, "models": tuned, **seeds}
            stages.append(
                Stage(
                    f"rsa/{text}",
                    {"rsa": {**common, **({"layers": "all"} if text == config.crossed_text else {})}, **depends},
                    partial(_compare, config, text, materials),
                )
            )
        if config.rsa.labels:
            trees = config.probes or config.tasks[str(config.treebank)]
            depends = {"by": config.rsa.labels, "metric": config.rsa.metric, "dev": trees.dev, "limit": trees.max_dev}
            work = partial(_words, config, materials)
            stages.append(Stage("words/moved", {**depends, "models": tuned, **seeds}, work, product="words.csv"))
    if config.probes:
        from bertft.probes.structural.driver import FORMAT

        scored = {"format": FORMAT, **seeds}
        for name in ["base", *config.tasks, *(["random"] if config.probes.control else [])]:
            depends = {"probes": settings_of(config.probes), "encoder": tuned.get(name, name), **scored}
            stages.append(Stage(f"probes/{name}", depends, partial(_probe, config, name, materials)))
        depends = {"differences": settings_of(config.probes), "models": tuned, **scored}
        stages.append(Stage("differences/probes", depends, partial(_probe_differences, config, materials)))
    for name, edge in config.edge.items():
        depends = {"edge": settings_of(edge), "models": tuned, **seeds}
        stages.append(Stage(f"edge/{name}", depends, partial(_edge, config, name, materials)))
    for name, ablate in config.ablate.items():
        for kind, wanted in ablate.sweeps().items():
            sweep = sweep_stages(
                kind,
                materials.driver(name),
                materials.out,
                depths_wanted=wanted,
                name=f"{kind}/{name}",
                keep=False,
                progress=materials.progress,
            )
            stages += [dataclasses.replace(stage, work=partial(_ablate, name, stage.work)) for stage in sweep]
    return stages


def _ablate(name: str, work: Callable[[], list[Row]]) -> list[Row]:
    return [dataclasses.replace(row, model=name) for row in work()]


def _finetune(name: str, materials: Materials) -> list[Row]:
    from bertft.models.finetuning.run import finetune

    result = finetune(materials.driver(name), progress=materials.progress)
    return [dataclasses.replace(row, model=name) for row in result.rows]


def _compare(config: StudyConfig, text: str, materials: Materials) -> list[Row]:
    from bertft.similarity import compare_encoders

    assert config.rsa is not None
    base = materials.encoder("base")
    return compare_encoders(
        base,
        {name: materials.encoder(name) for name in config.tasks},
        fitting(base, materials.stimuli(text)),
        metric=config.rsa.metric,
        tokens=config.rsa.tokens,
        unit=config.rsa.unit,
        seed=config.seed,
        data=text,
        all_layers=text == config.crossed_text,
        progress=materials.progress,
    )


def _words(config: StudyConfig, materials: Materials) -> list[Row]:
    """Rows ``local_rsa_<kind>=<label>``: mean local RSA of the words with a label; and the files of `write_moved`."""
    from bertft.similarity.words.moved import words_that_moved, write_moved

    assert config.rsa is not None
    data = str(config.treebank)
    tuned = {name: materials.encoder(name) for name in config.tasks}
    found = words_that_moved(
        materials.encoder("base"),
        tuned,
        materials.treebank(),
        config.rsa.labels,
        metric=config.rsa.metric,
        progress=materials.progress,
    )
    write_moved({config.rsa.metric: found}, materials.out, data)
    return [
        Row(name, "local", data, r.layer, f"local_rsa_{kind}={r.label}", r.value, r.low, r.high, r.n, config.seed)
        for name, moved in found.items()
        for kind, table in moved.by.items()
        for r in table
    ]


def _probe(config: StudyConfig, name: str, materials: Materials) -> list[Row]:
    assert config.probes is not None
    notes: list[str] = []
    rows = _structural([name], config.probes, materials, control=config.probes.control_trees, notes=notes)
    for note in notes:
        materials.progress.say(note)
    _keep_notes(materials.out / "probes" / f"{name}.notes.txt", notes)
    return rows


def _probe_differences(config: StudyConfig, materials: Materials) -> list[Row]:
    """Of the probes that are kept: nothing is trained here that is there."""
    assert config.probes is not None
    rows = _structural(["base", *config.tasks], config.probes, materials, differences=True)
    return [row for row in rows if "_difference" in row.measure]


def _structural(
    names: Sequence[str],
    probes: ProbesConfig,
    materials: Materials,
    *,
    control: bool = False,
    differences: bool = False,
    notes: list[str] | None = None,
) -> list[Row]:
    from bertft.probes.structural.driver import structural_probes

    folder = materials.out / "probes"
    with _features(probes, folder / ".features") as store:
        return structural_probes(
            {name: materials.encoder(name) for name in names},
            materials.trees("train"),
            materials.trees("dev"),
            rank=probes.ranks,
            orthogonal=probes.orthogonal,
            rbf=probes.rbf,
            epochs=probes.epochs,
            seed=materials.config.seed,
            data=probes.name,
            out=folder,
            control=control,
            differences=differences,
            store=store,
            notes=notes,
            progress=materials.progress,
        )


def _edge(config: StudyConfig, name: str, materials: Materials) -> list[Row]:
    edge = config.edge[name]
    names = ["base", *config.tasks, *(["random"] if edge.random else [])]
    encoders = {encoder: materials.encoder(encoder) for encoder in names}
    return probe_edges(
        name, edge, encoders, materials.spans(edge), materials.out / "edge", config.seed, materials.progress
    )


def probe_edges(
    name: str,
    edge: EdgeConfig,
    encoders: Mapping[str, Encoder],
    texts: Sequence[Any],
    folder: Path,
    seed: int,
    progress: Progress,
) -> list[Row]:
    """Edge probes of the task ``name`` on its training, dev and test ``texts``; what is no row goes to ``folder``.

    There ``<name>/`` holds the probes, ``<name>.labels.csv`` the scores of each label, ``<name>.notes.txt`` what a
    reader must know of the rows, if there is anything.
    """
    from bertft.probes.edge.driver import edge_probes
    from bertft.probes.edge.training import EdgeTraining

    with _features(edge, folder / ".features") as store:
        result = edge_probes(
            encoders,
            *texts,
            data=name,
            training=EdgeTraining(edge.learning_rate, edge.batch_size, edge.interval, edge.steps, seed),
            control=edge.control,
            code_length=edge.code_length,
            store=store,
            out=folder / name,
            progress=progress,
        )
    for note in result.notes:
        progress.say(f"{name}: {note}")
    write_results(folder / f"{name}.labels.csv", result.labels)
    _keep_notes(folder / f"{name}.notes.txt", result.notes)
    return result.rows


def _keep_notes(path: Path, notes: Sequence[str]) -> None:
    path.unlink(missing_ok=True)
    if notes:
        write_text_atomically(path, "\n".join(notes) + "\n")


@contextlib.contextmanager
def _features(config: ProbesConfig | EdgeConfig, folder: Path) -> Iterator[FeatureStore]:
    """Where a stage's vectors lie: what one that was cut off had extracted is taken, and at the end all is removed."""
    import torch

    from bertft.probes.feature_store import FeatureStore

    yield FeatureStore(folder, dtype=getattr(torch, config.dtype), window=config.window)
    shutil.rmtree(folder, ignore_errors=True)  # absent where every probe was there already


def _size(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _memory(record: Path) -> int:
    """What an earlier ``run.json`` says of memory, or 0: who goes on with a study holds less than who began it."""
    try:
        return int(json.loads(record.read_text(encoding="utf8"))["memory"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
