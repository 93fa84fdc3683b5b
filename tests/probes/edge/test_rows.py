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
