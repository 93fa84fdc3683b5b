"""A folder's files by digest: whether what was written is what is there."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from bertft.results import write_text_atomically

SEAL = "sha256.json"


def seal(folder: str | os.PathLike[str]) -> None:
    """Write ``sha256.json``, the digest of every file in ``folder``; the last thing to do to it."""
    files = [path for path in sorted(Path(folder).iterdir()) if path.is_file() and path.name != SEAL]
    write_text_atomically(
        Path(folder) / SEAL, json.dumps({path.name: _digest(path) for path in files}, indent=1) + "\n"
    )


def is_sealed(folder: str | os.PathLike[str]) -> bool:
    """Whether ``seal`` came to its end there."""
    return (Path(folder) / SEAL).is_file()


def is_intact(folder: str | os.PathLike[str]) -> bool:
    """Whether every file that was sealed in ``folder`` is there with the same bytes."""
    try:
        digests = json.loads((Path(folder) / SEAL).read_text(encoding="utf8"))
        return all(_digest(Path(folder) / name) == digest for name, digest in digests.items())
    except (OSError, ValueError, AttributeError):
        return False


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
