"""Reader of a study's YAML file.

The file is checked strictly, its defaults are filled in and its paths resolved.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from bertft.errors import BertftError
from bertft.runs.settings import kind_of, one_line, validated
from bertft.study.config import OLDER_DRAW, EdgeConfig, StudyConfig

BUILTIN = Path(__file__).with_name("builtin")
"""Folder of the built-in studies: ``bertft study quickstart`` reads ``quickstart.yaml``."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_FILE_SUFFIXES = (".conllu", ".json", ".jsonl", ".tsv", ".txt", ".gz")
_RESERVED = {"base", "random"}


def read_study(
    study: str | os.PathLike[str],
    *,
    variant: str | None = None,
    data: str | Path | None = None,
    model: str | None = None,
    settings: Sequence[str] = (),
) -> StudyConfig:
    """Return a study with its defaults filled in, its paths resolved and its hub ids pinned to their current commits.

    Args:
        study: a YAML file, a run folder, or the name of a built-in study.
        variant: the overrides to apply, by their name in the file.
        data: the folder that relative paths start from; by default that of the file.
        model: an encoder that replaces the study's.
        settings: overrides such as ``rsa.tokens=1000``; the value is YAML.

    Raises:
        BertftError: names the file and the key that is unknown, missing, of another type or out of bounds.
    """
    path = _locate(study)
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        raise BertftError(f"{path}: {line}not valid YAML ({one_line(getattr(error, 'problem', error))})") from None
    return study_of(tree, path, variant=variant, data=data, model=model, settings=settings)


def study_of(
    tree: object,
    path: Path,
    *,
    variant: str | None = None,
    data: str | Path | None = None,
    model: str | None = None,
    settings: Sequence[str] = (),
) -> StudyConfig:
    """Return the study in ``tree``, the content of the YAML file ``path``; arguments as of `read_study`."""
    if not isinstance(tree, dict):
        raise BertftError(f"{path}: expected a study (a mapping with name, model, tasks), found {kind_of(tree)}")
    tree = _older_draw_named(tree)
    variants = tree.pop("variants", None) or {}
    if not isinstance(variants, dict) or not all(isinstance(v, dict) for v in variants.values()):
        raise BertftError(f"{path}: variants: expected a mapping from name to overrides, found {kind_of(variants)}")
    if variant:
        if variant not in variants:
            known = ", ".join(map(str, variants)) or "none"
            raise BertftError(f"{path}: no variant {variant!r}, the study has: {known}")
        tree = _merge(tree, variants[variant])
        tree["variant"] = variant
    if model:
        tree["model"] = model
    for setting in settings:
        tree = _merge(tree, _setting(setting))
    config: StudyConfig = validated(StudyConfig, tree, str(path))
    _check(config, str(path))
    return _resolve(config, Path(data) if data is not None else path.parent, str(path))


