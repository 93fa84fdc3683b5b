"""How alike two spaces are: RSA, CKA, CCA and relatives, streamed and exact, with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertft._lazy import exports

_HOMES = {
    "CrossMoments": "bertft.similarity.moments",
    "Interval": "bertft.similarity.influence",
    "Reservoir": "bertft.similarity.reservoir",
    "cka_intervals": "bertft.similarity.influence",
    "Plan": "bertft.similarity.compare.comparison",
    "Rdms": "bertft.similarity.dissimilarities",
    "compare_encoders": "bertft.similarity.compare.stimuli",
    "compare_rdms": "bertft.similarity.dissimilarities",
    "compare_stream": "bertft.similarity.compare.encoders",
    "from_rsatoolbox": "bertft.similarity.dissimilarities",
    "local_rsa": "bertft.similarity.words.local_rsa",
    "mean_by_label": "bertft.similarity.words.local_rsa",
    "mutual_knn": "bertft.similarity.neighbours",
    "rbf_cka": "bertft.similarity.neighbours",
    "rdms": "bertft.similarity.dissimilarities",
    "rsa": "bertft.similarity.pairwise_rsa",
    "rsa_intervals": "bertft.similarity.influence",
    "to_rsatoolbox": "bertft.similarity.dissimilarities",
    "words_that_moved": "bertft.similarity.words.moved",
}

__all__ = sorted(_HOMES)


__getattr__, __dir__ = exports(__name__, _HOMES)


if TYPE_CHECKING:
    from bertft.similarity.compare.comparison import Plan as Plan
    from bertft.similarity.compare.encoders import compare_stream as compare_stream
    from bertft.similarity.compare.stimuli import compare_encoders as compare_encoders
    from bertft.similarity.dissimilarities import Rdms as Rdms
    from bertft.similarity.dissimilarities import compare_rdms as compare_rdms
    from bertft.similarity.dissimilarities import from_rsatoolbox as from_rsatoolbox
    from bertft.similarity.dissimilarities import rdms as rdms
    from bertft.similarity.dissimilarities import to_rsatoolbox as to_rsatoolbox
    from bertft.similarity.influence import Interval as Interval
    from bertft.similarity.influence import cka_intervals as cka_intervals
    from bertft.similarity.influence import rsa_intervals as rsa_intervals
    from bertft.similarity.moments import CrossMoments as CrossMoments
    from bertft.similarity.neighbours import mutual_knn as mutual_knn
    from bertft.similarity.neighbours import rbf_cka as rbf_cka
    from bertft.similarity.pairwise_rsa import rsa as rsa
    from bertft.similarity.reservoir import Reservoir as Reservoir
    from bertft.similarity.words.local_rsa import local_rsa as local_rsa
    from bertft.similarity.words.local_rsa import mean_by_label as mean_by_label
    from bertft.similarity.words.moved import words_that_moved as words_that_moved
