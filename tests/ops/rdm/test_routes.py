"""Which route compares matrices, why, and what it reports."""

from __future__ import annotations

import math

import pytest
import torch

from bertft.errors import BertftError
from bertft.ops.metrics import COMPARISONS, LINEAR, METRICS
from bertft.ops.native import dispatch
from bertft.ops.precision import check_precision, rsa_error
from bertft.ops.rdm import routes
from bertft.ops.rdm.correlation import rdm_correlation
from bertft.ops.rdm.routes import choose_route, costs

NARROW, WIDE = (1, 400, 4), (1, 50, 300)  # cheaper in linear time, and by tiles


def rows(shape, dtype=torch.float32, requires_grad=False):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x.to(dtype).requires_grad_(requires_grad)


def chosen(shape, metric="cosine", compare="pearson", wanted="auto", precision="float32", other=None, **kind):
    x = rows(shape, **kind)
    return choose_route(x, x if other is None else other, (metric, metric), compare, wanted, precision)


@pytest.mark.parametrize("compare", COMPARISONS)
@pytest.mark.parametrize("metric", METRICS)
def test_the_route_follows_from_the_comparison_the_metric_and_the_cost(metric, compare):
    for shape, cheap in ((NARROW, "linear"), (WIDE, "tiles")):
        how = chosen(shape, metric, compare)
        linear = compare in ("pearson", "cosine") and metric in LINEAR
        if compare == "kendall":
            name, reason = "sampled", "pairs of pairs are too many to enumerate"
        elif compare in ("spearman", "rho_a"):
            name, reason = "exact", "no more than 1024 stimuli: exact ranks cost little"
        elif linear:
            first, second = costs(rows(shape), rows(shape))[:: 1 if cheap == "linear" else -1]
            versus = "by tiles" if cheap == "linear" else "in linear time"
            name, reason = cheap, f"{first:.2g} operations against {second:.2g} {versus}"
        else:
            name, reason = "tiles", "no linear form"
        assert (how.name, how.reason, how.dtype, how.error, how.fast) == (name, reason, torch.float32, None, False)
        assert math.isinf(how.linear) == (not linear) and math.isinf(how.tiles) == (compare == "kendall")


@pytest.mark.parametrize("wanted", ["linear", "tiles", "exact", "sampled"])
@pytest.mark.parametrize("compare", COMPARISONS)
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_a_route_is_taken_as_asked_or_refused(metric, compare, wanted):
    can = {
        "linear": compare in ("pearson", "cosine") and metric == "cosine",
        "tiles": compare != "kendall",
        "exact": compare != "kendall",
        "sampled": compare == "kendall",
    }[wanted]
    if can:
        how = chosen(NARROW, metric, compare, wanted)
        assert (how.name, how.reason) == (wanted, "as asked")
    else:
        with pytest.raises(BertftError, match=f"route='{wanted}' does not support {compare} of {metric} and {metric}"):
            chosen(NARROW, metric, compare, wanted)


def test_equal_costs_take_linear_time(monkeypatch):
    monkeypatch.setattr(routes, "costs", lambda x, y: (5.0, 5.0))
    assert chosen(WIDE).name == "linear"


@pytest.mark.parametrize(("n", "name"), [(1024, "exact"), (1025, "tiles")])
def test_ranks_are_exact_up_to_1024_stimuli(n, name):
    assert chosen((1, n, 2), compare="spearman").name == name


@pytest.mark.parametrize(("first", "second"), [(True, False), (False, True), (True, True)])
def test_a_gradient_needs_linear_time(first, second):
    x, y = rows(WIDE, requires_grad=first), rows(WIDE, requires_grad=second)
    ask = lambda compare="pearson", wanted="auto", metric="cosine": choose_route(
        x, y, (metric, metric), compare, wanted, "float32"
    )
    assert (ask().name, ask().reason) == ("linear", "a gradient is needed")
    for refused in (
        {"compare": "spearman"},
        {"compare": "kendall"},
        {"metric": "euclidean"},
        {"wanted": "tiles"},
        {"wanted": "exact"},
    ):
        with pytest.raises(BertftError, match="has no gradient; only pearson and cosine"):
            ask(**refused)
    with torch.no_grad():
        assert ask().name == "tiles" and ask("spearman").name == "exact"
    alone = choose_route(rows(WIDE, requires_grad=True), None, ("dot", "dot"), "cosine", "auto", "float32")
    assert alone.name == "linear"


