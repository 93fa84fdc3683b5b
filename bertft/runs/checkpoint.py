"""Checkpoints of a streamed comparison: tensors as safetensors, then the JSON that makes them count."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.runs.digests import digest
from bertft.runs.rows import appearing_file, write_text_atomically

_FORMAT = "bertft.stream/2"
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
}


class Checkpoint:
    """One process's place in ``folder``: ``<name>.json`` and the safetensors file it names.

    ``settings`` is all that the sums depend on; a checkpoint of other settings is refused, not used. Both files are
    written under a temporary name and renamed, the JSON last, so that whenever the process ends the folder holds the
    last checkpoint whole.
    """

    def __init__(self, folder: str | os.PathLike[str], settings: Mapping[str, Any], name: str = "stream") -> None:
        self.folder, self.settings, self.name = Path(folder), json.loads(json.dumps(settings)), name
        self._serial = 0

    def save(self, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        """Replace the checkpoint by ``tensors`` and the JSON values ``record``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._serial += 1
        file = f"{self.name}-{self._serial}.safetensors"
        write_tensors(self.folder / file, tensors)
        content = {
            "format": _FORMAT,
            "tensors": file,
            "sha256": digest(tensors),
            "serial": self._serial,
            "record": record,
            "settings": self.settings,
        }
        write_text_atomically(self.folder / f"{self.name}.json", json.dumps(content, indent=1) + "\n")
        for old in self.folder.glob(f"{self.name}-*.safetensors"):
            if old.name != file:
                old.unlink()

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What ``save`` wrote last, or None where there is nothing. Refuses a checkpoint of other settings."""
        from safetensors import SafetensorError, safe_open

        path = self.folder / f"{self.name}.json"
        try:
            content = json.loads(path.read_text(encoding="utf8"))
            found, settings = content["format"], content["settings"]
            if found != _FORMAT:
                raise BertftError(f"{path}: expected the format {_FORMAT}, found {found!r}")
            if settings != self.settings:
                raise BertftError(
                    f"{path}: a checkpoint of another comparison ({_difference(settings, self.settings)}); "
                    "choose another --out, or remove this one first"
                )
            with safe_open(str(self.folder / content["tensors"]), "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            if content.get("sha256", digest(tensors)) != digest(tensors):  # older checkpoints have none
                raise ValueError(f"{content['tensors']} is damaged")
        except FileNotFoundError:
            if not path.exists():
                return None
            raise BertftError(f"{path}: the checkpoint's tensors are missing; remove {self.folder}") from None
        except (ValueError, KeyError, TypeError, SafetensorError) as error:
            raise BertftError(f"{path}: not a usable checkpoint ({error}); remove {self.folder}") from None
        self._serial = content["serial"]
        return tensors, content["record"]

    def remove(self) -> None:
        """Remove the checkpoints of all processes in the folder, and the folder where nothing else is in it."""
        for pattern in ("*.json", "*.safetensors", ".*.json.*", ".*.safetensors.*"):
            for file in self.folder.glob(pattern):
                file.unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write CPU ``tensors`` as a safetensors file, one after the other: the library's own writer copies them all first.

    Through a temporary name in the same folder.
    """
    header: dict[str, Any] = {}
    stop = 0
    for name, tensor in tensors.items():
        start, stop = stop, stop + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, stop]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with appearing_file(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            if tensor.numel():
                file.write(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().data)


def _difference(old: Any, new: Any, where: str = "") -> str:
    """The first setting in which two tables differ, in words."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*new, *(k for k in old if k not in new)]:
            if old.get(key) != new.get(key):
                return _difference(old.get(key), new.get(key), f"{where}.{key}" if where else str(key))
    return f"{where} is {_shown(old)} there and {_shown(new)} here"


def _shown(value: Any) -> str:
    """A value in words; of a digest, as of an encoder's weights, the beginning."""
    return f"{value[:8]}..." if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) else repr(value)
