"""SHA-256 digests and manifests that detect changed files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertft.errors import BertftError
from bertft.runs.files import write_text_atomically

if TYPE_CHECKING:
    from torch import Tensor

SEAL = "sha256.json"


def seal(folder: str | os.PathLike[str]) -> None:
    """Write ``sha256.json``, the digests of all files in ``folder``; call it last."""
    files = [path for path in sorted(Path(folder).iterdir()) if path.is_file() and path.name != SEAL]
    write_text_atomically(
        Path(folder) / SEAL, json.dumps({path.name: digest_of(path) for path in files}, indent=1) + "\n"
    )


def is_sealed(folder: str | os.PathLike[str]) -> bool:
    """Return whether `seal` has finished in ``folder``."""
    return (Path(folder) / SEAL).is_file()


def is_intact(folder: str | os.PathLike[str]) -> bool:
    """Return whether every sealed file in ``folder`` exists with the same bytes."""
    try:
        digests = json.loads((Path(folder) / SEAL).read_text(encoding="utf8"))
        return all(digest_of(Path(folder) / name) == digest for name, digest in digests.items())
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def refuse_changed_files(folder: str | os.PathLike[str]) -> None:
    """Refuse a fine-tuned folder with files that differ from the digests in its ``bertft.json``.

    The digests are of all files that a model is loaded from. Older folders have that of the weights alone, or none.

    Raises:
        BertftError: names the first file that is missing or changed.
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
    """Return the SHA-256 of the bytes of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def digest(tensors: Mapping[str, Tensor], text: str = "") -> str:
    """Return the SHA-256 of ``text`` and of the names, types, shapes and bytes of ``tensors``."""
    found = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(bytes_of(tensor))
    return found.hexdigest()


def bytes_of(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor in row-major order; a view if it is contiguous and on the CPU."""
    import torch

    if not tensor.numel():
        return memoryview(b"")
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def digest_of_json(value: Any) -> str:
    """Return the SHA-256 of JSON values, whatever the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