@pytest.mark.parametrize(
    ("dtypes", "precision", "wide"),
    [
        ((torch.float32, torch.float32), "float32", False),
        ((torch.float32, torch.float32), "float64", True),
        ((torch.float64, torch.float32), "float32", True),
        ((torch.float32, torch.float64), "float32", True),
        ((torch.bfloat16, torch.float16), "float32", False),
        ((torch.float32, None), "float32", False),
        ((torch.float64, None), "float32", True),
    ],
)
def test_float64_comes_from_either_input_or_the_precision(dtypes, precision, wide):
    x, y = (None if dtype is None else rows(NARROW, dtype) for dtype in dtypes)
    how = choose_route(x, y, ("dot", "dot"), "pearson", "auto", precision)
    assert how.dtype == (torch.float64 if wide else torch.float32)


@pytest.mark.parametrize("wanted", ["linear", "tiles"])
@pytest.mark.parametrize("served", [True, False])
@pytest.mark.parametrize("compare", ["pearson", "cosine"])
def test_float64_results_have_float64_digits(wanted, served, compare, monkeypatch):
    if not served:
        monkeypatch.setattr(dispatch, "serves", lambda tensor: False)
    x, y = rows((2, 200, 300)), rows((2, 200, 300)).flip(0)
    expected = rdm_correlation(x.double(), y.double(), compare=compare, route="exact")
    found, how = rdm_correlation(x, y, compare=compare, route=wanted, precision="float64", return_route=True)
    assert float((found - expected).abs().max()) < 1e-11 and how.dtype == torch.float64
    single, how = rdm_correlation(x, y, compare=compare, route=wanted, return_route=True)
    if wanted == "tiles" and not served:
        assert how.dtype == torch.float64  # plain PyTorch has one precision
    elif served:
        assert 1e-13 < float((single - expected).abs().max()) < 1e-6 and how.dtype == torch.float32


def test_ranks_without_a_kernel_are_exact(monkeypatch):
    monkeypatch.setattr(dispatch, "serves", lambda tensor: False)
    x, y = rows((1, 30, 4)), rows((1, 30, 5))
    found, how = rdm_correlation(x, y, compare="spearman", route="tiles", return_route=True)
    expected = rdm_correlation(x, y, compare="spearman", route="exact")
    assert how.name == "exact" and torch.equal(found, expected)


def test_the_error_of_fast_products_is_as_stated():
    assert rsa_error(200) == 3e-3 / 200 and rsa_error(100, linear=True) == 5e-4 / 10
    assert rsa_error(0) == 3e-3 and rsa_error(0, linear=True) == 5e-4


@pytest.mark.parametrize(
    ("arguments", "found"),
    [(("float32", False), "float32"), (("float32", True), "float64"), (("float64", True), "float64"),
     (("float64", False), "float64"), (("fast", False), "fast")],
)  # fmt: skip
def test_both_names_of_float64_are_taken(arguments, found):
    precision, float64 = arguments
    assert check_precision(precision, op="op", float64=float64) == found


def test_a_metric_of_y_needs_y_and_both_sides_the_same_stimuli():
    x = rows((1, 5, 3))
    with pytest.raises(BertftError, match="metric_y needs y"):
        rdm_correlation(x, metric_y="dot")
    assert rdm_correlation(x, metric_y="cosine").shape == (1, 1)
    assert rdm_correlation(x, rows((2, 5, 4)), metric_y="dot").shape == (1, 2)
    for wrong, words in ((rows((1, 6, 3)), "found 5 on cpu and 6 on cpu"), (rows((1, 5, 3)).to("meta"), "5 on meta")):
        with pytest.raises(BertftError, match=words):
            rdm_correlation(x, wrong)
