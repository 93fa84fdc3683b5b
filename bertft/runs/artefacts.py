"""Tensors kept in a file with their settings and digest.

An artefact is one safetensors file. Its metadata have one entry, ``bertft``, a JSON object with ``format``,
``settings``, ``record`` and ``sha256``, a digest of the tensors and of the other three. (One entry, because the library
writes several in random order.) The settings are everything that the tensors depend on, so a file of equal settings can
replace the work that made it. The record holds the other results of that work. The file is renamed into place when it
is complete, so a reader finds the old file or the new one, never half of either.
"""

from __future__ import annotations

import contextlib
import json
import math
import mmap
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bertft.errors import BertftError
from bertft.runs.differences import first_difference
from bertft.runs.digests import digest
from bertft.runs.files import appearing_path

FORMAT = "bertft.artefact/1"
_NO_DIGEST = "0" * 64  # as long as every digest


class DamagedArtefact(BertftError):
    """File that is no artefact of the expected format, or has changed since it was written."""


class OtherSettings(BertftError):
    """Intact artefact made with other settings; the message names the first that differs."""


class Contents(NamedTuple):
    """The contents of an artefact."""

    tensors: dict[str, Tensor]
    settings: Any
    record: Any


class Artefact:
    """Tensors at ``path`` that were made with ``settings``.

    Args:
        path: the file.
        settings: JSON values, all that the tensors depend on.
        format: the name and number of the file's layout; a file with another one counts as damaged.
        older: reads the file of an earlier version, and returns None if there is nothing; called if ``path`` holds no
            intact artefact of this ``format``.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        settings: Mapping[str, Any],
        *,
        format: str = FORMAT,
        older: Callable[[], Contents | None] | None = None,
    ) -> None:
        self.path, self.settings, self.format = Path(path), json.loads(json.dumps(settings)), format
        self._older = older

    def load(self, *, refuse: bool = False) -> Contents | None:
        """Return the contents, or None if the file is missing, damaged or of other settings.

        With ``refuse``, only a missing file gives None.

        Raises:
            DamagedArtefact: with ``refuse``, if the file is damaged or has another format.
            OtherSettings: with ``refuse``, if it was made with other settings.
        """
        found, damage = None, None
        try:
            found = read_artefact(self.path, self.format)
        except FileNotFoundError:
            pass
        except DamagedArtefact as error:
            damage = error
        if found is None and self._older is not None:
            found = self._older()
        if found is None and damage is not None and refuse:
            raise damage
        if found is None or found.settings == self.settings:
            return found
        if refuse:
            raise OtherSettings(str(first_difference(found.settings, self.settings)))
        return None

    def save(
        self,
        tensors: Mapping[str, Tensor],
        record: Mapping[str, Any] | None = None,
        *,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """Write ``tensors`` from any device, JSON values ``record``, and texts ``labels`` for other readers."""
        about = {**(labels or {}), **self._about(record or {})}
        write_tensors(self.path, tensors, _sealed(about, digest(tensors, _text(about))))

    @contextlib.contextmanager
    def filled(self, name: str, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
        """Yield a float32 memory map of ``shape`` to fill, and save it as the tensor ``name`` when the block ends.

        It is for a tensor larger than memory. If the block raises, the file stays as it was.

        Raises:
            OSError: before the block, if the disk has no room.
        """
        about = self._about({})
        with appearing_path(self.path) as path:
            # written, not only allocated: a memory map of a sparse file that finds the disk full ends the process
            save_file({name: _zeros(shape)}, path, _sealed(about, _NO_DIGEST))
            start = path.stat().st_size - 4 * math.prod(shape)
            table = np.memmap(path, np.float32, "r+", offset=start, shape=shape)
            yield table
            table.flush()
            sha256 = digest({name: torch.from_numpy(table)}, _text(about))
            with path.open("r+b") as file:
                file.seek(file.read(start).rindex(_NO_DIGEST.encode()))  # the last entry
                file.write(sha256.encode())

    def _about(self, record: Mapping[str, Any]) -> dict[str, Any]:
        return {"format": self.format, "settings": self.settings, "record": record}

    def remove(self) -> None:
        """Remove the file if it exists."""
        self.path.unlink(missing_ok=True)


def _zeros(shape: tuple[int, ...]) -> Tensor:
    """Return float32 zeros that take no memory: a read-only map of anonymous pages, all one page of zeros."""
    pages = mmap.mmap(-1, 4 * math.prod(shape), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that the array is not writable
        return torch.frombuffer(pages, dtype=torch.float32).view(shape)


def read_artefact(path: str | os.PathLike[str], format: str = FORMAT) -> Contents:
    """Return the contents of an artefact, whatever its settings.

    Raises:
        FileNotFoundError: if there is no file.
        DamagedArtefact: if it is no safetensors file, has another format, or has changed since it was written.
    """
    tensors, metadata = read_tensors(path)
    about = about_of(path, metadata)
    if about.get("format") != format:
        raise DamagedArtefact(f"{path}: expected the format {format}, found {about.get('format')!r}")
    written = about.pop("sha256", None)
    if written != digest(tensors, _text(about)):
        raise DamagedArtefact(f"{path}: damaged: the content is not what was written")
    return Contents(tensors, about["settings"], about["record"])


def about_of(path: str | os.PathLike[str], metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return the JSON object in an artefact's metadata; for a file of an earlier version, its metadata."""
    try:
        about = json.loads(metadata["bertft"]) if "bertft" in metadata else dict(metadata)
    except ValueError:
        raise DamagedArtefact(f"{path}: damaged: its metadata are not JSON") from None
    return about if isinstance(about, dict) else {}


