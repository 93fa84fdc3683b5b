"""Files of sums: safetensors, with the configuration and a digest of both in their metadata."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from bertft.errors import BertftError
from bertft.runs.digests import digest

_FORMAT = "bertft.CrossMoments/1"


def write_sums(path: str | os.PathLike[str], state: dict[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write the tensors ``state`` and the JSON values ``config``, through a temporary name."""
    from safetensors.torch import save

    from bertft.runs.rows import write_bytes_atomically

    text = json.dumps(config, sort_keys=True)
    write_bytes_atomically(path, save(state, {"format": _FORMAT, "config": text, "sha256": digest(state, text)}))


def read_sums(
    path: str | os.PathLike[str], names: Sequence[str], further: str
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What ``write_sums`` wrote: the tensors ``names``, with or without ``further``, or none; and the configuration."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(os.fspath(path), "pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except FileNotFoundError:
        raise BertftError(f"{path}: no such file of cross moments") from None
    except (SafetensorError, IsADirectoryError) as error:
        raise BertftError(f"{path}: not a safetensors file of cross moments ({error})") from None
    if metadata.get("format") != _FORMAT or set(state) - {further} not in (set(), set(names)):
        raise BertftError(f"{path}: expected the format {_FORMAT}, found {metadata.get('format')!r}")
    if metadata.get("sha256") != digest(state, metadata.get("config", "")):
        raise BertftError(f"{path}: damaged: the sums are not those that were written")
    return state, json.loads(metadata["config"])
