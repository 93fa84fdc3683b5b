"""Probes: what can be read off an encoder's frozen vectors."""

from __future__ import annotations

from bertft.lazy import exports

_HOMES = {
    "Probes": "bertft.probes.structural",
    "WordVectors": "bertft.probes.features",
    "extract": "bertft.probes.features",
    "structural_probes": "bertft.probes.structural",
    "train_probes": "bertft.probes.structural",
}

__all__ = sorted(_HOMES)


__getattr__, __dir__ = exports(__name__, _HOMES)
