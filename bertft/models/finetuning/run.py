"""Fine-tuning on the Hugging Face Trainer: one driver for every task of ``bertft.models.tasks``.

A finished folder holds the encoder (``AutoModel.from_pretrained`` loads it), its tokenizer, ``head.safetensors`` and
``bertft.json`` with the configuration, label set, scores, versions and seconds. It appears whole or not at all. While
training runs, checkpoints lie in a hidden folder beside it, from which a killed run goes on with the same result, and a
second process that wants the folder is refused. Under ``torchrun`` or ``accelerate launch`` batches and the evaluation
are shared out and rank zero writes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertft.errors import BertftError
from bertft.runs.digests import refuse_changed_files
from bertft.runs.locks import claimed
from bertft.runs.progress import SILENT, Progress
from bertft.runs.rows import Row

__all__ = ["FinetuneConfig", "FinetuneResult", "finetune", "read_card", "snapshot_folder"]

FORMAT = 1  # of bertft.json


@dataclass(frozen=True)
class FinetuneConfig:
    """What to fine-tune on what.

    - ``task``: one of ``bertft.models.tasks.names()``; ``model``: a folder, a Hugging Face id or ``builtin:minilm``.
    - ``train``, ``dev``: sources of ``bertft.data.sources.load``; ``out``: the folder to make. What is on the hub is
      taken at the commit its branch, tag (``id@revision``) or main is at when the run begins.
    - ``learning_rate``: the encoder's peak, after a linear warm-up over the share ``warmup`` of the steps and before a
      linear fall to 0; ``head_learning_rate``: the head's.
    - ``batch_size``: features (sentences, pairs, windows) a process and step.
    - ``max_length``: pieces with special tokens (default: 512 for dep, 128 for mnli, 384 for squad, at most the model's
      window); ``stride``: pieces that two windows of one passage share (squad).
    - ``freeze``, ``truncate``: see ``bertft.models.encoder``; -1 and None leave the encoder whole.
    - ``lora``: train a LoRA of this rank on every linear map of the blocks in place of the encoder's own weights; the
      finished folder holds the merged encoder.
    - ``snapshots``: save the encoder after these percentages of the steps too, in folders beside ``out``
      (`snapshot_folder`).
    - ``prefix_cache``: a folder that keeps what the frozen blocks give out (`bertft.models.frozen_cache`), for this run and others.
    - ``bf16``, ``fp16``, ``tf32``: as Hugging Face's ``TrainingArguments``, for the training; evaluation and what is
      saved are float32.
    - ``max_train``, ``max_dev``: so many examples, drawn at random but always the same ones.
    - ``max_select``: the first so many dev examples choose the best epoch (default: all); scores are of all.
    - ``dev_name``: the dev data's name in rows; ``dev_split``: its split, for a source that has several.
    - ``report_to``: the Trainer's reporters between commas (``tensorboard,wandb``), ``all`` that are installed or
      ``none``. They get loss and learning rate every ``logging_steps`` steps, and the scores after every epoch.
      TensorBoard's files end in ``<out>.logs``.
    """

    task: str
    model: str
    train: str
    dev: str
    out: str | Path
    epochs: int = 3
    learning_rate: float = 1e-4
    head_learning_rate: float = 1e-3
    batch_size: int = 32
    max_length: int | None = None
    stride: int = 128
    seed: int = 1337
    freeze: int = -1
    truncate: int | None = None
    lora: int | None = None
    snapshots: tuple[int, ...] = ()
    prefix_cache: str | Path | None = None
    bf16: bool = False
    fp16: bool = False
    tf32: bool = False
    max_train: int | None = None
    max_dev: int | None = None
    max_select: int | None = None
    warmup: float = 0.1
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    dev_name: str | None = None
    dev_split: str | None = None
    report_to: str = "none"
    logging_steps: int = 50


@dataclass(frozen=True)
class FinetuneResult:
    """The finished ``folder``, its scores by measure, the same as rows with intervals, and the seconds it took."""

    folder: Path
    metrics: dict[str, float]
    rows: list[Row]
    seconds: float


def finetune(config: FinetuneConfig, *, progress: Progress = SILENT) -> FinetuneResult:
    """Fine-tune as ``config`` says, score the best epoch on dev and write the folder ``config.out``.

    A folder that this very configuration finished is returned at once; a run that was killed goes on from its last
    epoch. The configuration is compared by what the model and the examples are, not by where they lie. A folder that
    holds anything else raises ``BertftError``, and so does one at which another process is at work.
    """
    from bertft.data import sources
    from bertft.models.tasks import get_task

    task = get_task(config.task)
    _check(config)
    config = pinned(config)
    with progress.step("read the corpora", total=2, unit="files") as bar:
        train = sources.load(task.kind, config.train, split="train", limit=config.max_train)
        bar.advance()
        dev = sources.load(task.kind, config.dev, split=dev_split(config), limit=config.max_dev)
        bar.advance()
    if not train or not dev:
        raise BertftError(f"finetune: {config.dev if train else config.train} has no examples, expected at least one")
    identity = _identity(config, train, dev)
    if finished := _finished(config, identity):
        return finished

    from bertft.models.finetuning.training import train_and_save

    leads = os.environ.get("RANK", "0") == "0"  # torchrun's; its other processes work for the one that leads
    with claimed(config.out) if leads else contextlib.nullcontext():
        if finished := _finished(config, identity):
            return finished
        card = train_and_save(task, config, train, dev, identity, progress)
    return _result(card, config)


def pinned(config: FinetuneConfig) -> FinetuneConfig:
    """``config`` with what is on the hub at the commit it is at now."""
    from bertft.data.sources import pin

    return dataclasses.replace(config, model=pin(config.model, "model"), train=pin(config.train), dev=pin(config.dev))


def _finished(config: FinetuneConfig, identity: dict[str, Any]) -> FinetuneResult | None:
    """What this very configuration left in ``config.out``, None where there is nothing."""
    out = Path(config.out)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    found = read_card(out)
    if different := _differences(found["identity"], identity):
        raise BertftError(
            f"{out}: holds another fine-tuned model (other {', '.join(different)}), expected an empty folder"
        )
    refuse_changed_files(out)
    return _result(found, config)


def read_card(folder: str | Path) -> dict[str, Any]:
    """``bertft.json`` of a fine-tuned folder."""
    path = Path(folder) / "bertft.json"
    try:
        card = json.loads(path.read_text(encoding="utf8"))
    except FileNotFoundError:
        raise BertftError(f"{folder}: expected a folder made by finetune, found none with bertft.json") from None
    except (ValueError, RecursionError) as error:
        raise BertftError(f"{path}: expected JSON, found something else ({error})") from None
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise BertftError(f"{path}: expected format {FORMAT}, found another")
    return card


def dev_name(config: FinetuneConfig) -> str:
    """The name of the dev data in rows: the one given, else the file's or folder's own without its endings."""
    return config.dev_name or data_name(config.dev)


def data_name(source: str | Path) -> str:
    """What rows call a source: as `bertft.data.sources.data_name`, but built-in data with its options."""
    from bertft.data import sources

    return str(source) if str(source).startswith("builtin:") else sources.data_name(source)


def dev_split(config: FinetuneConfig) -> str:
    """The split asked of a dev source that has several: the one given, else what data sets of this task call it."""
    if config.dev_split is not None:
        return config.dev_split
    if str(config.dev).startswith("builtin:"):
        return "dev"
    return "validation_matched" if config.task == "mnli" else "validation"


def default_length(task: str) -> int:
    """How many pieces an input of a task may have where nothing is said."""
    from bertft.models.tasks import get_task

    return get_task(task).max_length


def published(config: FinetuneConfig) -> dict[str, Any]:
    """The configuration for others to read: ``model``, ``train`` and ``dev`` without the folders they lay in."""
    from bertft.data.files import at_home
    from bertft.data.sources import hub_of

    settings = {k: v for k, v in dataclasses.asdict(config).items() if k not in ("out", "prefix_cache", *REPORTING)}
    for name in ("model", "train", "dev"):
        source = settings[name]
        local = hub_of(source) is None and not str(source).startswith("builtin:")
        settings[name] = at_home(source).resolve().name if local else str(source)
    return settings


def on_the_hub(config: FinetuneConfig) -> dict[str, dict[str, str]]:
    """Which of ``model``, ``train`` and ``dev`` come from the hub: id, revision (a commit where known), config."""
    from bertft.data.sources import hub_of

    found = {name: hub_of(getattr(config, name)) for name in ("model", "train", "dev")}
    return {
        name: {key: value for key, value in dataclasses.asdict(hub).items() if value is not None}
        for name, hub in found.items()
        if hub is not None
    }


def snapshot_folder(config: FinetuneConfig, percent: int) -> Path:
    """Where the encoder lies as it was after ``percent`` of the steps."""
    out = Path(config.out)
    return out.parent / f"{out.name}.snapshots" / f"{percent:03d}"


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    from importlib.metadata import version

    import bertft

    names = ("torch", "transformers", "accelerate", "tokenizers", "numpy")
    found = {name: version(name) for name in names}
    return {"bertft": bertft.__version__, "python": platform.python_version(), **found}


def _check(config: FinetuneConfig) -> None:
    least = {"epochs": 1, "batch_size": 1, "stride": 0, "freeze": -1, "logging_steps": 1}
    least |= {
        name: 1
        for name in ("max_length", "max_train", "max_dev", "max_select", "lora")
        if getattr(config, name) is not None
    }
    for name, bound in least.items():
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < bound:
            raise BertftError(f"finetune: {name} must be an integer of at least {bound}, found {value!r}")
    for name in ("learning_rate", "head_learning_rate", "max_grad_norm"):
        if not getattr(config, name) > 0:
            raise BertftError(f"finetune: {name} must be positive, found {getattr(config, name)!r}")
    if config.bf16 and config.fp16:
        raise BertftError("finetune: expected bf16 or fp16, found both")
    if config.lora is not None and config.freeze >= 0:
        raise BertftError(f"finetune: lora trains every block, found freeze {config.freeze} beside it")
    if not all(isinstance(percent, int) and 0 <= percent <= 100 for percent in config.snapshots):
        raise BertftError(f"finetune: snapshots must be percentages, found {config.snapshots}")
    if config.snapshots and (config.lora is not None or config.prefix_cache is not None):
        raise BertftError("finetune: snapshots are of whole encoders: not with lora or prefix_cache")
    if not 0 <= config.warmup < 1 or not config.weight_decay >= 0:
        raise BertftError(
            f"finetune: expected warmup in [0, 1) and weight_decay >= 0, found {config.warmup} and"
            f" {config.weight_decay}"
        )


# What a configuration is, apart from where things lie and what they are called.
_PLACES = ("out", "model", "train", "dev", "dev_name", "dev_split", "max_train", "max_dev", "prefix_cache")
REPORTING = ("report_to", "logging_steps")  # changes nothing in what is trained
PRECISIONS = ("bf16", "fp16", "tf32")
_LATER = ("lora", "snapshots", *PRECISIONS)  # told only where they are used: older folders do not know them


def _identity(config: FinetuneConfig, train: Sequence[Any], dev: Sequence[Any]) -> dict[str, Any]:
    settings = {k: v for k, v in dataclasses.asdict(config).items() if k not in (*_PLACES, *REPORTING)}
    settings["max_length"] = config.max_length or default_length(config.task)
    if config.task != "squad":
        del settings["stride"]  # only passages are cut into windows
    for name in _LATER:
        if not settings[name]:
            del settings[name]
    if config.snapshots:
        settings["snapshots"] = list(config.snapshots)  # as JSON has it
    return {
        **settings,
        "model": model_fingerprint(config.model),
        "train": examples_fingerprint(train),
        "dev": examples_fingerprint(dev),
    }


def _differences(stored: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """The settings in which two identities differ; one made before a setting existed has its default."""
    defaults = {field.name: field.default for field in dataclasses.fields(FinetuneConfig)}
    names = [*wanted, *(key for key in _LATER if key in stored and key not in wanted)]
    return [key for key in names if stored.get(key, defaults.get(key)) != wanted.get(key, defaults.get(key))]


# What an example says, apart from its name. Written out, so that a field added later changes no fingerprint; of another
# kind it is every field but the id.
_CONTENT = {
    "Sentence": ("words", "heads", "relations", "upos"),
    "Pair": ("premise", "hypothesis", "label"),
    "Question": ("question", "context", "answers"),
    "Answer": ("text", "start"),
}


def examples_fingerprint(examples: Sequence[Any]) -> str:
    """SHA-256 of the examples' content in order: the same for a copy, an unpacked file or another path."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps(_content(example), ensure_ascii=True).encode("ascii"))
    return digest.hexdigest()


