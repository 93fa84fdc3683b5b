"""How alike two spaces are: RSA, CKA, CCA and relatives, streamed and exact, with intervals."""

from __future__ import annotations

from bertft.lazy import exports

_HOMES = {
    "CrossMoments": "bertft.similarity.moments",
    "Interval": "bertft.similarity.inference",
    "Reservoir": "bertft.similarity.reservoir",
    "cka_intervals": "bertft.similarity.inference",
    "compare_encoders": "bertft.similarity.compare",
    "local_rsa": "bertft.similarity.local",
    "mean_by_label": "bertft.similarity.local",
    "rsa": "bertft.similarity.pairwise",
    "rsa_intervals": "bertft.similarity.inference",
}

__all__ = sorted(_HOMES)


__getattr__, __dir__ = exports(__name__, _HOMES)
