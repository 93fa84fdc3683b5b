"""Probes: what can be read off an encoder's frozen vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

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


if TYPE_CHECKING:
    from bertft.probes.edge import edge_probes as edge_probes
    from bertft.probes.features import WordVectors as WordVectors
    from bertft.probes.features import extract as extract
    from bertft.probes.store import FeatureStore as FeatureStore
    from bertft.probes.structural import structural_probes as structural_probes
    from bertft.probes.structural_training import Probes as Probes
    from bertft.probes.structural_training import train_probes as train_probes
