"""Rows of edge probes, from planted counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bertft.probes.edge.head import Input
from bertft.probes.edge.rows import Measured, rows_of
from bertft.probes.edge.training import Counts
from bertft.runs.intervals import holm, paired, resamples_of

TEXTS, RESAMPLES, SEED = 9, 40, 5
INPUTS = [Input("layer", 0), Input("layer", 1), Input("mix", 1), Input("cat", 1)]


def measured(seed: int, *, bits: bool = True) -> Measured:
    """Return planted results of four probes with labels "0" and "1"."""
    rng = np.random.default_rng(seed)
    gold = rng.integers(1, 5, (TEXTS, 2))
    predicted = rng.integers(1, 5, (len(INPUTS), TEXTS, 2))
    hits = np.minimum(predicted, rng.integers(0, gold + 1, (len(INPUTS), TEXTS, 2)))
    counts = Counts(*(torch.tensor(t) for t in (hits, predicted, gold)), torch.tensor(rng.integers(0, 2, TEXTS)))
    code = np.array([10.0, 20, 40, 50]) if bits else None
    mix = np.array([0.25, 0.75])
    return Measured(INPUTS, counts, np.ones(4), np.ones(4), mix, code, 100.0 if bits else None, 33)


def f1(part: Measured, probe: int, weights: np.ndarray, label: int | None = None) -> np.ndarray:
    """Return F1 of a probe in each resample, text by text."""
    found = []
    for row in weights:
        hits = predicted = gold = 0.0
        for text, weight in enumerate(row):
            some = slice(None) if label is None else slice(label, label + 1)
            hits += weight * float(part.counts.hits[probe, text, some].sum())
            predicted += weight * float(part.counts.predicted[probe, text, some].sum())
            gold += weight * float(part.counts.gold[text, some].sum())
            gold += weight * float(part.counts.missed[text]) if label is None else 0
        found.append(2 * hits / (predicted + gold))
    return np.array(found)


def check(row, values: np.ndarray) -> None:
    """Compare a row with the sample's value and the 2.5 and 97.5 percentiles of its resamples."""
    low, high = np.percentile(values[1:], 2.5), np.percentile(values[1:], 97.5)
    wanted = (values[0], min(low, values[0]), max(high, values[0]))
    assert (row.value, row.low, row.high) == pytest.approx(wanted, rel=1e-12)


def test_rows_are_scores_over_texts_with_intervals_of_95_percent():
    parts = {"probes": measured(1), "control": measured(2, bits=False)}
    rows, labels = rows_of({"base": parts}, ["0", "1"], "toy", TEXTS, RESAMPLES, SEED)
    weights = resamples_of(TEXTS, RESAMPLES, SEED)
    found = {(row.layer, row.measure): row for row in rows}
    for probe, (layer, prefix) in enumerate(((0, ""), (1, ""), (1, "mix_"), (1, "cat_"))):
        real, control = (f1(part, probe, weights) for part in parts.values())
        check(found[layer, f"{prefix}micro_f1"], real)
        check(found[layer, f"{prefix}control_micro_f1"], control)
        check(found[layer, f"{prefix}selectivity"], real - control)
        check(found[layer, f"{prefix}class_1_f1"], f1(parts["probes"], probe, weights, 1))
        bits = found[layer, f"{prefix}description_bits"]
        assert (bits.value, bits.low, bits.n) == ([10, 20, 40, 50][probe], None, 33)
        assert found[layer, f"{prefix}compression"].value == [10, 5, 2.5, 2][probe]
        for k in range(2):
            row = next(r for r in labels if r.layer == layer and r.measure == f"{prefix}f1[{k}]")
            check(row, f1(parts["probes"], probe, weights, k))
            assert row.n == int(parts["probes"].counts.gold[:, k].sum())
    assert not [name for _, name in found if "control_description" in name]
    assert (found[None, "centre_of_gravity"].value, found[None, "centre_of_gravity"].n) == (0.75, TEXTS)
    assert {(row.model, row.task, row.data, row.seed) for row in rows} == {("base", "edge", "toy", SEED)}
    assert found[0, "micro_f1"].n == TEXTS


def test_differences_are_tuned_minus_base_with_corrected_p_values():
    models = {name: {"probes": measured(seed)} for name, seed in (("base", 1), ("a", 3), ("b", 4))}
    rows, _ = rows_of(models, ["0", "1"], "toy", TEXTS, RESAMPLES, SEED)
    weights = resamples_of(TEXTS, RESAMPLES, SEED)
    scores = {name: np.stack([f1(parts["probes"], p, weights) for p in range(4)]) for name, parts in models.items()}
    wanted = [d for name in ("a", "b") for d in paired(scores["base"], scores[name])]
    gaps = [row for row in rows if row.measure.endswith("micro_f1_difference")]
    ps = [row for row in rows if row.measure.endswith("micro_f1_difference_p")]
    assert [(row.model, row.layer) for row in gaps] == [(m, layer) for m in ("a", "b") for layer in (0, 1, 1, 1)]
    for row, d in zip(gaps, wanted, strict=True):
        assert (row.value, row.low, row.high) == pytest.approx((d.value, d.low, d.high))
    assert [row.value for row in ps] == pytest.approx(holm(np.array([d.p for d in wanted])).tolist())
    assert {row.low for row in ps} == {None}


