"""How alike two spaces are: RSA, CKA, CCA and relatives, streamed and exact, with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertft.lazy import exports

_HOMES = {
    "CrossMoments": "bertft.similarity.moments",
    "Interval": "bertft.similarity.inference",
    "Reservoir": "bertft.similarity.reservoir",
    "cka_intervals": "bertft.similarity.inference",
    "Plan": "bertft.similarity.comparison",
    "Rdms": "bertft.similarity.rdms",
    "compare_encoders": "bertft.similarity.compare",
    "compare_rdms": "bertft.similarity.rdms",
    "compare_stream": "bertft.similarity.stream",
    "from_rsatoolbox": "bertft.similarity.rdms",
    "local_rsa": "bertft.similarity.local",
    "mean_by_label": "bertft.similarity.local",
    "mutual_knn": "bertft.similarity.neighbours",
    "rbf_cka": "bertft.similarity.neighbours",
    "rdms": "bertft.similarity.rdms",
    "rsa": "bertft.similarity.pairwise",
    "rsa_intervals": "bertft.similarity.inference",
    "to_rsatoolbox": "bertft.similarity.rdms",
    "words_that_moved": "bertft.similarity.words",
}

__all__ = sorted(_HOMES)


__getattr__, __dir__ = exports(__name__, _HOMES)


if TYPE_CHECKING:
    from bertft.similarity.compare import compare_encoders as compare_encoders
    from bertft.similarity.comparison import Plan as Plan
    from bertft.similarity.inference import Interval as Interval
    from bertft.similarity.inference import cka_intervals as cka_intervals
    from bertft.similarity.inference import rsa_intervals as rsa_intervals
    from bertft.similarity.local import local_rsa as local_rsa
    from bertft.similarity.local import mean_by_label as mean_by_label
    from bertft.similarity.moments import CrossMoments as CrossMoments
    from bertft.similarity.neighbours import mutual_knn as mutual_knn
    from bertft.similarity.neighbours import rbf_cka as rbf_cka
    from bertft.similarity.pairwise import rsa as rsa
    from bertft.similarity.rdms import Rdms as Rdms
    from bertft.similarity.rdms import compare_rdms as compare_rdms
    from bertft.similarity.rdms import from_rsatoolbox as from_rsatoolbox
    from bertft.similarity.rdms import rdms as rdms
    from bertft.similarity.rdms import to_rsatoolbox as to_rsatoolbox
    from bertft.similarity.reservoir import Reservoir as Reservoir
    from bertft.similarity.stream import compare_stream as compare_stream
    from bertft.similarity.words import words_that_moved as words_that_moved
