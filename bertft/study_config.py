"""What a study is: its YAML file as dataclasses, checked strictly, with every default made visible.

```yaml
name: merchant2020_minilm          # for the page's title
model: builtin:minilm              # hub id | folder | builtin:minilm
seed: 1337
tasks:                             # one fine-tuning run each; the name is the name on the lines of the figures
  dep: {train: ud/train.conllu.gz, dev: ud/dev.conllu.gz, epochs: 3}
stimuli:                           # out-of-domain texts for RSA; each task's own dev text is always measured too
  wikipedia: {source: wikipedia/sentences.txt.gz}
rsa: {tokens: 5000, metric: cosine}
probes: {train: ud/train.conllu.gz, dev: ud/dev.conllu.gz, rank: 128}
edge:                              # edge probes, a task by name, scored on its test data, else on dev
  ner: {train: ner/train.jsonl.gz, dev: ner/dev.jsonl.gz, test: ner/test.jsonl.gz}
variants:                          # overrides by name, chosen with --variant
  small: {tasks: {dep: {max_train: 2000}}}
```
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bertft.errors import BertftError

BUILTIN = Path(__file__).with_name("studies")
"""Where the studies that travel with the package lie: ``bertft study quickstart`` reads ``quickstart.yaml``."""


STIMULI_KINDS = ("text", "dep", "nli", "qa")
"""What a text to compare representations on may be, as ``bertft.data.sources.load`` calls it."""

RSA_METRICS = ("dot", "cosine", "correlation", "sqeuclidean")
"""The dissimilarities that have a linear-time RSA; ``bertft.similarity.measures.METRICS`` without importing torch."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_FILE_SUFFIXES = (".conllu", ".json", ".jsonl", ".tsv", ".txt", ".gz")
_RESERVED = {"base", "random"}


@dataclass(frozen=True)
class TaskConfig:
    """One fine-tuning run. None means the fine-tuning driver's own default for that task.

    ``train`` and ``dev`` are sources as ``bertft.data.sources.load`` takes them; ``max_train`` and ``max_dev`` cut
    them to so many examples. Every key but ``task`` (by default the run's name) is one of ``FinetuneConfig``.
    """

    train: str
    dev: str
    task: str = ""
    max_train: int | None = None
    max_dev: int | None = None
    max_select: int | None = None
    epochs: int | None = None
    learning_rate: float | None = None
    head_learning_rate: float | None = None
    warmup: float | None = None
    weight_decay: float | None = None
    batch_size: int | None = None
    max_length: int | None = None
    stride: int | None = None
    freeze: int | None = None
    truncate: int | None = None
    seed: int | None = None


@dataclass(frozen=True)
class StimuliConfig:
    """A text to compare representations on, beside the tasks' own: a source and what kind it is."""

    source: str
    kind: str = "text"
    limit: int | None = None


@dataclass(frozen=True)
class RsaConfig:
    """How the encoders are compared: so many tokens of each text, and the dissimilarity of two tokens."""

    tokens: int = 5000
    metric: str = "cosine"
    unit: str = "token"


@dataclass(frozen=True)
class ProbesConfig:
    """Structural probes of every layer of the base, every tuned and (``control``) a random encoder."""

    train: str
    dev: str
    name: str = "trees"
    max_train: int | None = None
    max_dev: int | None = None
    rank: int = 128
    epochs: int = 10
    control: bool = True


@dataclass(frozen=True)
class EdgeConfig:
    """Edge probes on one task of the base, every tuned and (``random``) a random encoder.

    ``control`` and ``code_length`` as in `bertft.probes.edge.edge_probes`, the rest of the training as in
    `bertft.probes.edge_train.EdgeTraining`.
    """

    train: str
    dev: str
    test: str | None = None
    max_train: int | None = None
    max_dev: int | None = None
    max_test: int | None = None
    control: bool = True
    code_length: bool = False
    random: bool = False
    learning_rate: float = 1e-4
    batch_size: int = 32
    interval: int = 100
    steps: int = 10_000


