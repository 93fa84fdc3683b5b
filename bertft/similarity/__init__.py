"""How alike two spaces are: RSA, CKA, CCA and relatives, streamed and exact, with intervals."""

from __future__ import annotations

import importlib

_HOMES = {
    "CrossMoments": "bertft.similarity.moments",
    "Interval": "bertft.similarity.inference",
    "Reservoir": "bertft.similarity.inference",
    "cka_intervals": "bertft.similarity.inference",
    "compare_encoders": "bertft.similarity.compare",
    "local_rsa": "bertft.similarity.local",
    "mean_by_label": "bertft.similarity.local",
    "rsa": "bertft.similarity.pairwise",
    "rsa_intervals": "bertft.similarity.inference",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'bertft.similarity' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