PREFIXES = ((0, ""), (1, ""), (1, "mix_"), (1, "cat_"))


def rows_by(measured, inventory=("0", "1")):
    rows, labels = rows_of(measured, inventory, "toy", TEXTS, RESAMPLES, SEED)
    found = {(row.model, row.layer, row.measure): row for row in rows}
    assert len(found) == len(rows)
    return found, labels


@pytest.mark.parametrize("inventory", [["0", "1"], ["1", "0"]])
def test_rows_of_class_1_are_those_of_its_label_with_those_of_the_control(inventory):
    parts = {"probes": measured(1), "control": measured(2)}
    found, _ = rows_by({"base": parts}, inventory)
    weights, label = resamples_of(TEXTS, RESAMPLES, SEED), inventory.index("1")
    for probe, (layer, prefix) in enumerate(PREFIXES):
        real, control = (f1(part, probe, weights, label) for part in parts.values())
        check(found["base", layer, f"{prefix}class_1_f1"], real)
        check(found["base", layer, f"{prefix}control_class_1_f1"], control)
        check(found["base", layer, f"{prefix}class_1_selectivity"], real - control)


@pytest.mark.parametrize("inventory", [["0", "2"], ["0", "1", "2"], ["1", "2"]])
def test_other_labels_have_no_class_1(inventory):
    part = measured(1)
    counts = part.counts
    if len(inventory) == 3:
        zeros = torch.zeros(*counts.gold.shape[:1], 1)
        every = torch.zeros(len(INPUTS), TEXTS, 1)
        part.counts = Counts(
            torch.cat([counts.hits, every], 2), torch.cat([counts.predicted, every], 2),
            torch.cat([counts.gold, zeros], 1), counts.missed,
        )  # fmt: skip
    found, labels = rows_by({"base": {"probes": part, "control": part}}, inventory)
    assert not [name for *_, name in found if "class_1" in name]
    assert [(row.layer, row.measure) for row in labels] == [
        (layer, f"{prefix}f1[{label}]") for label in inventory for layer, prefix in PREFIXES
    ]


def test_control_labels_of_one_kind_have_no_class_1():
    control = measured(2)
    few = control.counts
    control.counts = Counts(few.hits[..., :1], few.predicted[..., :1], few.gold[..., :1], few.missed)
    found, _ = rows_by({"base": {"probes": measured(1), "control": control}})
    names = {name for *_, name in found}
    assert {"class_1_f1", "control_micro_f1"} <= names
    assert not {"control_class_1_f1", "class_1_selectivity"} & names


def test_codes_have_rows_of_the_probes_and_of_the_control_if_they_were_computed():
    control = measured(2)
    control.bits, control.uniform, control.targets = np.array([5.0, 8, 16, 32]), 64.0, 21
    found, _ = rows_by({"base": {"probes": measured(1), "control": control}})
    for probe, (layer, prefix) in enumerate(PREFIXES):
        for name, bits, uniform, n in (("", (10, 20, 40, 50), 100, 33), ("control_", (5, 8, 16, 32), 64, 21)):
            for measure, value in (("description_bits", bits[probe]), ("compression", uniform / bits[probe])):
                row = found["base", layer, f"{prefix}{name}{measure}"]
                assert (row.value, row.low, row.high, row.n) == (value, None, None, n)
    for missing in ("bits", "uniform"):
        part = measured(1)
        setattr(part, missing, None)
        found, _ = rows_by({"base": {"probes": part}})
        assert not [name for *_, name in found if "bits" in name or "compression" in name or "control" in name]


def test_the_expected_layer_has_a_row_of_the_encoder_if_there_is_a_gain():
    seen = set()
    weights = resamples_of(TEXTS, RESAMPLES, SEED)
    for seed in range(6):
        part = measured(seed)
        found, _ = rows_by({"base": {"probes": part}})
        first, mix = (f1(part, probe, weights) for probe in (0, 2))
        seen.add(gain := bool(mix[0] > first[0]))
        assert (("base", None, "expected_layer") in found) == gain
        if gain:  # a single gain is all that of layer 1
            row = found["base", None, "expected_layer"]
            assert (row.value, row.low, row.high, row.n) == pytest.approx((1, 1, 1, TEXTS))
    assert seen == {True, False}


def test_an_encoder_of_another_depth_has_no_differences():
    other = measured(3)
    other.inputs = [Input("layer", 0), Input("layer", 1), Input("mix", 1), Input("cat", 2)]
    found, _ = rows_by({"base": {"probes": measured(1)}, "deep": {"probes": other}, "a": {"probes": measured(4)}})
    assert {model for model, _, name in found if "difference" in name} == {"a"}
    assert found["a", 1, "mix_micro_f1_difference"].n == found["a", 1, "cat_micro_f1_difference_p"].n == TEXTS
    assert found["a", 0, "micro_f1_difference_p"].seed == SEED
