"""Readers of probes that earlier versions kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bertft.runs.artefacts import Contents, DamagedArtefact, read_tensors
from bertft.runs.digests import digest


def digest_by_repr(items: Iterable[object]) -> str:
    """Return the digest by which earlier versions identified a corpus."""
    found = hashlib.sha256()
    for item in items:
        found.update(repr(item).encode())
    return found.hexdigest()[:16]


def edge_contents(path: Path, config: dict[str, Any], settings: dict[str, Any]) -> Contents | None:
    """Return kept edge probes as an artefact of ``settings``, if they are intact and of the older ``config``.

    The file's metadata held one JSON text, ``record`` with the configuration in it, and its digest; the oldest files
    have no digest.
    """
    try:
        tensors, metadata = read_tensors(path)
        record = json.loads(metadata.get("record", "{}"))
    except (FileNotFoundError, DamagedArtefact, ValueError):
        return None
    intact = metadata.get("sha256") in (None, digest(tensors, metadata.get("record", "")))
    return Contents(tensors, settings, record) if intact and record.pop("config", None) == config else None


def structural_contents(stem: Path, config: dict[str, Any], settings: dict[str, Any]) -> Contents | None:
    """Return kept structural probes as an artefact of ``settings``, if they are intact and of the older ``config``.

    ``<stem>.json`` held the configuration and the digest of the tensors; the oldest files have no digest.
    """
    try:
        record = json.loads(Path(f"{stem}.json").read_text(encoding="utf8"))
        tensors, metadata = read_tensors(f"{stem}.safetensors")
        intact = "settings" not in metadata and record.get("sha256") in (None, digest(tensors))
        same = record.pop("config", None) == config
    except (OSError, DamagedArtefact, ValueError, AttributeError):
        return None
    return Contents(tensors, settings, record) if intact and same else None
