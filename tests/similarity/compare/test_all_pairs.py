"""Measures over pairs of sampled stimuli.

Paired differences, sampling errors and the forecast of time.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bertft.errors import BertftError
from bertft.ops.native import cpu
from bertft.runs.intervals import clustered_difference, clustered_interval
from bertft.similarity import neighbours
from bertft.similarity import pairwise_rsa as pairwise
from bertft.similarity.compare import all_pairs as sampled
from bertft.similarity.compare import encoders as module
from bertft.similarity.compare.comparison import Comparison
from bertft.similarity.compare.plan import Plan


class Messages:
    """A progress that keeps its messages."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def step(self, *_, **__):
        from bertft.runs.progress import SILENT

        return SILENT.step("")

    def say(self, message: str) -> None:
        self.said.append(message)


def spaces(n: int = 240, d: int = 12):
    """Return a base (2, n, d), two tuned spaces with sentence effects, the second further away, and groups of 4."""
    g = torch.Generator().manual_seed(0)

    def normal(rows: int) -> torch.Tensor:
        return torch.randn(2, rows, d, generator=g)

    groups = torch.arange(n) // 4
    base = normal(n // 4)[:, groups] + normal(n) + 1
    change = normal(n // 4)[:, groups] + normal(n)
    near = base + 0.7 * change
    return groups, base, {"a": near, "b": near + 0.3 * normal(n)}


KINDS = {
    "rsa_cosine_spearman": Plan(compares=("spearman",)),
    "rsa_euclidean_pearson": Plan(metrics=("euclidean",)),
    "rsa_cosine_kendall": Plan(compares=("kendall",)),
    "mutual_knn_10": Plan(measures=("mutual_knn",)),
    "cka_rbf": Plan(measures=("cka_rbf",)),
}


@pytest.mark.parametrize("measure", KINDS)
def test_the_difference_of_two_tuned_encoders_is_paired(measure, monkeypatch):
    monkeypatch.setattr(sampled, "RESAMPLES", 10 if measure.endswith("kendall") else 200)
    groups, base, tuned = spaces()
    rows = sampled.rows(
        "toy", KINDS[measure], groups, base[:1], {k: v[:1] for k, v in (tuned | {"same": tuned["a"]}).items()}
    )
    found = {row.model: row for row in rows if row.measure == measure}
    apart, alone = found["a - b"], [found["a"], found["b"]]
    assert apart.value == alone[0].value - alone[1].value and apart.task == "difference" and apart.n == 240
    assert apart.low < apart.value < apart.high
    widths = [row.high - row.low for row in (*alone, apart)]
    assert 0 < widths[2] < widths[0] + widths[1]
    nothing = found["a - same"]
    assert nothing.value == nothing.low == nothing.high == 0


@pytest.mark.parametrize("measure", ["mutual_knn_10", "cka_rbf"])
def test_intervals_are_clustered_over_the_texts_or_parts_of_the_sample(measure):
    groups, base, tuned = spaces()
    rows = sampled.rows("toy", KINDS[measure], groups, base[:1], {k: v[:1] for k, v in tuned.items()})
    found, spreads = {row.model: row for row in rows}, []
    for name, space in tuned.items():
        if measure == "cka_rbf":
            value, influence = neighbours.rbf_alignment(base[0], space[0])
            clusters, size = groups, {"stimuli": 240, "sentences": 60}
        else:
            value = float(neighbours.mutual_knn(base[0], space[0]).mean())
            influence, clusters = neighbours.overlap_influence(base[0], space[0], groups)
            size = {"stimuli": 240, "sentences": 10}
        expected = clustered_interval(value, influence, clusters, **size)
        assert (found[name].value, found[name].low, found[name].high) == expected[:3]
        spreads.append((value, influence))
    (a, of_a), (b, of_b) = spreads
    apart = clustered_difference(a, b, (of_a, of_b), clusters, **size)
    assert (found["a - b"].value, found["a - b"].low, found["a - b"].high) == apart[:3]
    assert {(row.task, row.n, row.layer) for row in rows} == {
        ("rsa" if measure == "cka_rbf" else "similarity", 240, 0), ("difference", 240, 0)
    }  # fmt: skip


def test_bootstrap_differences_use_the_same_resamples(monkeypatch):
    monkeypatch.setattr(sampled, "RESAMPLES", 100)
    groups, base, tuned = spaces()
    plan = Plan(metrics=("euclidean",), seed=5)
    row = next(row for row in sampled.rows("toy", plan, groups, base, tuned) if row.model == "a - b" and row.layer == 1)
    drawn = [
        pairwise.rsa(base[1], t[1], "euclidean", groups=groups, bootstrap=100, seed=5).resamples for t in tuned.values()
    ]
    assert (row.low, row.high) == pytest.approx(tuple(np.percentile(drawn[0] - drawn[1], [2.5, 97.5])))


def test_no_difference_without_intervals():
    groups, base, tuned = spaces()
    rows = sampled.rows("toy", Plan(metrics=("euclidean",), intervals=False), groups, base, tuned)
    assert {row.model for row in rows} == {"a", "b"} and all(row.low is None for row in rows)


def test_sampling_error_is_a_row_and_a_message():
    """Kendall has one from drawn pairs and Spearman one from binned ranks; measures of all pairs have none."""
    groups, base, tuned = spaces(1200, 6)
    progress, only = Messages(), {"a": tuned["a"]}
    plan = Plan(compares=("kendall", "spearman"), intervals=False)
    rows = {
        row.measure: row for row in sampled.rows("toy", plan, groups, base, only, progress=progress) if row.layer == 1
    }
    drawn, binned = rows["rsa_cosine_kendall_error"], rows.get("rsa_cosine_spearman_error")
    assert (drawn.task, drawn.n) == ("precision", 100_000) and drawn.value == pytest.approx(2 / 3 / 100_000**0.5)
    assert any("100,000 pairs drawn" in line and "kendall" in line for line in progress.said)
    assert (binned is not None) == cpu.load()
    if binned is not None:  # with the kernels: the reference ranks all pairs exactly
        assert binned.n == 1200 * 1199 // 2 and 0 < binned.value < 1e-2
    few = sampled.rows("toy", plan, groups[:40], base[:, :40], {"a": only["a"][:, :40]})
    assert not [row for row in few if row.task == "precision"]


def test_permutation_needs_two_texts_of_one_size():
    _, base, tuned = spaces()
    progress = Messages()
    groups = torch.repeat_interleave(torch.arange(3), torch.tensor([100, 90, 50]))
    plan = Plan(permutations=9, intervals=False)
    assert sampled.rows("toy", plan, groups, base, tuned, progress=progress) == []
    assert "no permutation test" in progress.said[0] and "3 sampled texts" in progress.said[0]
    rows = sampled.rows("toy", plan, torch.arange(240) // 4, base, tuned)
    assert [row.measure for row in rows] == ["rsa_cosine_pearson_p"] * 4 and all(row.value == 0.1 for row in rows)


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ({"measures": ("cka",)}, "permutations test rsa"),
        ({"compares": ("kendall",)}, "permutations test rsa"),
        ({"sample": 20_000}, "at most 10000 stimuli, found 20000"),
    ],
)
def test_impossible_permutations_are_refused(plan, words):
    with pytest.raises(BertftError, match=words):
        Plan(permutations=99, **plan)
    with pytest.raises(BertftError, match="permutations must be at least 0, found -1"):
        Plan(permutations=-1)


# Forecast -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def a_second_each(monkeypatch):
    """Make every trial take a second, and 20,000 drawn pairs of one space 20 ms."""
    taken = []

    def seconds(work, *arguments):
        taken.append(len(arguments))
        return 0.02 if getattr(work, "func", None) is sampled.reference.paired_distance else 1.0

    monkeypatch.setattr(sampled, "_seconds", seconds)
    return taken


def test_each_kind_has_its_own_cost(a_second_each):
    """Kendall draws as many pairs of 50,000 stimuli as of 5,000; measures of all pairs take 100 times as long."""
    plan = Plan(
        ("euclidean",), ("pearson", "kendall"), ("rsa", "mutual_knn", "cka_rbf"), intervals=False, permutations=1000
    )
    two = [(7, (384, 384)), (5, (384, 384))]
    short, long = (sampled.forecast(plan, n, two) for n in (5_000, 50_000))
    assert short["rsa_euclidean_kendall"] == long["rsa_euclidean_kendall"] == 12
    growth = (5_000 / sampled.TRIAL) ** 2
    for measure in ("rsa_euclidean_pearson", "mutual_knn_10"):
        assert short[measure] == pytest.approx(12 * growth) and long[measure] == pytest.approx(1200 * growth)
    assert short["rsa_euclidean_pearson_p"] == pytest.approx(12 * 10 * growth)  # the trial has 100 permutations
    drawn = 1_000_000 * 0.04 / 20_000
    assert short["cka_rbf"] == pytest.approx(12 * (growth + drawn))
    ranked = sampled.forecast(Plan(compares=("spearman",)), 5_000, two)
    assert ranked["rsa_cosine_spearman"] == pytest.approx(12 * (growth + drawn))


def test_few_stimuli_need_no_trial(a_second_each):
    assert set(sampled.forecast(Plan(compares=("kendall",)), 700, [(7, (8, 8))]).values()) == {0.0}
    assert a_second_each == []


def test_the_forecast_names_slow_measures_only():
    line = sampled.forecast_line({"rsa_cosine_kendall": 31.4, "mutual_knn_10": 0.3}, 5000)
    assert line == "after the text, on up to 5,000 sampled stimuli: rsa_cosine_kendall about 31 s"
    assert sampled.forecast_line({"mutual_knn_10": 0.3}, 5000) is None


def test_shape_distances_that_may_be_rounding_have_no_interval():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1, 120, 8, generator=g)
    noise = torch.randn(1, 120, 8, generator=g)
    near, nearer, far = (x + size * noise for size in (1e-5, 2e-5, 0.1))
    comparison = Comparison(Plan(measures=("shape_distance",)), {"a": (1, 1), "b": (1, 1), "c": (1, 1)})
    comparison.update(torch.arange(30), torch.full((30,), 4), [x, near, nearer, far])
    comparison.sentences = 30
    rows = {row.model: row for row in comparison.rows("toy")}
    for name in ("a", "b", "a - b"):
        assert abs(rows[name].value) < 2e-4 and rows[name].low is rows[name].high is None
    for name in ("c", "a - c"):
        assert rows[name].low < rows[name].value < rows[name].high


