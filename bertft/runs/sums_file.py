"""Files of cross moments."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from bertft.errors import BertftError
from bertft.runs.artefacts import Artefact, DamagedArtefact, about_of, read_artefact, read_metadata, read_tensors
from bertft.runs.digests import digest

FORMAT = "bertft.CrossMoments/3"
_SQUARE = "bertft.CrossMoments/2"  # symmetric sums were whole matrices
_OLDER = "bertft.CrossMoments/1"  # the configuration stood in the metadata "config"


def write_sums(path: str | os.PathLike[str], state: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write the tensors ``state`` and the JSON values ``config`` as an artefact."""
    Artefact(path, config, format=FORMAT).save(state)


def read_sums(
    path: str | os.PathLike[str], names: Sequence[str], optional: str
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the configuration that `write_sums` wrote, now or in an earlier version.

    Raises:
        BertftError: if the file is missing or damaged, or if it has only some of ``names``, or tensors other
            than ``names`` and ``optional``.
    """
    try:
        written = about_of(path, read_metadata(path)).get("format")
        if written == _OLDER:
            tensors, config = _read_oldest(path)
        else:
            tensors, config, _ = read_artefact(path, _SQUARE if written == _SQUARE else FORMAT)
    except FileNotFoundError:
        raise BertftError(f"{path}: no such file of cross moments") from None
    if set(tensors) - {optional} not in (set(), set(names)):
        raise BertftError(f"{path}: expected sums {', '.join(names)}, found {', '.join(sorted(tensors))}")
    return tensors, config


def _read_oldest(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors, metadata = read_tensors(path)
    if metadata.get("sha256") != digest(tensors, metadata.get("config", "")):
        raise DamagedArtefact(f"{path}: damaged: the content is not what was written")
    return tensors, json.loads(metadata["config"])