def _content(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_content(item) for item in value]
    names = _CONTENT.get(type(value).__name__)
    if names is None and dataclasses.is_dataclass(value):
        names = tuple(field.name for field in dataclasses.fields(value) if field.name != "id")
    return value if names is None else [_content(getattr(value, name)) for name in names]


def model_fingerprint(name: str) -> str:
    """SHA-256 of a local model's weights, configuration and tokenizer; of one on the hub, of its id and commit."""
    from bertft.data.sources import resolve_model

    where = resolve_model(str(name))
    folder = Path(where)
    if not folder.is_dir():
        return hashlib.sha256(where.encode()).hexdigest()
    digest = hashlib.sha256()
    files = [*sorted(folder.glob("*.safetensors")), folder / "config.json", folder / "tokenizer.json"]
    for path in files:
        if path.exists():
            digest.update(path.name.encode())
            with path.open("rb") as file:
                while block := file.read(1 << 22):
                    digest.update(block)
    return digest.hexdigest()


def _result(card: dict[str, Any], config: FinetuneConfig) -> FinetuneResult:
    rows = score_rows(card["scores"], config.task, dev_name(config), config.seed)
    return FinetuneResult(Path(config.out), {row.measure: row.value for row in rows}, rows, card["seconds"])


def score_rows(scores: dict[str, dict[str, Any]], task: str, data: str, seed: int) -> list[Row]:
    """Rows of ``card["scores"]``: a single seed's values, intervals over the items of the dev data."""
    return [
        Row(task, "finetune", data, None, name, s["value"], s["low"], s["high"], s["n"], seed)
        for name, s in scores.items()
    ]