# Sums in float64 ------------------------------------------------------------------------------------------------------


def test_float64_sums_are_those_of_all_pairs():
    """Uses float32 vectors with a common mean and a huge dimension, too wide for float64 products by default."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1, 300, 160, generator=g) + 3 * torch.randn(160, generator=g)
    x[..., 1] = 10 * x[..., 1] + 100
    y = x + torch.randn(1, 300, 160, generator=g)
    comparison = Comparison(Plan(("cosine", "sqeuclidean"), float64=True), {"t": (1, 1)})
    assert all(moments.config["float64"] for moments in comparison.sums["t"].values())
    by_default = Comparison(Plan(("cosine", "sqeuclidean")), {"t": (1, 1)}).sums["t"].values()
    assert not any(moments.config["float64"] for moments in by_default)
    lengths = torch.full((30,), 10)
    comparison.update(torch.arange(30), lengths, [x, y])
    comparison.sentences = 30
    found = {row.measure: row.value for row in comparison.rows("toy")}
    i, j = np.triu_indices(300, 1)
    u, v = (t[0].numpy().astype(np.longdouble) for t in (x, y))
    for metric in ("cosine", "sqeuclidean"):
        pairs = []
        for t in (u, v):
            unit = t / np.sqrt((t * t).sum(1, keepdims=True))
            entries = ((t[i] - t[j]) ** 2).sum(1) if metric == "sqeuclidean" else 1 - (unit[i] * unit[j]).sum(1)
            pairs.append(entries - entries.mean())
        a, b = pairs
        expected = float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))
        assert found[f"rsa_{metric}_pearson"] == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize(("tokens", "stimuli"), [(None, 50), (60, 50), (20, 20)])
def test_the_forecast_is_of_the_stimuli_in_the_sample(tokens, stimuli, monkeypatch):
    seen = []
    monkeypatch.setattr(sampled, "forecast", lambda plan, count, compared: seen.append((count, compared)))
    monkeypatch.setattr(sampled, "forecast_line", lambda found, count: f"of {count}")
    base, tuned = SimpleNamespace(dim=4), SimpleNamespace(dim=5)
    comparison = SimpleNamespace(plan=Plan(sample=50), layers={"t": (3, 3)})
    assert module._forecast(comparison, base, {"t": tuned}, tokens) == f"of {stimuli}"
    assert seen == [(stimuli, [((3, 3), (4, 5))])]
