"""What a plan measures, and at which limits it is refused."""

from __future__ import annotations

import itertools

import pytest

from bertft.errors import BertftError
from bertft.similarity.compare.plan import MEASURES, Plan
from bertft.similarity.compare.streamed import streamed_measures, task_of

METRICS = [("cosine",), ("sqeuclidean",), ("euclidean",), ("manhattan", "dot"), ("correlation", "sqeuclidean", "dot")]
COMPARES = [("pearson",), ("cosine",), ("kendall",), ("spearman", "pearson"), ("kendall", "rho_a")]
RAW = {"cka", "cka_biased", "cca", "svcca", "pwcca", "procrustes", "shape_distance", "linear_r2"}  # of two encoders


@pytest.mark.parametrize("permutations", [0, 10])
@pytest.mark.parametrize(("metrics", "compares"), list(itertools.product(METRICS, COMPARES)))
def test_each_kind_of_rsa_is_exact_or_sampled_and_tested_unless_it_is_kendall(metrics, compares, permutations):
    if permutations and compares == ("kendall",):
        return
    plan = Plan(metrics, compares, permutations=permutations)
    kinds = [(metric, compare) for metric in metrics for compare in compares]
    exact = {(m, c) for m in ("dot", "cosine", "correlation", "sqeuclidean") for c in ("pearson", "cosine")}
    assert plan.streamed == [kind for kind in kinds if kind in exact]
    assert plan.pairwise == [kind for kind in kinds if kind not in exact]
    assert plan.tested == [kind for kind in kinds if kind[1] != "kendall" and permutations]
    assert plan.over_pairs == (not set(kinds) <= exact or bool(permutations))


@pytest.mark.parametrize(
    ("measures", "metrics", "sums", "wide"),
    [
        (("rsa",), ("cosine",), ["cosine"], []),
        (("rsa", "cka"), ("cosine",), ["cosine", "dot"], []),
        (("rsa", "cka"), ("cosine", "sqeuclidean"), ["cosine", "sqeuclidean"], []),
        (("rsa", "cka"), ("dot",), ["dot"], []),
        (("rsa",), ("euclidean",), ["dot"], []),  # sums count the stimuli too
        (("mutual_knn",), ("cosine",), ["dot"], []),
        (("cka",), ("cosine",), ["dot"], []),
        (("anisotropy",), ("dot",), ["cosine"], []),
        (("rsa", "anisotropy"), ("cosine", "dot"), ["cosine", "dot"], []),
        (("rsa", "anisotropy", "effective_dimension"), ("correlation",), ["correlation", "cosine", "dot"], []),
        (("effective_dimension",), ("cosine",), ["dot"], []),
        (("rsa", "cca"), ("cosine",), ["cosine", "dot"], ["dot"]),
        (("rsa", "pwcca"), ("sqeuclidean", "dot"), ["sqeuclidean", "dot"], ["sqeuclidean"]),
        (("linear_r2",), ("cosine",), ["dot"], ["dot"]),
        (("rsa", "svcca", "procrustes"), ("cosine",), ["cosine", "dot"], []),
    ],
)
def test_sums_are_of_the_metrics_asked_for_and_of_raw_rows_where_a_measure_needs_them(measures, metrics, sums, wide):
    plan = Plan(metrics, measures=measures)
    assert plan.preparations == sums
    assert [metric for metric in sums if plan.in_float64(metric)] == wide
    assert [plan.precision_of(metric) for metric in sums] == ["float64" if m in wide else "float32" for m in sums]
    fast = Plan(metrics, measures=measures, precision="fast")
    assert [fast.precision_of(metric) for metric in sums] == ["float64" if m in wide else "fast" for m in sums]
    assert all(Plan(metrics, measures=measures, float64=True).in_float64(metric) for metric in sums)


