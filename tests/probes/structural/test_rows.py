"""Rows of structural probes, from planted scores."""

from __future__ import annotations

import numpy as np
import pytest

from bertft.probes.structural.kind import ProbeKind
from bertft.probes.structural.rows import CONTROL, rows_of
from bertft.probes.structural.scores import resampled, summarise
from bertft.runs.intervals import holm, paired, percentile_score
from tests.probes.structural.test_resamples import planted

LINEAR, LOWER, RBF = ProbeKind("linear", 8), ProbeKind("linear", 2), ProbeKind("rbf", 8)
LENGTHS = [4, 5, 5, 6, 8, 8, 9, 51]
SEED, RESAMPLES = 3, 30
NAMES = ("dspr", "nspr", "uuas", "root_accuracy")


def scores_of(*keys, layers: int = 2):
    return {key: planted(LENGTHS, seed=number, layers=layers) for number, key in enumerate(keys)}


def rows_by(scores, differences: bool):
    rows = rows_of(scores, "toy", SEED, RESAMPLES, differences)
    assert {(row.task, row.data, row.seed) for row in rows} == {("structural", "toy", SEED)}
    found = {(row.model, row.layer, row.measure): row for row in rows}
    assert len(found) == len(rows)
    return found


def check(row, wanted, n: int) -> None:
    assert (row.value, row.low, row.high, row.n) == (wanted.value, wanted.low, wanted.high, n)


def test_rows_of_a_control_have_its_score_and_the_selectivity():
    scores = scores_of(("base", LINEAR, ""), ("base", LINEAR, CONTROL))
    found = rows_by(scores, differences=False)
    real, control = (resampled(own, resamples=RESAMPLES, seed=SEED) for own in scores.values())
    for layer in range(2):
        own, other = (summarise(part, resamples=RESAMPLES, seed=SEED)[layer] for part in scores.values())
        for name in NAMES:
            n = {"dspr": 6, "nspr": 6}.get(name, 8)
            check(found["base", layer, name], own[name], n)
            check(found["base", layer, f"control_{name}"], other[name], n)
            gap = percentile_score(real[name][layer] - control[name][layer], n)
            check(found["base", layer, f"{name}_selectivity"], gap, n)
    assert len(found) == 2 * 4 * 3


def test_names_end_in_the_kind_of_the_probe_unless_it_is_the_only_linear_one():
    kinds = {LINEAR: "rank8", LOWER: "rank2", RBF: "rbf"}
    found = rows_by(scores_of(*(("base", kind, "") for kind in kinds)), differences=False)
    assert {name for *_, name in found} == {f"{name}_{end}" for name in NAMES for end in kinds.values()}
    found = rows_by(scores_of(("base", LINEAR, ""), ("base", RBF, "")), differences=False)
    assert {name for *_, name in found} == {f"{name}{end}" for name in NAMES for end in ("", "_rbf")}


def test_differences_are_to_the_first_encoder_with_p_values_of_all_layers_kinds_and_encoders():
    parts = {"base": ("", CONTROL), "a": ("", CONTROL), "b": ("",)}
    keys = [(model, kind, part) for model in parts for kind in (LINEAR, RBF) for part in parts[model]]
    scores = scores_of(*keys) | {("deep", kind, ""): planted(LENGTHS, seed=9, layers=3) for kind in (LINEAR, RBF)}
    found = rows_by(scores, differences=True)
    drawn = {key: resampled(own, resamples=RESAMPLES, seed=SEED) for key, own in scores.items()}
    for name in NAMES:
        wanted = {
            (model, kind, layer): difference
            for model in ("a", "b")
            for kind in (LINEAR, RBF)
            for layer, difference in enumerate(paired(drawn["base", kind, ""][name], drawn[model, kind, ""][name]))
        }
        corrected = holm(np.array([difference.p for difference in wanted.values()]))
        for ((model, kind, layer), difference), p in zip(wanted.items(), corrected, strict=True):
            end = "" if kind == LINEAR else "_rbf"
            check(found[model, layer, f"{name}_difference{end}"], difference, 8)
            row = found[model, layer, f"{name}_difference_p{end}"]
            assert (row.value, row.low, row.high, row.n) == (pytest.approx(p, rel=1e-12), None, None, 8)
    pairs = [key for key in found if "_difference" in key[2]]
    assert len(pairs) == 4 * len(wanted) * 2 and {model for model, *_ in pairs} == {"a", "b"}
