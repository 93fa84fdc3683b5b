"""Probes: what can be read off an encoder's frozen vectors."""

from __future__ import annotations

import importlib

_HOMES = {
    "Probes": "bertft.probes.structural",
    "WordVectors": "bertft.probes.features",
    "extract": "bertft.probes.features",
    "structural_probes": "bertft.probes.structural",
    "train_probes": "bertft.probes.structural",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'bertft.probes' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
