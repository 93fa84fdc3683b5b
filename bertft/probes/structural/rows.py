"""Table rows of structural probes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from bertft.probes.structural.kind import ProbeKind
from bertft.probes.structural.scores import MEASURES, SentenceScores, resampled, summarise
from bertft.runs.intervals import Difference, Score, holm, paired, percentile_score
from bertft.runs.rows import Row
from bertft.runs.vocabulary import MeasureName

TASK = "structural"
CONTROL = "control_"

Scores = Mapping[tuple[str, ProbeKind, str], SentenceScores]
_Resamples = Mapping[tuple[str, ProbeKind, str], dict[str, np.ndarray]]


def rows_of(scores: Scores, data: str, seed: int, resamples: int, differences: bool) -> list[Row]:
    """Return the rows of all scores of an encoder, a probe kind and a part: "" (the trees) or ``control_``.

    Each layer has ``dspr``, ``nspr``, ``uuas`` and ``root_accuracy``. Names end in the probe kind if it is not the only
    linear one: ``uuas_rank8``, ``uuas_orthogonal``, ``uuas_rbf``.

    - With a control there are also ``control_<measure>`` and ``<measure>_selectivity``, the score minus that of the
      control on the same resamples.
    - With ``differences`` there are also ``<measure>_difference`` of each encoder to the first, paired by sentence, and
      ``<measure>_difference_p``, corrected by Holm over all layers, kinds and encoders of a measure.
    """
    drawn = {key: resampled(own, resamples=resamples, seed=seed) for key, own in scores.items()}
    kinds = list({kind for _, kind, _ in scores})
    rows: list[Row] = []

    def add(model: str, kind: ProbeKind, layer: int, measure: MeasureName, s: Score | Difference, n: int) -> None:
        name = str(replace(measure, probe=kind.named(kinds)))
        rows.append(Row(model, TASK, data, layer, name, s.value, s.low, s.high, n, seed))

    for (model, kind, part), own in scores.items():
        for layer, measures in enumerate(summarise(own, resamples=resamples, seed=seed)):
            for name, s in measures.items():
                add(model, kind, layer, MeasureName(name, control=part == CONTROL), s, s.n)
                if part == CONTROL:
                    gap = drawn[model, kind, ""][name][layer] - drawn[model, kind, part][name][layer]
                    add(model, kind, layer, MeasureName(name, derived="selectivity"), percentile_score(gap, s.n), s.n)
    if differences:
        sentences = len(next(iter(scores.values())).lengths)
        for name in MEASURES:
            for model, kind, layer, difference, p in _differences(name, drawn):
                add(model, kind, layer, MeasureName(name, derived="difference"), difference, sentences)
                measure = str(MeasureName(name, derived="difference_p", probe=kind.named(kinds)))
                rows.append(Row(model, TASK, data, layer, measure, p, None, None, sentences, seed))
    return rows


def _differences(name: str, drawn: _Resamples) -> Iterator[tuple[str, ProbeKind, int, Difference, float]]:
    """Yield each encoder's difference to the first in each layer, with the corrected p-value."""
    first = next(iter(drawn))[0]
    found = [
        (model, kind, layer, difference)
        for model, kind, part in drawn
        # An encoder of another depth has no layers to pair.
        if model != first and not part and drawn[model, kind, ""][name].shape == drawn[first, kind, ""][name].shape
        for layer, difference in enumerate(paired(drawn[first, kind, ""][name], drawn[model, kind, ""][name]))
    ]
    for place, p in zip(found, holm(np.array([difference.p for *_, difference in found])), strict=True):
        yield *place, float(p)
