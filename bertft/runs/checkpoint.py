"""Checkpoints of a streamed comparison."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from bertft.errors import BertftError
from bertft.runs.artefacts import Artefact, Contents, DamagedArtefact, OtherSettings, read_tensors
from bertft.runs.digests import digest

FORMAT = "bertft.stream/3"
_OLDER = "bertft.stream/2"  # tensors in <name>-<n>.safetensors, and a JSON file that names the current one


def team_sizes(folder: Path) -> list[int]:
    """Return the numbers of processes whose checkpoints, named ``<rank>-of-<size>``, are in ``folder``."""
    names = [re.match(r"\d+-of-(\d+)\b", path.name) for path in folder.glob("*-of-*")]
    return sorted({int(name[1]) for name in names if name})


class Checkpoint:
    """The checkpoint of one process, ``<name>.safetensors`` in ``folder``.

    ``settings`` is everything that the sums depend on. A checkpoint of other settings is refused.
    """

    def __init__(self, folder: str | os.PathLike[str], settings: Mapping[str, Any], name: str = "stream") -> None:
        self.folder, self.name = Path(folder), name
        path = self.folder / f"{name}.safetensors"
        self._artefact = Artefact(path, settings, format=FORMAT, older=self._load_older)

    def save(self, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        """Replace the checkpoint by ``tensors`` and the JSON values ``record``."""
        self._artefact.save(tensors, record)
        (self.folder / f"{self.name}.json").unlink(missing_ok=True)
        for older in self.folder.glob(f"{self.name}-*.safetensors"):
            older.unlink()

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return the tensors and the record of the last `save`, or None if there is none.

        Raises:
            BertftError: if the checkpoint is damaged or has other settings.
        """
        try:
            contents = self._artefact.load(refuse=True)
        except OtherSettings as error:
            raise BertftError(
                f"{self._artefact.path}: a checkpoint of another comparison ({error}); "
                "choose another --out, or remove this one first"
            ) from None
        except DamagedArtefact as error:
            raise BertftError(f"{error}; not a usable checkpoint, remove {self.folder}") from None
        return None if contents is None else (contents.tensors, contents.record)

    def remove(self) -> None:
        """Remove the checkpoints of all processes in the folder, and the folder if nothing else is in it."""
        for pattern in ("*.json", "*.safetensors", ".*.json.*", ".*.safetensors.*"):
            for file in self.folder.glob(pattern):
                file.unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _load_older(self) -> Contents | None:
        """Read a checkpoint of an earlier version: the JSON file and the tensors it names."""
        path = self.folder / f"{self.name}.json"
        try:
            content = json.loads(path.read_text(encoding="utf8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise DamagedArtefact(f"{path}: damaged ({error})") from None
        try:
            if content["format"] != _OLDER:
                raise DamagedArtefact(f"{path}: expected the format {_OLDER}, found {content['format']!r}")
            file, settings, record = self.folder / content["tensors"], content["settings"], content["record"]
            tensors, _ = read_tensors(file)
            if content.get("sha256", digest(tensors)) != digest(tensors):  # the oldest have no digest
                raise DamagedArtefact(f"{file}: damaged: the content is not what was written")
        except (KeyError, TypeError) as error:
            raise DamagedArtefact(f"{path}: damaged ({error!r})") from None
        except FileNotFoundError:
            raise DamagedArtefact(f"{path}: the checkpoint's tensors are missing") from None
        return Contents(tensors, settings, record)