def _text(about: Mapping[str, Any]) -> str:
    return json.dumps(about, sort_keys=True)


def _sealed(about: Mapping[str, Any], sha256: str) -> dict[str, str]:
    return {"bertft": _text({**about, "sha256": sha256})}


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file; raises as `read_artefact` does."""
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return the metadata of a safetensors file without reading its tensors; raises as `read_artefact` does."""
    with _opened(path) as file:
        return dict(file.metadata() or {})


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    try:
        with safe_open(os.fspath(path), "pt") as file:
            yield file
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, ValueError) as error:
        raise DamagedArtefact(f"{path}: not a safetensors file ({error})") from None


def write_tensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file of tensors from any device; no second copy of those on the CPU is made."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with appearing_path(path) as temporary:
        save_file(whole, temporary, dict(metadata))


class Unfinished:
    """The state of one interrupted training.

    Args:
        path: the file; None keeps nothing.
        config: JSON values, all that the training depends on.
        every: seconds between two states; a state that comes sooner is not kept.
    """

    def __init__(self, path: Path | None, config: Mapping[str, Any], every: float = 0.0) -> None:
        self.path, self.every = path, every
        self._artefact = None if path is None else Artefact(path, config)
        self._last = time.monotonic()

    def keep(self, epoch: int, state: Mapping[str, Tensor], order: np.random.Generator, *, last: bool = False) -> None:
        """Replace the file by the state after ``epoch``, counted from 0, and the state of the generator ``order``.

        The ``last`` state is kept even if it comes soon. An epoch may be any unit of work.
        """
        if self._artefact is not None and (last or time.monotonic() - self._last >= self.every):
            self._artefact.save(state, {"epoch": epoch, "order": order.bit_generator.state})
            self._last = time.monotonic()

    def found(self, order: np.random.Generator) -> tuple[int, dict[str, Tensor]] | None:
        """Return the next epoch and the state before it, and restore the generator ``order``.

        Returns None, and leaves ``order`` alone, if no state was kept, if it belongs to another training, or if the
        file is damaged.
        """
        contents = None if self._artefact is None else self._artefact.load()
        if contents is None:
            return None
        order.bit_generator.state = contents.record["order"]
        return contents.record["epoch"] + 1, contents.tensors

    def of(self, **part: int) -> Unfinished:
        """Return the state of a training that is one of several in the same file, one after the other."""
        if self._artefact is None:
            return self
        return Unfinished(self.path, {**self._artefact.settings, **part}, self.every)

    def remove(self) -> None:
        """Remove the file; call it once the result of the training is kept."""
        if self._artefact is not None:
            self._artefact.remove()


NOTHING = Unfinished(None, {})
