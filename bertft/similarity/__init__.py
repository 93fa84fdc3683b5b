"""How alike two spaces are: RSA, CKA, CCA and relatives, streamed and exact, with intervals."""

from __future__ import annotations

from bertft.lazy import exports

_HOMES = {
    "CrossMoments": "bertft.similarity.moments",
    "Interval": "bertft.similarity.inference",
    "Reservoir": "bertft.similarity.reservoir",
    "cka_intervals": "bertft.similarity.inference",
    "Plan": "bertft.similarity.comparison",
    "compare_encoders": "bertft.similarity.compare",
    "compare_stream": "bertft.similarity.stream",
    "local_rsa": "bertft.similarity.local",
    "mean_by_label": "bertft.similarity.local",
    "mutual_knn": "bertft.similarity.neighbours",
    "rbf_cka": "bertft.similarity.neighbours",
    "rsa": "bertft.similarity.pairwise",
    "rsa_intervals": "bertft.similarity.inference",
    "words_that_moved": "bertft.similarity.words",
}

__all__ = sorted(_HOMES)


__getattr__, __dir__ = exports(__name__, _HOMES)
