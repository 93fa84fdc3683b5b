"""Freezing and truncation sweeps: how much of the encoder a task needs to change, and how much of it to have.

Freezing to k (Merchant et al. 2020, Figure 3): embeddings and blocks 1..k keep their weights, -1 keeps none, 0 the
embeddings. Truncation to k (Figure 4): blocks above k are gone, and the head reads block k.

    out/freeze/k3/            the fine-tuned model (``keep``), an ordinary Hugging Face folder
    out/freeze/k3.csv         its scores, and k3.done.json that they are complete
    out/prefix/               what frozen blocks give out, while the sweep runs (`bertft.models.frozen_cache`)

`sweep` does all of it in a run folder of its own, `sweep_stages` gives the stages to others.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bertft.errors import BertftError
from bertft.models.finetuning.run import PRECISIONS, REPORTING, FinetuneConfig, pinned
from bertft.runs.folder import RunFolder, Stage
from bertft.runs.progress import SILENT, Progress
from bertft.runs.rows import Row

__all__ = ["KINDS", "depths", "sweep", "sweep_stages"]

KINDS = ("freeze", "truncate")


def depths(kind: str, model: str) -> list[int]:
    """Every k there is for ``model``: -1..L for freezing, 0..L for truncation, L its number of blocks."""
    from bertft.models.blocks import load_config

    if kind not in KINDS:
        raise BertftError(f"ablate: expected one of {', '.join(KINDS)}, found {kind!r}")
    blocks = getattr(load_config(model), "num_hidden_layers", None)
    if not isinstance(blocks, int):
        raise BertftError(f"model {model}: expected an encoder with a number of blocks, found {blocks!r}")
    return list(range(-1 if kind == "freeze" else 0, blocks + 1))


def sweep(
    kind: str,
    config: FinetuneConfig,
    *,
    depths_wanted: Sequence[int] | None = None,
    cache: Path | None = None,
    progress: Progress = SILENT,
) -> list[Row]:
    """A whole sweep in the run folder ``config.out``: a model for every k, ``results.csv``, figures and the page.

    Arguments as of `sweep_stages`, whose rows are returned. Begun again in the same folder, it goes on where it
    stopped; a folder that holds anything else raises ``BertftError``.
    """
    import yaml

    from bertft.cli.doctor import versions
    from bertft.models.tasks import get_task
    from bertft.report import write_report

    get_task(config.task)  # a wrong name is refused before anything else
    config = pinned(config)
    out = Path(config.out)
    said = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)
            if getattr(config, field.name) != field.default or field.name == "seed"}  # fmt: skip
    said = {"command": f"ablate {kind}", **{k: v for k, v in said.items() if k not in ("out", "prefix_cache")}}
    if depths_wanted:
        said["k"] = list(depths_wanted)
    folder = RunFolder(out, yaml.safe_dump(said, sort_keys=False, allow_unicode=True))
    folder.check()
    stages = sweep_stages(kind, config, out, depths_wanted=depths_wanted, cache=cache, progress=progress)
    with folder.claim():
        rows = folder.run(stages, f"ablate {kind}", progress=progress)
        shutil.rmtree(out / "prefix", ignore_errors=True)
        folder.write_table(rows)
        times = {"seconds": folder.seconds(stages), "finished": folder.finished(stages)}
        folder.write_record({"versions": versions(), **times})
        write_report(out, progress=progress)
    return rows


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
    """A stage for every k of a sweep (default: all of `depths`), to be run in this order in a run folder at ``out``.

    ``config`` says everything but k. Stages are called ``<name>/k<k>`` (default name: ``kind``), the models lie in
    folders of the same names. A stage ends in rows with ``task`` the kind, ``model`` the task's name and ``layer`` k:
    the task's measures with 95 % intervals over the dev examples, and ``trained_parameters``. ``cache`` holds what
    frozen blocks give out; sweeps of one base model on the same data share it, whatever their seeds. Without ``keep``
    each model is removed once it is scored.
    """
    config = pinned(config)
    wanted = depths(kind, config.model)
    chosen = wanted if depths_wanted is None else list(depths_wanted)
    for k in chosen:
        if k not in wanted:
            raise BertftError(f"ablate: k must lie in {wanted[0]}..{wanted[-1]}, found {k}")
    cache = cache or out / "prefix"
    stages = []
    for k in chosen:
        stem = f"{name or kind}/k{k}"
        depth: dict[str, Any] = {kind: k}
        own = dataclasses.replace(config, out=out / stem, prefix_cache=cache if kind == "freeze" else None, **depth)
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
    from bertft.models.finetuning.run import finetune, read_card

    result = finetune(config, progress=progress)
    trained = float(read_card(result.folder)["trained_parameters"])
    rows = [dataclasses.replace(row, task=kind, layer=k) for row in result.rows]
    rows.append(dataclasses.replace(rows[0], measure="trained_parameters", value=trained, low=None, high=None, n=None))
    if not keep:
        shutil.rmtree(result.folder)
    return rows
