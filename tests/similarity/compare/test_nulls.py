"""The null of every measure against the measure itself on texts that trade places."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from bertft.errors import BertftError
from bertft.runs.progress import SILENT
from bertft.runs.vocabulary import MeasureName
from bertft.similarity import CrossMoments, mutual_knn, rbf_cka, rsa
from bertft.similarity.compare import nulls
from bertft.similarity.compare.null_values import values
from bertft.similarity.compare.plan import SCATTER, Plan
from bertft.similarity.traded_texts import LEAST, TradedTexts, classes

EVERY = Plan(
    metrics=("cosine", "sqeuclidean", "euclidean"),
    compares=("pearson", "cosine", "spearman", "rho_a"),
    measures=("rsa", "cka", *SCATTER, "mutual_knn", "cka_rbf"),
)


def texts(count: int, size: int, d: int, layers: int = 1, seed: int = 0, effect: float = 1.0):
    """Return groups and two unrelated spaces (L, n, d) whose texts have effects of their own, and a common mean."""
    g = torch.Generator().manual_seed(seed)
    groups = torch.arange(count).repeat_interleave(size)
    draw = lambda rows: torch.randn(layers, rows, d, generator=g)
    return groups, *(effect * draw(count)[:, groups] + draw(len(groups)) + 2 for _ in range(2))


def test_each_value_is_that_of_the_measure_on_reordered_stimuli():
    """Every measure by its own function on y[order] in float64."""
    _, x, y = texts(12, 5, 6)
    x, y = x[0].double(), y[0].double() + 0.5 * x[0].double()
    order = torch.randperm(60, generator=torch.Generator().manual_seed(3))
    found = {name: value(order) for name, value in values(EVERY, x, y, 1e-10)}
    z = y[order]
    sums = CrossMoments(1, 1, "dot").update(x[None], z[None])
    expected = {name: float(getattr(sums, name)()) for name in SCATTER if name != "cka_biased"}
    expected |= {"cka_biased": float(sums.cka(debiased=False)), "cka_debiased": float(sums.cka())}
    expected |= {"mutual_knn_10": float(mutual_knn(x, z).mean()), "cka_rbf": rbf_cka(x, z)[0]}
    for metric in EVERY.metrics:
        for compare in EVERY.compares:
            expected[f"rsa_{metric}_{compare}"] = rsa(x, z, metric, compare).estimate
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=2e-6), name


def test_texts_trade_places_with_texts_of_a_similar_number_of_stimuli():
    lengths = torch.tensor([9, 3, 9, 9, 8, 8, 5, 5, 5, 5, 5, 5, 3, 2])
    assert classes(lengths) == [(8, [0, 2, 3, 4, 5]), (5, [6, 7, 8, 9, 10, 11])]
    assert LEAST == 5
    groups = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    groups = groups[torch.randperm(len(groups), generator=torch.Generator().manual_seed(0))]  # texts may interleave
    traded = TradedTexts(groups, seed=1)
    assert traded.texts == 11 and len(traded) == 5 * 8 + 6 * 5
    own = groups[traded.kept]
    place = torch.tensor([int((groups[:i] == groups[i]).sum()) for i in traded.kept.tolist()])
    assert place[8:24].tolist() == [0, 1, 2, 3, 5, 6, 7, 8] * 2  # of texts of 9, cut to 8
    place = torch.where(place < 4, place, place - lengths[own])  # counted from the end in the second half
    drawn = list(traded.derangements(30))
    for order in drawn:
        assert sorted(order.tolist()) == list(range(len(traded)))
        assert (own[order] != own).all() and torch.equal(place[order], place)
    again = list(TradedTexts(groups, seed=1).derangements(30))
    assert all(map(torch.equal, drawn, again))
    assert not all(map(torch.equal, drawn, TradedTexts(groups, seed=2).derangements(30)))


def test_unrelated_spaces_are_at_zero_and_equal_ones_at_one():
    groups, x, y = texts(60, 4, 8)
    plan = Plan(measures=("rsa", "cka", *SCATTER, "mutual_knn", "cka_rbf"), null=100)
    far, same = (
        {(r.measure, r.layer): r for r in nulls.rows("toy", plan, groups, x, {"t": tuned}, {})} for tuned in (y, x)
    )
    names = {MeasureName.parse(measure).base for measure, _ in far}
    assert len(names) == 11
    for name in names:
        assert abs(far[f"{name}_calibrated", 0].value) < 0.06, name
        assert same[f"{name}_calibrated", 0].value == pytest.approx(1, abs=1e-6), name
        row, end = far[f"{name}_null", 0], "low" if name == "shape_distance" else "high"
        inside = getattr(row, end) - row.value
        assert row.task == "null" and row.n == 240 and row.seed == 0
        assert (inside < 0) == (name == "shape_distance") and inside != 0


def test_the_maximum_is_over_layers_of_one_derangement():
    groups, x, y = texts(20, 3, 4, layers=3)
    plan = Plan(measures=("cka",), null=100, seed=5)
    found = {(r.measure, r.layer): r for r in nulls.rows("toy", plan, groups, x, {"t": y}, {})}
    drawn = np.array(
        [
            [float(CrossMoments(1, 1, "dot").update(a[None], b[order][None]).cka()) for a, b in zip(x, y, strict=True)]
            for order in TradedTexts(groups, 5).derangements(100)
        ]
    )
    assert found["cka_debiased_null", 1].value == pytest.approx(drawn[:, 1].mean(), abs=1e-6)
    assert found["cka_debiased_null", 1].high == pytest.approx(np.sort(drawn[:, 1])[95], abs=1e-6)
    largest = drawn.max(1)
    assert found["cka_debiased_null_max", None].value == pytest.approx(largest.mean(), abs=1e-6)
    assert found["cka_debiased_null_max", None].high == pytest.approx(np.sort(largest)[95], abs=1e-6)


def test_a_null_of_some_texts_is_that_of_these_texts_alone():
    groups, x, y = texts(20, 3, 4)
    plan = Plan(measures=("cka",), null=100, null_sample=31, null_of_noise=False)
    tuned = {"t": y, "noise of t": x}
    part = {(r.model, r.measure): r for r in nulls.rows("toy", plan, groups, x, tuned, {})}
    whole = {r.measure: r for r in nulls.rows("toy", Plan(measures=("cka",), null=100), groups, x, {"t": y}, {})}
    row = part["t", "cka_debiased_null"]
    assert row.n == 30 and whole["cka_debiased_null"].n == 60 and {model for model, _ in part} == {"t"}
    some = torch.randperm(20, generator=torch.Generator().manual_seed(0))[:10]
    kept = torch.isin(groups, some)
    own = groups[kept].unique(return_inverse=True)[1]
    alone = nulls.rows("toy", Plan(measures=("cka",), null=100), own, x[:, kept], {"t": y[:, kept]}, {})
    assert row == next(r for r in alone if r.measure == row.measure)


def test_calibrated_rsa_takes_the_value_and_interval_of_all_stimuli():
    groups, x, y = texts(20, 3, 4)
    plan = Plan(measures=("rsa", "procrustes"), null=100)
    alone = {r.measure: r for r in nulls.rows("toy", plan, groups, x, {"t": y}, {})}
    known = dataclasses.replace(
        alone["rsa_cosine_pearson_null"], task="rsa", measure="rsa_cosine_pearson", value=0.4, low=0.3, high=0.5, n=9999
    )
    other = dataclasses.replace(known, task="similarity", measure="procrustes")
    rows = nulls.rows("toy", plan, groups, x, {"t": y}, {row.key: row for row in (known, other)})
    found = {r.measure: r for r in rows}
    zero, row = found["rsa_cosine_pearson_null"].value, found["rsa_cosine_pearson_calibrated"]
    assert (row.value, row.low, row.high) == tuple((v - zero) / (1 - zero) for v in (0.4, 0.3, 0.5)) and row.n == 9999
    assert found["procrustes_calibrated"] == alone["procrustes_calibrated"]


def test_expectations_without_a_number_of_stimuli_are_those_of_rsa_and_debiased_cka():
    measures = ("rsa_cosine_pearson", "rsa_euclidean_spearman", "cka_debiased", "cka_rbf", "procrustes", "mutual_knn")
    assert [name for name in measures if nulls.of_any_number(name)] == list(measures[:3])


def test_a_measure_that_is_1_for_unrelated_spaces_is_not_calibrated():
    groups, x, y = texts(6, 2, 12)
    rows = nulls.rows("toy", Plan(measures=("cca",), null=100), groups, x.double(), {"t": y.double()}, {})
    assert [row.measure for row in rows] == ["cca_null", "cca_null_max"] and rows[0].value == pytest.approx(1)


def test_too_few_texts_give_no_null_and_a_message():
    said: list[str] = []
    groups, x, y = texts(4, 3, 4)
    quiet = type("Said", (), {"say": said.append, "step": SILENT.step})
    assert nulls.rows("toy", Plan(null=100), groups, x, {"t": y}, {}, progress=quiet) == []
    assert said == ["toy: no null, expected at least 5 sampled texts, found 4"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"null": 99}, r"null must be 0 or at least 100, found 99 \(--null\)"),
        ({"null": 100, "measures": ("anisotropy",)}, "a null needs a measure of two encoders except kendall"),
        ({"null": 100, "measures": ("rsa",), "compares": ("kendall",)}, "a null needs a measure of two encoders"),
        ({"null": 100, "measures": ("mutual_knn",), "sample": 10_001}, "takes a sample of at most 10000 stimuli"),
    ],
)
def test_a_null_that_cannot_be_taken_is_refused(settings, words):
    with pytest.raises(BertftError, match=words):
        Plan(**settings)