def test_measures_from_sums_have_their_metric_and_task_in_the_order_of_the_plan():
    plan = Plan(("cosine", "sqeuclidean", "euclidean"), ("cosine", "pearson"), ("anisotropy", *MEASURES))
    found = [(one.name, one.metric) for one in streamed_measures(plan)]
    rsa = [(f"rsa_{m}_{c}", m) for m in ("cosine", "sqeuclidean") for c in ("cosine", "pearson")]
    scatter = ("cka_debiased", "cka_biased", "cca", "svcca", "pwcca", "procrustes", "shape_distance", "linear_r2")
    assert found == [*rsa, *((name, "sqeuclidean") for name in scatter)]
    assert {name: task_of(name) for name, _ in found} == {
        name: "rsa" if name.startswith(("rsa", "cka")) else "similarity" for name, _ in found
    }
    assert [one.metric for one in streamed_measures(Plan(measures=("anisotropy", "rsa")))] == ["cosine"]
    assert task_of("cka_rbf") == "rsa" and task_of("mutual_knn_10") == task_of("anisotropy") == "similarity"


@pytest.mark.parametrize("measure", MEASURES)
def test_one_measure_alone_needs_pairs_only_if_it_is_of_pairs(measure):
    plan = Plan(measures=(measure,))
    assert plan.over_pairs == (measure in ("mutual_knn", "cka_rbf"))
    assert [one.name for one in streamed_measures(plan)] == (
        ["rsa_cosine_pearson"]
        if measure == "rsa"
        else [{"cka": "cka_debiased"}.get(measure, measure)] * (measure in RAW)
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"sample": 4},
        {"layers": (0, 3, 1)},
        {"all_layers": True},
        {"permutations": 1, "sample": 10_000},
        {"sample": 10_001},
        {"null": 100, "sample": 10_001},  # without a measure over pairs
        {"null": 100, "sample": 10_000, "measures": ("mutual_knn",)},
        {"null": 100, "measures": ("rsa",), "metrics": ("manhattan",), "compares": ("kendall", "rho_a")},
        {"null": 100, "measures": ("linear_r2",)},
        {"null": 100, "measures": ("cka_rbf",), "compares": ("kendall",)},
        {"measures": ("mutual_knn",), "sample": 10_001},
    ],
)
def test_settings_at_their_limits_are_taken(settings):
    assert Plan(**settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sample": 3}, "sample must be at least 4, found 3"),
        ({"layers": (1, -1)}, r"layers must be different numbers from 0 on, found \[1, -1\]"),
        ({"layers": (1, 1)}, r"layers must be different numbers from 0 on, found \[1, 1\]"),
        ({"layers": (1,), "all_layers": True}, "found all_layers"),
        ({"permutations": -1}, "permutations must be at least 0, found -1"),
        ({"permutations": 1, "sample": 10_001}, "a sample of at most 10000 stimuli, found 10001"),
        ({"permutations": 1, "measures": ("cka",)}, "permutations test rsa"),
        ({"permutations": 1, "compares": ("kendall",)}, "permutations test rsa"),
        ({"metrics": ("cosine", "angle")}, "metric must be one of .*, found 'angle'"),
        ({"metrics": ()}, "metric must be one of .*, found ''"),
        ({"compares": ()}, "compare must be one of .*, found ''"),
        ({"measures": ("rsa", "kta")}, "measures must be one of .*, found 'kta'"),
        ({"precision": "half"}, "similarity: precision must be one of"),
        ({"null": 100, "measures": ("effective_dimension",)}, "a null needs a measure of two encoders"),
        ({"null": 100, "measures": ("rsa",), "metrics": ("euclidean",), "compares": ("kendall",)}, "a null needs"),
    ],
)
def test_settings_beyond_their_limits_are_refused(settings, words):
    with pytest.raises(BertftError, match=words):
        Plan(**settings)


def test_layers_of_a_plan_are_numbered_as_chosen_else_from_0():
    assert [Plan(layers=(5, 2)).number(place) for place in (0, 1)] == [5, 2] and Plan().number(7) == 7


def test_both_names_of_float64_make_one_plan():
    plan = Plan(float64=True)
    assert plan == Plan(precision="float64") and (plan.precision, plan.float64) == ("float64", True)
    assert (Plan().precision, Plan().float64, Plan(precision="fast").float64) == ("float32", False, False)
