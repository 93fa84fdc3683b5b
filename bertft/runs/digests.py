"""A folder's files by digest: whether what was written is what is there."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bertft.errors import BertftError
from bertft.runs.rows import write_text_atomically

if TYPE_CHECKING:
    from torch import Tensor

SEAL = "sha256.json"


def seal(folder: str | os.PathLike[str]) -> None:
    """Write ``sha256.json``, the digest of every file in ``folder``; the last thing to do to it."""
    files = [path for path in sorted(Path(folder).iterdir()) if path.is_file() and path.name != SEAL]
    write_text_atomically(
        Path(folder) / SEAL, json.dumps({path.name: digest_of(path) for path in files}, indent=1) + "\n"
    )


def is_sealed(folder: str | os.PathLike[str]) -> bool:
    """Whether ``seal`` came to its end there."""
    return (Path(folder) / SEAL).is_file()


def is_intact(folder: str | os.PathLike[str]) -> bool:
    """Whether every file that was sealed in ``folder`` is there with the same bytes."""
    try:
        digests = json.loads((Path(folder) / SEAL).read_text(encoding="utf8"))
        return all(digest_of(Path(folder) / name) == digest for name, digest in digests.items())
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def refuse_changed_files(folder: str | os.PathLike[str]) -> None:
    """Raise ``BertftError`` where files of a fine-tuned folder are not the bytes its ``bertft.json`` has digests of.

    Those are all that a model is loaded from. Of older folders it has the weights' alone, or none.
    """
    try:
        card = json.loads((Path(folder) / "bertft.json").read_text(encoding="utf8"))
        digests = dict(card.get("sha256") or {})
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return
    for name, digest in digests.items():
        if not isinstance(name, str) or name != Path(name).name:
            raise BertftError(
                f"{Path(folder) / 'bertft.json'}: sha256: expected names of files in its folder, found {name!r}"
            )
        path = Path(folder) / name
        if not path.is_file() or digest_of(path) != digest:
            state = "damaged or changed" if path.is_file() else "gone"
            raise BertftError(f"{path}: {state} since training wrote it; remove {folder} and fine-tune again")


def digest_of(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def digest(tensors: Mapping[str, Tensor], text: str = "") -> str:
    """SHA-256 of ``text`` and of names, types, shapes and bytes of CPU ``tensors``."""
    import torch

    found = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if tensor.numel():
            found.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()
