"""Probes: what can be read off an encoder's frozen vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertft._lazy import exports

_HOMES = {
    "Probes": "bertft.probes.structural.training",
    "FeatureStore": "bertft.probes.feature_store",
    "WordVectors": "bertft.probes.vectors",
    "edge_probes": "bertft.probes.edge.driver",
    "extract": "bertft.probes.vectors",
    "structural_probes": "bertft.probes.structural.driver",
    "train_probes": "bertft.probes.structural.training",
}

__all__ = sorted(_HOMES)


__getattr__, __dir__ = exports(__name__, _HOMES)


if TYPE_CHECKING:
    from bertft.probes.edge.driver import edge_probes as edge_probes
    from bertft.probes.feature_store import FeatureStore as FeatureStore
    from bertft.probes.structural.driver import structural_probes as structural_probes
    from bertft.probes.structural.training import Probes as Probes
    from bertft.probes.structural.training import train_probes as train_probes
    from bertft.probes.vectors import WordVectors as WordVectors
    from bertft.probes.vectors import extract as extract
