"""Weights by name, read one at a time.

They come from safetensors files, one or sharded, or from a model in memory.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from bertft.data.files import first_line
from bertft.errors import BertftError

CONV1D = ("gpt2", "openai-gpt")  # model types whose linear maps are stored as (in, out)
_CONV1D = re.compile(r"\.(c_attn|c_proj|c_fc|q_attn)\.weight$")


class Weights(Protocol):
    """Named weights of a model: their shapes, and each of them on request."""

    name: str
    shapes: dict[str, tuple[int, ...]]
    transposed: set[str]

    def read(self, name: str) -> Tensor:
        """Return one weight."""
        ...


class WeightFiles:
    """The weights of a folder, by memory map.

    Raises:
        BertftError: The folder has no safetensors weights, or a file of them is damaged.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder, self.name = Path(folder), str(folder)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._file: dict[str, Path] = {}
        for path in _files(self.folder):
            try:
                with safe_open(path, "pt") as file:
                    for name in file.keys():  # noqa: SIM118 - no mapping
                        self.shapes[name] = tuple(file.get_slice(name).get_shape())
                        self._file[name] = path
            except (SafetensorError, OSError) as error:
                raise BertftError(f"{path}: not a usable safetensors file ({first_line(error)})") from None
        self.transposed = _stored_transposed(self.folder, self.shapes)

    def read(self, name: str) -> Tensor:
        """Return one weight; only its bytes are read."""
        with safe_open(self._file[name], "pt") as file:
            return file.get_tensor(name)


class ModelWeights:
    """The parameters of a model in memory."""

    def __init__(self, model: nn.Module, name: str) -> None:
        self.name, self._parameters = name, dict(model.named_parameters())
        self.shapes = {name: tuple(weight.shape) for name, weight in self._parameters.items()}
        conv = {name for name, module in model.named_modules() if type(module).__name__ == "Conv1D"}
        self.transposed = {f"{name}.weight" for name in conv}

    def read(self, name: str) -> Tensor:
        """Return one weight."""
        return self._parameters[name].detach()


def files_of(name: str) -> WeightFiles | None:
    """Return the weights of a model folder, or of a hub model that was downloaded; None if there are none."""
    folder = Path(name)
    if name and not folder.is_dir():
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        try:
            held = try_to_load_from_cache(name, "config.json")
        except HFValidationError:
            return None
        folder = Path(held).parent if isinstance(held, str) else folder
    if not name or not any(folder.glob("*.safetensors")):
        return None
    return WeightFiles(folder)


def _files(folder: Path) -> list[Path]:
    """Return the files of a folder's weights: those that the index of shards names, else ``model.safetensors``."""
    for index in sorted(folder.glob("*.safetensors.index.json")):
        try:
            named = set(json.loads(index.read_text(encoding="utf8"))["weight_map"].values())
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise BertftError(f"{index}: expected JSON with a weight_map ({first_line(error)})") from None
        if any(not isinstance(name, str) or name != Path(name).name for name in named):
            raise BertftError(f"{index}: weight_map: expected files of this folder, found a path")
        return [folder / name for name in sorted(named)]
    whole = folder / "model.safetensors"
    found = [whole] if whole.is_file() else sorted(folder.glob("*.safetensors"))
    if not found:
        raise BertftError(f"{folder}: expected weights as model.safetensors, found none")
    return found


def _stored_transposed(folder: Path, names: Iterable[str]) -> set[str]:
    try:
        kind: Any = json.loads((folder / "config.json").read_text(encoding="utf8")).get("model_type")
    except (OSError, ValueError, AttributeError):
        return set()
    return {name for name in names if _CONV1D.search(name)} if kind in CONV1D else set()


def paired_names(base: Weights, tuned: Weights) -> Iterator[tuple[str, str]]:
    """Yield the names (in base, in tuned) of each weight that both have, in the order of the base.

    A model saved with its head has one more component in front (``bert.encoder...``), which is dropped from either side
    if need be.
    """
    dropped = {name.partition(".")[2]: name for name in tuned.shapes}
    for name in base.shapes:
        if name in tuned.shapes:
            yield name, name
        elif name in dropped:
            yield name, dropped[name]
        elif (rest := name.partition(".")[2]) in tuned.shapes:
            yield name, rest
