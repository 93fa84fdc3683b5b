"""Probes: what can be read off an encoder's frozen vectors."""

from __future__ import annotations

from bertft.lazy import exports

_HOMES = {
    "Probes": "bertft.probes.structural_training",
    "FeatureStore": "bertft.probes.store",
    "WordVectors": "bertft.probes.features",
    "edge_probes": "bertft.probes.edge",
    "extract": "bertft.probes.features",
    "structural_probes": "bertft.probes.structural",
    "train_probes": "bertft.probes.structural_training",
}

__all__ = sorted(_HOMES)


__getattr__, __dir__ = exports(__name__, _HOMES)
