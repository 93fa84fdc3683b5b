"""Sources of a run in ``run.json``: models, texts and files with their fingerprints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SOURCES = "sources"  # the entry of ``run.json``, which `bertft.report.page.sources` reads


def sources(kind: str, named: Mapping[str, str], fingerprints: Mapping[str, str]) -> dict[str, Any]:
    """Return the entry for sources of one ``kind`` (models, texts, vectors) by name.

    That of a base stands under "" in ``fingerprints``.
    """
    return {
        kind: {
            name: {"source": source, "fingerprint": fingerprints["" if name == "base" else name]}
            for name, source in named.items()
        }
    }
