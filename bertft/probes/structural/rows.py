"""The tidy rows of structural probes: every score beside its control, and every encoder beside the first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bertft.probes.structural.scores import SentenceScores, resampled, summarise
from bertft.runs.intervals import holm, paired
from bertft.runs.rows import Row

TASK = "structural"
CONTROL = "control_"
ORTHOGONAL = 0
"""Stands for a rank where the probes are orthogonal ones; -r stands for RBF-kernel probes of rank r."""


def rows_of(
    scores: Mapping[tuple[str, int, str], SentenceScores], data: str, seed: int, resamples: int, differences: bool
) -> list[Row]:
    """Rows from the scores of every (encoder, rank, part), a part being "" (the trees) or ``control_``.

    ``dspr``, ``nspr``, ``uuas``, ``root_accuracy`` of each layer; with a control also ``control_<measure>`` and
    ``<measure>_selectivity``, the first less the second on the same resamples. With several ranks each measure ends in
    its rank: ``uuas_rank8``. With ``differences`` also ``<measure>_difference`` of each encoder to the first, paired by
    sentence, and ``<measure>_difference_p``, by Holm over all layers, ranks and encoders of a measure. Those of
    orthogonal probes (rank `ORTHOGONAL`) end in ``_orthogonal``, those of RBF-kernel probes (rank -r) in ``_rbf``.
    """
    ranks = {rank for _, rank, _ in scores}
    rows: list[Row] = []
    drawn = {key: resampled(own, resamples=resamples, seed=seed) for key, own in scores.items()}

    def suffix(rank: int) -> str:
        if rank <= 0:
            return "_orthogonal" if rank == ORTHOGONAL else "_rbf"
        return f"_rank{rank}" if sum(r > 0 for r in ranks) > 1 else ""

    for (model, rank, part), own in scores.items():
        for layer, measures in enumerate(summarise(own, resamples=resamples, seed=seed)):
            for name, s in measures.items():
                measure = f"{part}{name}{suffix(rank)}"
                rows.append(Row(model, TASK, data, layer, measure, s.value, s.low, s.high, s.n, seed))
                if part == CONTROL:
                    gap = drawn[model, rank, ""][name][layer] - drawn[model, rank, part][name][layer]
                    low, high = np.percentile(gap[1:], [2.5, 97.5])
                    low, high = min(low, gap[0]), max(high, gap[0])
                    measure = f"{name}_selectivity{suffix(rank)}"
                    rows.append(
                        Row(model, TASK, data, layer, measure, float(gap[0]), float(low), float(high), s.n, seed)
                    )
    return rows + (_differences(scores, drawn, data, seed, suffix) if differences else [])


def _differences(
    scores: Mapping[tuple[str, int, str], Any],
    drawn: Mapping[tuple[str, int, str], Any],
    data: str,
    seed: int,
    suffix: Callable[[int], str],
) -> list[Row]:
    first = next(iter(scores))[0]
    sentences = len(next(iter(scores.values())).lengths)
    rows = []
    for name in ("dspr", "nspr", "uuas", "root_accuracy"):
        found = [
            (model, rank, layer, difference)
            for model, rank, part in scores
            # An encoder of another depth has no layers to pair.
            if model != first and not part and drawn[model, rank, ""][name].shape == drawn[first, rank, ""][name].shape
            for layer, difference in enumerate(paired(drawn[first, rank, ""][name], drawn[model, rank, ""][name]))
        ]
        for (model, rank, layer, d), p in zip(found, holm(np.array([d.p for *_, d in found])), strict=True):
            measure = f"{name}_difference{suffix(rank)}"
            rows.append(Row(model, TASK, data, layer, measure, d.value, d.low, d.high, sentences, seed))
            measure = f"{name}_difference_p{suffix(rank)}"
            rows.append(Row(model, TASK, data, layer, measure, float(p), None, None, sentences, seed))
    return rows
