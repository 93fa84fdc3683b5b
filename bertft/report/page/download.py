"""Files that a page carries within itself."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass

KINDS = {"png": "image/png", "svg": "image/svg+xml", "csv": "text/csv"}


@dataclass(frozen=True)
class Download:
    """A link to a file that is part of the page: its text, the file's name and a data URI."""

    label: str
    name: str
    href: str


def download(name: str, data: bytes, label: str = "") -> Download:
    """Return a link to ``data``. ``label`` is the file's suffix in capitals unless given."""
    suffix = name.rpartition(".")[2]
    return Download(label or suffix.upper(), name, f"data:{KINDS[suffix]};base64,{b64encode(data).decode()}")