@dataclass(frozen=True)
class StudyConfig:
    """A whole study. ``read_study`` makes one from YAML."""

    name: str
    model: str
    tasks: dict[str, TaskConfig]
    description: str = ""
    variant: str = ""
    seed: int = 1337
    stimuli: dict[str, StimuliConfig] = field(default_factory=dict)
    rsa: RsaConfig | None = field(default_factory=RsaConfig)
    probes: ProbesConfig | None = None
    edge: dict[str, EdgeConfig] = field(default_factory=dict)

    @property
    def sources(self) -> list[str]:
        """Every corpus the study reads, each once."""
        found = [source for task in self.tasks.values() for source in (task.train, task.dev)]
        found += [stimuli.source for stimuli in self.stimuli.values()]
        found += [self.probes.train, self.probes.dev] if self.probes else []
        found += [source for edge in self.edge.values() for source in (edge.train, edge.dev, edge.test) if source]
        return list(dict.fromkeys(found))

    @property
    def synthetic(self) -> bool:
        """Whether any text in it is made by ``bertft.data.synthetic``."""
        return any(source.startswith("builtin:synthetic") for source in self.sources)

    @property
    def own_text(self) -> dict[str, str]:
        """For each task the name of the stimuli made of its own dev text; tasks with one dev file share them."""
        first: dict[tuple[str, str], str] = {}
        return {name: first.setdefault((task.task, task.dev), name) for name, task in self.tasks.items()}

    def to_tree(self) -> dict[str, Any]:
        """The resolved study as plain values, as ``to_yaml`` writes it."""
        tree = dataclasses.asdict(self)
        if not self.edge:
            del tree["edge"]  # which older run folders do not name: they are still of the same study
        return tree

    def to_yaml(self) -> str:
        """The resolved study: reading it back gives an equal ``StudyConfig``."""
        return yaml.safe_dump(self.to_tree(), sort_keys=False, allow_unicode=True, width=100)


def read_study(
    study: str | os.PathLike[str],
    *,
    variant: str | None = None,
    data: str | Path | None = None,
    model: str | None = None,
    settings: Sequence[str] = (),
) -> StudyConfig:
    """Read a study by file or built-in name, apply ``variant``, and resolve its relative paths against ``data``.

    Without ``data`` relative paths start at the YAML file's own folder. ``model`` replaces the study's encoder,
    each of ``settings`` (``rsa.tokens=1000``; the value is YAML) one of its settings.
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
    config = _build(StudyConfig, tree, str(path), "")
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


def _build(wanted: Any, value: Any, file: str, where: str) -> Any:
    """``value`` as ``wanted`` (a dataclass, ``dict[str, X]``, ``X | None`` or a scalar type), or a ``BertftError``."""
    if typing.get_origin(wanted) in (types.UnionType, typing.Union):
        if value is None:
            return None
        wanted = next(option for option in typing.get_args(wanted) if option is not type(None))
    if typing.get_origin(wanted) is dict:
        if not isinstance(value, dict):
            raise BertftError(f"{file}: {where}: expected a mapping by name, found {_kind(value)}")
        item = typing.get_args(wanted)[1]
        return {str(key): _build(item, entry, file, f"{where}.{key}") for key, entry in value.items()}
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
            raise BertftError(f"{file}: {dot}{key}: unknown key, {hint}")
    required = (f for f in dataclasses.fields(wanted) if f.default is f.default_factory is dataclasses.MISSING)
    for missing in (f.name for f in required if f.name not in value):
        raise BertftError(f"{file}: {dot}{missing}: missing, and it has no default")
    return wanted(**{key: _build(hints[key], entry, file, f"{dot}{key}") for key, entry in value.items()})


def _check(config: StudyConfig, file: str) -> None:
    from bertft import tasks

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
        for key, allowed in (("metric", RSA_METRICS), ("unit", ("token", "word"))):
            if getattr(config.rsa, key) not in allowed:
                found = getattr(config.rsa, key)
                raise BertftError(f"{file}: rsa.{key}: expected one of {', '.join(allowed)}, found {found!r}")
    if not config.tasks:
        raise BertftError(f"{file}: tasks: expected at least one task, found none")
    _check_numbers(config, file, "")


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
    }
    positive |= {"tokens", "rank", "limit", "truncate", "max_test", "interval", "steps"}
    for item in dataclasses.fields(node):
        value, place = getattr(node, item.name), f"{where}.{item.name}".lstrip(".")
        if dataclasses.is_dataclass(value):
            _check_numbers(value, file, place)
        elif isinstance(value, dict):
            for key, entry in value.items():
                _check_numbers(entry, file, f"{place}.{key}")
        elif item.name in positive and value is not None and not value > 0:
            raise BertftError(f"{file}: {place}: expected a number above 0, found {value}")


def resolve_source(text: str, root: Path, where: str) -> str:
    """A source with its relative path starting at ``root``; ``where`` names it in errors."""
    if text.startswith("builtin:"):
        return text
    path = root / Path(text).expanduser()
    if path.exists():
        return str(path.resolve())
    if path.name.endswith(_FILE_SUFFIXES) or text.startswith((".", "/", "~")):
        raise BertftError(f"{where}: no such file: {path}")
    return text  # a hub data set id


def _resolve(config: StudyConfig, root: Path, file: str) -> StudyConfig:
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
        for folder in (root / Path(model).expanduser(), Path(model).expanduser()):
            if folder.is_dir():
                model = str(folder.resolve())
                break
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
