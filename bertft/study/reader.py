"""Reads a study's YAML file: checked strictly, every default made visible, paths resolved."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from bertft.errors import BertftError
from bertft.study.config import EdgeConfig, StudyConfig

BUILTIN = Path(__file__).with_name("builtin")
"""Where the studies that travel with the package lie: ``bertft study quickstart`` reads ``quickstart.yaml``."""


STIMULI_KINDS = ("text", "dep", "nli", "qa")
"""What a text to compare representations on may be, as ``bertft.data.sources.load`` calls it."""

RSA_METRICS = ("dot", "cosine", "correlation", "sqeuclidean")
"""The dissimilarities that have a linear-time RSA; ``bertft.similarity.measures.METRICS`` without importing torch."""

FEATURES = {"window": ("refuse", "split"), "dtype": ("float16", "float32")}
"""What `bertft.probes.feature_store.FeatureStore` may be told of the vectors of probes."""

RSA_LABELS = ("upos", "xpos", "relation", "depth", "position", "frequency")
"""By what words can be told apart; the names of ``bertft.similarity.words.moved.LABELS`` without importing torch."""

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
    """Read a study by file or built-in name, apply ``variant``, and resolve its relative paths against ``data``.

    Without ``data`` relative paths start at the YAML file's own folder. What is on the hub is pinned to the commit it
    is at now, so that the run folder's configuration says which. ``model`` replaces the study's encoder, each of
    ``settings`` (``rsa.tokens=1000``; the value is YAML) one of its settings.
    Raises ``BertftError`` that names the file and the key for anything unknown, missing or of the wrong type.
    """
    path = _locate(study)
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        raise BertftError(f"{path}: {line}not valid YAML ({_one_line(getattr(error, 'problem', error))})") from None
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
    """As `read_study`, of what the YAML file ``path`` (named in errors) holds."""
    if not isinstance(tree, dict):
        raise BertftError(f"{path}: expected a study (a mapping with name, model, tasks), found {_kind(tree)}")
    tree = dict(tree)
    variants = tree.pop("variants", None) or {}
    if not isinstance(variants, dict) or not all(isinstance(v, dict) for v in variants.values()):
        raise BertftError(f"{path}: variants: expected a mapping from name to overrides, found {_kind(variants)}")
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
    config = build(StudyConfig, tree, str(path), "")
    _check(config, str(path))
    return _resolve(config, Path(data) if data is not None else path.parent, str(path))


def _locate(study: str | os.PathLike[str]) -> Path:
    path = Path(study)
    builtin = BUILTIN / f"{study}.yaml"
    if str(study) == path.stem and builtin.is_file():  # a bare name; ./quickstart is a folder
        return builtin
    if path.is_dir():
        path = path / "config.yaml"
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in BUILTIN.glob("*.yaml")))
        raise BertftError(f"{study}: no such study file, and the built-in studies are: {names}")
    return path


def _setting(text: str) -> dict[str, Any]:
    """``a.b=value`` as ``{"a": {"b": value}}``, the value read as YAML."""
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


def build(wanted: Any, value: Any, file: str, where: str) -> Any:
    """``value`` as ``wanted``, or a ``BertftError``.

    ``wanted``: a dataclass, ``dict[str, X]``, ``tuple[X, ...]``, ``X | None``, ``X | tuple[X, ...]`` or a scalar.
    """
    if typing.get_origin(wanted) in (types.UnionType, typing.Union):
        options = typing.get_args(wanted)
        if value is None and type(None) in options:
            return None
        wanted = next(option for option in options if option is not type(None))
        if isinstance(value, list) and value and any(typing.get_origin(option) is tuple for option in options):
            return tuple(build(wanted, entry, file, f"{where}[{i}]") for i, entry in enumerate(value))
    if typing.get_origin(wanted) is tuple:
        if not isinstance(value, list):
            raise BertftError(f"{file}: {where}: expected a list, found {_kind(value)}")
        item = typing.get_args(wanted)[0]
        return tuple(build(item, entry, file, f"{where}[{i}]") for i, entry in enumerate(value))
    if typing.get_origin(wanted) is dict:
        if not isinstance(value, dict):
            raise BertftError(f"{file}: {where}: expected a mapping by name, found {_kind(value)}")
        item = typing.get_args(wanted)[1]
        return {str(key): build(item, entry, file, f"{where}.{_one_line(key)}") for key, entry in value.items()}
    if dataclasses.is_dataclass(wanted):
        return _build_dataclass(wanted, value, file, where)
    if wanted is float and isinstance(value, str):  # YAML 1.1 reads 5e-5 (no dot) as text
        try:
            return float(value)
        except ValueError:
            pass
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        raise BertftError(f"{file}: {where}: expected {_TYPE_NAMES[wanted]}, found {_kind(value)}")
    return value


def _build_dataclass(wanted: Any, value: Any, file: str, where: str) -> Any:
    hints = typing.get_type_hints(wanted)
    dot = f"{where}." if where else ""
    if not isinstance(value, dict):
        raise BertftError(f"{file}: {where}: expected a mapping with {', '.join(hints)}, found {_kind(value)}")
    for key in value:
        if key not in hints:
            close = difflib.get_close_matches(str(key), hints, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(hints)}"
            raise BertftError(f"{file}: {dot}{_one_line(key)}: unknown key, {hint}")
    required = (f for f in dataclasses.fields(wanted) if f.default is f.default_factory is dataclasses.MISSING)
    for missing in (f.name for f in required if f.name not in value):
        raise BertftError(f"{file}: {dot}{missing}: missing, and it has no default")
    return wanted(**{key: build(hints[key], entry, file, f"{dot}{key}") for key, entry in value.items()})


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
                f"{file}: {name!r} cannot be a name here: use letters, digits, '.', '_', '-'; not base or random"
            )
    for name in config.stimuli:
        if name in config.tasks:
            raise BertftError(f"{file}: stimuli.{name}: a task has that name, and its dev text is measured under it")
    for name, stimuli in config.stimuli.items():
        if stimuli.kind not in STIMULI_KINDS:
            kinds = ", ".join(STIMULI_KINDS)
            raise BertftError(f"{file}: stimuli.{name}.kind: expected one of {kinds}, found {stimuli.kind!r}")
    if config.rsa:
        for key, allowed in (("metric", RSA_METRICS), ("unit", ("token", "word")), ("layers", ("paired", "all"))):
            if getattr(config.rsa, key) not in allowed:
                found = getattr(config.rsa, key)
                raise BertftError(f"{file}: rsa.{key}: expected one of {', '.join(allowed)}, found {found!r}")
        if unknown := [label for label in config.rsa.labels if label not in RSA_LABELS]:
            raise BertftError(f"{file}: rsa.by: expected some of {', '.join(RSA_LABELS)}, found {unknown[0]!r}")
        if config.rsa.labels and not config.treebank:
            raise BertftError(
                f"{file}: rsa.by: expected trees to tell words apart, found no probes and no task on trees"
            )
    if config.probes:
        _check_features(config.probes, file, "probes")
    for name, edge in config.edge.items():
        _check_features(edge, file, f"edge.{name}")
    for name, ablate in config.ablate.items():
        if name not in config.tasks:
            raise BertftError(f"{file}: ablate.{name}: expected one of the tasks {', '.join(config.tasks)}")
        try:
            ablate.sweeps()
        except ValueError:
            raise BertftError(f"{file}: ablate.{name}: expected all, or whole numbers with commas") from None
    if not config.tasks:
        raise BertftError(f"{file}: tasks: expected at least one task, found none")
    _check_numbers(config, file, "")


def _check_features(node: Any, file: str, where: str) -> None:
    for key, allowed in FEATURES.items():
        if (found := getattr(node, key)) not in allowed:
            raise BertftError(f"{file}: {where}.{key}: expected {' or '.join(allowed)}, found {found!r}")


def _check_numbers(node: Any, file: str, where: str) -> None:
    positive = {
        "epochs",
        "learning_rate",
        "head_learning_rate",
        "batch_size",
        "max_length",
        "max_train",
        "max_dev",
        "max_select",
        "max_grad_norm",
        "lora",
    }
    positive |= {"tokens", "rank", "limit", "truncate", "max_test", "interval", "steps"}
    for item in dataclasses.fields(node):
        value, place = getattr(node, item.name), f"{where}.{item.name}".lstrip(".")
        if dataclasses.is_dataclass(value):
            _check_numbers(value, file, place)
        elif isinstance(value, dict):
            for key, entry in value.items():
                _check_numbers(entry, file, f"{place}.{key}")
        elif item.name in positive and not isinstance(value, str):  # of a sweep, `truncate` is text
            for number in value if isinstance(value, tuple) else (value,):
                if number is not None and not number > 0:
                    raise BertftError(f"{file}: {place}: expected a number above 0, found {number}")


def edge_of(tree: object, root: Path, file: str, where: str) -> EdgeConfig:
    """One entry of a study's ``edge`` that stands elsewhere, its paths starting at ``root``; errors name the others."""
    edge: EdgeConfig = build(EdgeConfig, tree, file, where)
    _check_features(edge, file, where)
    _check_numbers(edge, file, where)
    sources = {key: getattr(edge, key) for key in ("train", "dev", "test")}
    found: dict[str, Any] = {
        key: resolve_source(text, root, f"{file}: {where}.{key}") for key, text in sources.items() if text
    }
    return dataclasses.replace(edge, **found)


def resolve_source(text: str, root: Path, where: str) -> str:
    """A source with its relative path starting at ``root``, or on the hub at a commit; ``where`` names it in errors."""
    from bertft.data.files import at_home
    from bertft.data.sources import pin

    if text.startswith("builtin:"):
        return text
    path = root / at_home(text)
    if path.exists():
        return str(path.resolve())
    if path.name.endswith(_FILE_SUFFIXES) or text.startswith((".", "/", "~")):
        raise BertftError(f"{where}: no such file: {_one_line(path)}")
    return pin(text)


def _resolve(config: StudyConfig, root: Path, file: str) -> StudyConfig:
    from bertft.data.files import at_home
    from bertft.data.sources import pin

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


_TYPE_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    return "a list" if isinstance(value, list) else repr(value)


def _one_line(problem: object) -> str:
    return " ".join(str(problem).split())
