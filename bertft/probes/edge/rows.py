"""Table rows of edge probes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bertft.probes.edge.head import Input
from bertft.probes.edge.scores import expected_layer, label_f1, micro_f1
from bertft.probes.edge.training import Counts
from bertft.runs.intervals import holm, paired, percentile_score, resamples_of
from bertft.runs.rows import Row
from bertft.runs.vocabulary import MeasureName

TASK = "edge"
MICRO, CLASS_1 = MeasureName("micro_f1"), MeasureName("class_1_f1")


@dataclass
class Measured:
    """The results of P trained probes: one part (real or control labels) of one encoder.

    ``mix`` (L,) holds the weights of the full mix; ``bits`` (P,) and ``uniform`` the code lengths of ``targets``
    training targets, or None.
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
    """Return the table of all encoders and the table by label.

    A measure is that of layer k alone; with the prefix ``mix_`` that of the learned mix of layers 0..k, with ``cat_``
    that of layer 0 beside layer k. The lexical baseline is layer 0. The 95 % intervals are bootstrap percentiles over
    texts.

    - ``micro_f1``: over targets and labels. ``control_micro_f1``: of the same probe trained on control labels.
      ``selectivity``: the first minus the second on the same resamples.
    - ``class_1_f1``: F1 of the label "1" if the labels are "0" and "1" (coreference). ``control_class_1_f1`` and
      ``class_1_selectivity`` likewise.
    - ``description_bits``, ``control_description_bits``: online code of the training labels. ``compression``,
      ``control_compression``: how many times shorter it is than the uniform code. They have no interval, because the
      parts of the code are not independent: each block is coded by a probe trained on the earlier ones.
    - ``expected_layer``, ``centre_of_gravity`` (sum_l l softmax(s)_l of the full mix): of the encoder, without a layer.
      The centre has no interval, because it is a trained parameter and not a score of the resampled texts.
    - ``micro_f1_difference``, ``micro_f1_difference_p``: to the first encoder, paired by text; p-values corrected by
      Holm over all inputs of all encoders.
    """
    table = _Table(data, texts, resamples_of(texts, resamples, seed), seed, [], [])
    scores: dict[str, np.ndarray] = {}
    for model, parts in measured.items():
        real, control = parts["probes"], parts.get("control")
        scores[model] = micro_f1(real.counts, table.weights)
        against = None if control is None else micro_f1(control.counts, table.weights)
        ones, against_ones = (_class_1(part, inventory, table.weights) for part in (real, control))
        for p, where in enumerate(real.inputs):
            table.add(model, where, MICRO, scores[model][p])
            if ones is not None:
                table.add(model, where, CLASS_1, ones[p])
                table.add_control(model, where, CLASS_1, ones[p], None if against_ones is None else against_ones[p])
            table.add_control(model, where, MICRO, scores[model][p], None if against is None else against[p])
            for part, of_control in ((real, False), (control, True)):
                if part is not None:
                    table.add_code(model, where, part, p, of_control)
        layer = expected_layer(real.inputs, scores[model])
        if layer is not None:
            table.add(model, None, MeasureName("expected_layer"), layer)
        table.add_number(model, None, MeasureName("centre_of_gravity"), np.arange(len(real.mix)) @ real.mix, texts)
        table.add_labels(model, real, inventory)
    table.rows += _differences(measured, scores, data, texts, seed)
    return table.rows, table.labels


def _class_1(part: Measured | None, inventory: Sequence[str], weights: np.ndarray) -> np.ndarray | None:
    """Return F1 (P, B + 1) of the label "1", or None if the labels are not "0" and "1"."""
    if part is None or set(inventory) != {"0", "1"}:
        return None
    # Control labels of few word types can all be the same: then there is no class 1.
    return label_f1(part.counts, list(inventory).index("1"), weights) if part.counts.gold.shape[1] == 2 else None


@dataclass
class _Table:
    """Table of rows under construction. ``weights`` (B + 1, S) are the resamples of the texts."""

    data: str
    texts: int
    weights: np.ndarray
    seed: int
    rows: list[Row]
    labels: list[Row]

    def add(self, model: str, where: Input | None, measure: MeasureName, values: np.ndarray) -> None:
        """Add the first of ``values`` (B + 1,) with its interval."""
        found = percentile_score(values, self.texts)
        self.rows.append(self._row(model, where, measure, found.value, (found.low, found.high), self.texts))

    def add_control(
        self, model: str, where: Input, measure: MeasureName, values: np.ndarray, control: np.ndarray | None
    ) -> None:
        """Add the control's score and the selectivity, if there is a control."""
        if control is not None:
            self.add(model, where, replace(measure, control=True), control)
            self.add(model, where, replace(measure, derived="selectivity"), values - control)

    def add_code(self, model: str, where: Input, part: Measured, probe: int, of_control: bool) -> None:
        """Add the length and the compression of the online code, if it was computed."""
        if part.bits is not None and part.uniform is not None:
            bits, ratio = (MeasureName(name, control=of_control) for name in ("description_bits", "compression"))
            self.add_number(model, where, bits, part.bits[probe], part.targets)
            self.add_number(model, where, ratio, part.uniform / part.bits[probe], part.targets)

    def add_number(self, model: str, where: Input | None, measure: MeasureName, value: float, n: int) -> None:
        """Add a value without an interval."""
        self.rows.append(self._row(model, where, measure, float(value), (None, None), n))

    def add_labels(self, model: str, part: Measured, inventory: Sequence[str]) -> None:
        """Add F1 of each label to the table by label."""
        for k, label in enumerate(inventory):
            gold = int(part.counts.gold[:, k].sum())
            for where, values in zip(part.inputs, label_f1(part.counts, k, self.weights), strict=True):
                found = percentile_score(values, gold)
                measure = MeasureName("label_f1", label=label)
                self.labels.append(self._row(model, where, measure, found.value, (found.low, found.high), gold))

    def _row(
        self,
        model: str,
        where: Input | None,
        measure: MeasureName,
        value: float,
        ends: tuple[float | None, float | None],
        n: int,
    ) -> Row:
        layer = None if where is None else where.layer
        name = str(measure if where is None else _of(where, measure))
        return Row(model, TASK, self.data, layer, name, value, *ends, n, self.seed)


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
        gap, p_value = (str(_of(where, replace(MICRO, derived=kind))) for kind in ("difference", "difference_p"))
        rows.append(Row(model, TASK, data, where.layer, gap, d.value, d.low, d.high, texts, seed))
        rows.append(Row(model, TASK, data, where.layer, p_value, float(p), None, None, texts, seed))
    return rows


def _of(where: Input, measure: MeasureName) -> MeasureName:
    """Return ``measure`` of the probe that reads ``where``."""
    return measure if where.kind == "layer" else replace(measure, input="mix" if where.kind == "mix" else "cat")
