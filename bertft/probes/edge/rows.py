"""The tidy rows of edge probes: every score beside its control, and every tuned encoder beside the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bertft.probes.edge.head import Input
from bertft.probes.edge.scores import expected_layer, interval, label_f1, micro_f1, resamples_of
from bertft.probes.edge.training import Counts
from bertft.runs.intervals import holm, paired
from bertft.runs.rows import Row

TASK = "edge"
PREFIX = {"layer": "", "mix": "mix_", "cat": "cat_"}


@dataclass
class Measured:
    """One part (real labels or the control's) of one encoder: what `edge_probes` keeps of P trained probes.

    ``mix`` (L,) the full mix's weights; ``bits`` (P,) and ``uniform`` the code lengths of ``targets`` training
    targets, or None.
    """

    inputs: list[Input]
    counts: Counts
    dev_score: np.ndarray
    steps: np.ndarray
    mix: np.ndarray
    bits: np.ndarray | None
    uniform: float | None
    targets: int


def rows_of(
    measured: Mapping[str, Mapping[str, Measured]],
    inventory: Sequence[str],
    data: str,
    texts: int,
    resamples: int,
    seed: int,
) -> tuple[list[Row], list[Row]]:
    """The table of all encoders, and the per-label table.

    A measure is that of layer k alone; ``mix_`` before it says that of the learned mix of layers 0..k, ``cat_`` that of
    layer 0 beside layer k. The lexical baseline is layer 0. 95 % intervals are bootstrap percentiles over texts.

    - ``micro_f1`` over targets and labels; ``control_micro_f1`` of the same probe trained on control labels;
      ``selectivity``, the first less the second on the same resamples.
    - ``class_1_f1``: F1 of the label "1" where the labels are "0" and "1" (coreference); ``control_class_1_f1`` and
      ``class_1_selectivity`` likewise.
    - ``description_bits``, ``control_description_bits``: online code of the training labels; ``compression``,
      ``control_compression``: how many times shorter that is than the uniform code. Without interval: the code is one
      message, each block sent with a probe trained on those before, so that its parts are not draws of one kind; what
      another order of the texts or another seed would give, only training anew can say.
    - ``expected_layer``, ``centre_of_gravity`` (sum_l l softmax(s)_l of the full mix): of the encoder, no layer. The
      centre has no interval: it is a trained parameter, not a score of the texts that are resampled.
    - ``micro_f1_difference``, ``micro_f1_difference_p``: to the first encoder, paired by text; p by Holm over all
      inputs of all encoders.
    """
    weights = resamples_of(texts, resamples, seed)
    rows: list[Row] = []
    labels: list[Row] = []
    scores: dict[str, np.ndarray] = {}

    def add(model: str, where: Input | None, measure: str, values: np.ndarray | float, n: int) -> None:
        layer = None if where is None else where.layer
        name = measure if where is None else PREFIX[where.kind] + measure
        if np.ndim(values) == 0:
            rows.append(Row(model, TASK, data, layer, name, float(values), None, None, n, seed))
        else:
            found = interval(np.asarray(values), n)
            rows.append(Row(model, TASK, data, layer, name, found.value, found.low, found.high, n, seed))

    for model, parts in measured.items():
        real, control = parts["probes"], parts.get("control")
        scores[model] = micro_f1(real.counts, weights)
        against = None if control is None else micro_f1(control.counts, weights)
        one = list(inventory).index("1") if set(inventory) == {"0", "1"} else None
        ones, against_ones = (
            # Control labels of few word types can all be the same: there is no class 1 then.
            label_f1(part.counts, one, weights)
            if one is not None and part is not None and part.counts.gold.shape[1] == 2
            else None
            for part in (real, control)
        )
        for p, where in enumerate(real.inputs):
            add(model, where, "micro_f1", scores[model][p], texts)
            if ones is not None:
                add(model, where, "class_1_f1", ones[p], texts)
                if against_ones is not None:
                    add(model, where, "control_class_1_f1", against_ones[p], texts)
                    add(model, where, "class_1_selectivity", ones[p] - against_ones[p], texts)
            if against is not None:
                add(model, where, "control_micro_f1", against[p], texts)
                add(model, where, "selectivity", scores[model][p] - against[p], texts)
            for part, prefix in ((real, ""), (control, "control_")):
                if part is not None and part.bits is not None and part.uniform is not None:
                    add(model, where, f"{prefix}description_bits", float(part.bits[p]), part.targets)
                    add(model, where, f"{prefix}compression", float(part.uniform / part.bits[p]), part.targets)
        layer = expected_layer(real.inputs, scores[model])
        if layer is not None:
            add(model, None, "expected_layer", layer, texts)
        add(model, None, "centre_of_gravity", float(np.arange(len(real.mix)) @ real.mix), texts)
        for k, label in enumerate(inventory):
            gold = int(real.counts.gold[:, k].sum())
            for where, values in zip(real.inputs, label_f1(real.counts, k, weights), strict=True):
                found = interval(values, gold)
                name = f"{PREFIX[where.kind]}f1[{label}]"
                labels.append(Row(model, TASK, data, where.layer, name, found.value, found.low, found.high, gold, seed))
    rows += _differences(measured, scores, data, texts, seed)
    return rows, labels


def _differences(
    measured: Mapping[str, Mapping[str, Measured]], scores: Mapping[str, np.ndarray], data: str, texts: int, seed: int
) -> list[Row]:
    first, *others = measured
    found = []
    for model in others:
        inputs = measured[model]["probes"].inputs
        if inputs == measured[first]["probes"].inputs:  # an encoder of another depth has no layers to pair
            found += [
                (model, where, difference)
                for where, difference in zip(inputs, paired(scores[first], scores[model]), strict=True)
            ]
    rows = []
    for (model, where, d), p in zip(found, holm(np.array([d.p for _, _, d in found])), strict=True):
        name = f"{PREFIX[where.kind]}micro_f1_difference"
        rows.append(Row(model, TASK, data, where.layer, name, d.value, d.low, d.high, texts, seed))
        rows.append(Row(model, TASK, data, where.layer, f"{name}_p", float(p), None, None, texts, seed))
    return rows