def begun_with(config: StudyConfig, out: str | os.PathLike[str]) -> StudyConfig:
    """Return ``config`` with the older draw if the run folder ``out`` names none.

    A run folder keeps the draw it was begun with, so that the same command resumes it.
    """
    try:
        tree = yaml.safe_load((Path(out) / "config.yaml").read_text(encoding="utf8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return config  # no run folder yet, or one that `RunFolder.check` refuses
    study = tree.get("study", tree) if isinstance(tree, dict) else None  # a study, or one repeated over seeds
    rsa = study.get("rsa") if isinstance(study, dict) else None
    if config.rsa is None or not isinstance(rsa, dict) or "draw" in rsa:
        return config
    return dataclasses.replace(config, rsa=dataclasses.replace(config.rsa, draw=OLDER_DRAW))


def _older_draw_named(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``tree`` with ``rsa.draw`` named if it is a resolved study that omits it.

    A resolved study, as run folders hold it, names its ``variant``; a study as written does not.
    """
    rsa = tree.get("rsa")
    if "variant" not in tree or not isinstance(rsa, dict) or "draw" in rsa:
        return dict(tree)
    return {**tree, "rsa": {**rsa, "draw": OLDER_DRAW}}


def _locate(study: str | os.PathLike[str]) -> Path:
    path = Path(study)
    builtin = BUILTIN / f"{study}.yaml"
    if str(study) == path.stem and builtin.is_file():  # a bare name, unlike ./quickstart
        return builtin
    if path.is_dir():
        path = path / "config.yaml"
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in BUILTIN.glob("*.yaml")))
        raise BertftError(f"{study}: no such study file; the built-in studies are: {names}")
    return path


def _setting(text: str) -> dict[str, Any]:
    """Return ``a.b=value`` as ``{"a": {"b": value}}``, with the value read as YAML."""
    name, equals, value = text.partition("=")
    parts = name.strip().split(".")
    if not equals or not all(parts):
        raise BertftError(f"{text!r}: expected a setting as name=value, such as rsa.tokens=1000")
    try:
        found = yaml.safe_load(value)
    except yaml.YAMLError:
        raise BertftError(f"{text!r}: the value is not valid YAML") from None
    for part in reversed(parts):
        found = {part: found}
    return dict(found)


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        deeper = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if deeper else value
    return merged


def _check(config: StudyConfig, file: str) -> None:
    from bertft.models import tasks

    for name, task in config.tasks.items():
        if (task.task or name) not in tasks.names():
            raise BertftError(
                f"{file}: tasks.{name}: unknown task {task.task or name!r}, expected one of {', '.join(tasks.names())}"
                + ("" if task.task else f" as its name or as tasks.{name}.task")
            )
    for name in [*config.tasks, *config.stimuli, *config.edge]:
        if not _NAME.fullmatch(name) or name in _RESERVED:
            raise BertftError(
                f"{file}: expected a name of letters, digits, '.', '_' and '-', not base or random, found {name!r}"
            )
    for name in config.stimuli:
        if name in config.tasks:
            raise BertftError(f"{file}: stimuli.{name}: a task has this name, which its dev text uses; choose another")
    if config.rsa and config.rsa.labels:
        from bertft.similarity.words.labels import LABELS

        if unknown := [label for label in config.rsa.labels if label not in LABELS]:
            raise BertftError(f"{file}: rsa.by: expected some of {', '.join(LABELS)}, found {unknown[0]!r}")
        if not config.treebank:
            raise BertftError(f"{file}: rsa.by: needs a treebank, found neither probes nor a task on trees")
    forms = config.rsa.forms if config.rsa else ""
    if forms and (forms not in config.stimuli or config.stimuli[forms].kind not in ("text", "dep")):
        found = ", ".join(name for name, own in config.stimuli.items() if own.kind in ("text", "dep"))
        raise BertftError(f"{file}: rsa.forms: expected one of the texts {found or '(none)'}, found {forms!r}")
    for name, ablate in config.ablate.items():
        if name not in config.tasks:
            raise BertftError(f"{file}: ablate.{name}: expected one of the tasks {', '.join(config.tasks)}")
        try:
            ablate.sweeps()
        except ValueError:
            raise BertftError(f"{file}: ablate.{name}: expected all, or whole numbers separated by commas") from None
    if not config.tasks:
        raise BertftError(f"{file}: tasks: expected at least one task, found none")


def edge_of(tree: object, root: Path, file: str, where: str) -> EdgeConfig:
    """Return an entry of ``edge`` from another file.

    Args:
        tree: the entry's settings.
        root: the folder that relative paths start from.
        file: the file, for error messages.
        where: the entry's key in that file, for error messages.
    """
    edge: EdgeConfig = validated(EdgeConfig, tree, file, where)
    sources = {key: getattr(edge, key) for key in ("train", "dev", "test")}
    found: dict[str, Any] = {
        key: resolve_source(text, root, f"{file}: {where}.{key}") for key, text in sources.items() if text
    }
    return dataclasses.replace(edge, **found)


def resolve_source(text: str, root: Path, where: str) -> str:
    """Return a source with its path resolved from ``root``, or pinned to a commit of the hub.

    ``where`` begins error messages.
    """
    from bertft.data.location import at_home, pin

    if text.startswith("builtin:"):
        return text
    path = root / at_home(text)
    if path.exists():
        return str(path.resolve())
    if path.name.endswith(_FILE_SUFFIXES) or text.startswith((".", "/", "~")):
        raise BertftError(f"{where}: no such file: {one_line(path)}")
    return pin(text)


def _resolve(config: StudyConfig, root: Path, file: str) -> StudyConfig:
    from bertft.data.location import at_home, pin

    if not root.is_dir():
        raise BertftError(f"--data {root}: no such folder")

    def source(text: str, where: str) -> str:
        return resolve_source(text, root, f"{file}: {where}")

    def resolved(node: Any, where: str, **extra: Any) -> Any:
        paths = [key for key in ("train", "dev", "test", "source") if getattr(node, key, None)]
        return dataclasses.replace(
            node, **{key: source(getattr(node, key), f"{where}.{key}") for key in paths}, **extra
        )

    model = config.model
    if not model.startswith("builtin:"):
        for folder in (root / at_home(model), at_home(model)):
            if folder.is_dir():
                model = str(folder.resolve())
                break
        else:
            model = pin(model, "model")
    return dataclasses.replace(
        config,
        model=model,
        tasks={
            name: resolved(
                task, f"tasks.{name}", task=task.task or name, seed=config.seed if task.seed is None else task.seed
            )
            for name, task in config.tasks.items()
        },
        stimuli={name: resolved(stimuli, f"stimuli.{name}") for name, stimuli in config.stimuli.items()},
        probes=resolved(config.probes, "probes") if config.probes else None,
        edge={name: resolved(edge, f"edge.{name}") for name, edge in config.edge.items()},
    )
