"""Ops at their limits: samples of pairs, strips of matrices, places of bad rows and numbers, shapes that do not fit."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial.distance import pdist, squareform

from bertft.errors import BadRow, BertftError
from bertft.ops import linear_cka, pairwise_distance, provisional_mean, rdm_correlation, reference
from bertft.ops.metrics import METRICS
from bertft.ops.probe_checks import check_probe, explain_not_finite

SCIPY = {"manhattan": "cityblock"}


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64) + 1


def entries(rows: torch.Tensor, metric: str) -> np.ndarray:
    """Return the condensed matrix by NumPy and SciPy."""
    if metric == "dot":
        return squareform((rows @ rows.T).numpy() * (1 - np.eye(len(rows))), checks=False)
    return pdist(rows.numpy(), SCIPY.get(metric, metric))


# Kendall's tau on a sample -----------------------------------------------------------------------------------------


def test_as_many_samples_as_pairs_take_every_pair():
    x, y = draw(2, 9, 4), draw(1, 9, 3, seed=1)
    expected = [[stats.kendalltau(entries(a, "cosine"), entries(y[0], "dot")).statistic] for a in x]
    options = {"metric_y": "dot", "compare": "kendall", "return_route": True}
    for samples in (36, 37):
        found, how = rdm_correlation(x, y, samples=samples, **options)
        assert (how.pairs, how.error, how.dtype) == (36, 0.0, torch.float64)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)
    found, how = rdm_correlation(x, y, samples=35, **options)
    assert how.pairs == 35 and how.error == 2 / (3 * 35**0.5) and found.shape == (2, 1)


def test_two_samples_are_enough_and_one_is_not():
    x = draw(1, 9, 4)
    assert rdm_correlation(x, compare="kendall", samples=2, return_route=True)[1].pairs == 2
    with pytest.raises(BertftError, match=r"^rdm_correlation: samples must be at least 2, not 1$"):
        rdm_correlation(x, compare="kendall", samples=1)


def test_samples_are_pairs_of_different_stimuli_and_follow_from_the_seed(monkeypatch):
    seen = []
    monkeypatch.setattr(reference, "paired_distance", lambda rows, i, j, metric: seen.append((i, j)) or i.double() + j)
    x = draw(2, 30, 2)
    for seed in (0, 0, 1):
        rdm_correlation(x, compare="kendall", samples=434, seed=seed)
    (i, j), *_, last = seen
    assert len(seen) == 6 and all(torch.equal(i, own) and torch.equal(j, other) for own, other in seen[:4])
    assert not torch.equal(i, last[0])
    assert (i[:4].tolist(), j[:4].tolist()) == ([14, 9, 23, 0], [19, 3, 3, 21])  # as in earlier runs
    assert set(i.tolist()) == set(j.tolist()) == set(range(30))
    assert set(((j - i) % 30).tolist()) == set(range(1, 30))


# Whole matrices ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("numbers", [1, 70, 1 << 21])
@pytest.mark.parametrize("metrics", list(itertools.pairwise((*METRICS, "dot"))))
def test_sums_over_pairs_do_not_depend_on_the_strips(metrics, numbers):
    x, y = draw(2, 11, 4), draw(1, 11, 5, seed=1)
    matrices = np.stack([*(entries(rows, metrics[0]) for rows in x), entries(y[0], metrics[1])])
    sums, products, shifts = (part.numpy() for part in reference.rdm_moments(x, y, *metrics, numbers=numbers))
    centred = matrices - shifts[:, None]
    np.testing.assert_allclose(sums, centred.sum(1), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(products, centred @ centred.T, rtol=1e-9, atol=1e-9)
    assert (np.abs(shifts - matrices.mean(1)) <= 2 * matrices.std(1)).all()  # near the mean, from the first strip


def test_comparisons_are_those_of_scipy():
    generator = np.random.default_rng(0)
    a, b = generator.integers(0, 6, 40).astype(float), generator.integers(0, 6, 40) + 0.5
    ranks = [torch.from_numpy(stats.rankdata(side)) for side in (a, b)]
    a, b = torch.from_numpy(a), torch.from_numpy(b)
    assert torch.equal(reference.average_ranks(a), ranks[0])
    expected = {
        "pearson": stats.pearsonr(a, b).statistic,
        "cosine": float(a @ b / (a.norm() * b.norm())),
        "spearman": stats.spearmanr(a, b).statistic,
        "kendall": stats.kendalltau(a, b).statistic,
    }
    for compare, value in expected.items():
        assert float(reference.compare_matrices(a, b, compare)) == pytest.approx(value, rel=1e-12), compare
    breaks = []  # the expected Spearman correlation under random breaks of ties
    for _ in range(4000):
        one, two = (np.argsort(np.lexsort((generator.random(40), side))) for side in (a, b))
        breaks.append(np.corrcoef(one, two)[0, 1])
    rho = float(reference.compare_matrices(a, b, "rho_a"))
    assert rho == pytest.approx(np.mean(breaks), abs=5 * np.std(breaks) / 4000**0.5)
    assert float(reference.compare_matrices(*ranks, "rho_a of ranks")) == rho


@pytest.mark.parametrize("compare", ["pearson", "cosine", "spearman", "kendall"])
@pytest.mark.parametrize("metrics", [*itertools.permutations(("dot", "correlation", "sqeuclidean", "manhattan"), 2)])
def test_each_side_has_its_own_metric_on_every_route(metrics, compare):
    x, y = draw(2, 12, 4), draw(3, 12, 5, seed=1)
    functions = {
        "pearson": lambda a, b: stats.pearsonr(a, b).statistic,
        "cosine": lambda a, b: a @ b / np.sqrt((a @ a) * (b @ b)),
        "spearman": lambda a, b: stats.spearmanr(a, b).statistic,
        "kendall": lambda a, b: stats.kendalltau(a, b).statistic,
    }
    first, second = ([entries(rows, metric) for rows in side] for side, metric in zip((x, y), metrics, strict=True))
    expected = [[functions[compare](a, b) for b in second] for a in first]
    routes = ["sampled"] if compare == "kendall" else ["exact"] if compare == "spearman" else ["exact", "tiles"]
    if "manhattan" not in metrics and compare in ("pearson", "cosine"):
        routes.append("linear")
    for route in routes:
        found = rdm_correlation(x, y, metric=metrics[0], metric_y=metrics[1], compare=compare, route=route)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-11, err_msg=route)


@pytest.mark.parametrize("route", ["linear", "tiles", "exact", "sampled"])
def test_layers_of_one_space_are_compared_with_one_another(route):
    x, compare = draw(3, 12, 4), "kendall" if route == "sampled" else "pearson"
    function = stats.kendalltau if route == "sampled" else stats.pearsonr
    matrices = [entries(rows, "sqeuclidean") for rows in x]
    expected = [[function(a, b).statistic for b in matrices] for a in matrices]
    options = {"metric": "sqeuclidean", "compare": compare, "route": route}
    np.testing.assert_allclose(rdm_correlation(x, **options).numpy(), expected, rtol=1e-9)
    for first, second in ((x, x[:0]), (x[:0], x), (x[:0], None)):
        found = rdm_correlation(first, second, **options)
        assert found.shape == (len(first), len(first if second is None else second))


def test_a_provisional_mean_is_that_of_the_first_rows_rounded_to_float32():
    x = draw(130, 3)
    rows = (x / x.norm(dim=1, keepdim=True)).numpy()
    for metric, given in (("cosine", rows), ("dot", x.numpy())):
        for options, n in (({}, 128), ({"rows": 5}, 5), ({"rows": 1000}, 130)):
            found = provisional_mean(x.requires_grad_(), metric, **options)
            expected = given[:n].mean(0)
            np.testing.assert_array_equal(found.numpy(), expected.astype(np.float32).astype(np.float64))
            assert not found.requires_grad
    assert provisional_mean(x[:0]).tolist() == [0.0, 0.0, 0.0]
    with pytest.raises(BertftError, match="provisional_mean: metric must be one of dot, cosine, correlation, sqeucl"):
        provisional_mean(x, "euclidean")


# Errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [linear_cka, lambda *given: rdm_correlation(*given, metric="dot", route="linear")])
@pytest.mark.parametrize("alone", [True, False])
def test_a_bad_row_is_named_wherever_it_is(call, alone):
    """Layers are compared in an order of their own: the name must not follow it."""
    sides = {"x": draw(3, 6, 2), "y": draw(2, 6, 3, seed=1)}
    if alone:
        del sides["y"]
    for side, rows in sides.items():
        for layer, row in itertools.product(range(len(rows)), (0, 5)):
            given = dict(sides)
            given[side] = rows.clone()
            given[side][layer, row, 1] = torch.inf
            with pytest.raises(BadRow) as caught:
                call(*given.values())
            bad = caught.value
            assert (bad.side, bad.layer, bad.row, bad.reason) == (side, layer, row, "not_finite")
            assert bad.op == ("linear_cka" if call is linear_cka else "rdm_correlation")


@pytest.mark.parametrize(("compare", "route"), [("pearson", "linear"), ("pearson", "tiles"), ("kendall", "sampled")])
def test_a_row_is_bad_by_the_metric_of_its_side(compare, route):
    sides = {"x": draw(2, 6, 3), "y": draw(2, 6, 3, seed=1)}
    for side, other in (("x", "y"), ("y", "x")):
        given = dict(sides)
        given[side] = sides[side].clone()
        given[side][1, 4] = 0
        options = {"compare": compare, "route": route}
        metric, metric_y = ("dot" if name == side else "cosine" for name in ("x", "y"))
        assert rdm_correlation(*given.values(), metric=metric, metric_y=metric_y, **options).isfinite().all()
        metric, metric_y = ("dot" if name == other else "cosine" for name in ("x", "y"))
        with pytest.raises(BadRow) as caught:
            rdm_correlation(*given.values(), metric=metric, metric_y=metric_y, **options)
        bad = caught.value
        assert (bad.side, bad.layer, bad.row, bad.reason) == (side, 1, 4, "no_norm")
        found = rdm_correlation(*given.values(), metric=metric, metric_y=metric_y, nan="propagate", **options)
        assert found.isnan().any() and not found.isnan().all()


def test_the_first_number_that_is_not_finite_is_named():
    good, result = torch.ones(2, 3, 4), torch.tensor([0.0, 1.0, torch.nan])
    words = {(0, 0, 0): "h[0, 0]", (1, 2, 3): "h[1, 2]", (1, 0, 1): "h[1, 0]"}
    for place, name in words.items():
        h = good.clone()
        h[place] = -torch.inf
        with pytest.raises(BertftError) as error:
            explain_not_finite("op", result, first=torch.ones(2, dtype=torch.int64), h=h, other=h[0])
        assert str(error.value) == f"op: {name} is not finite"
    h[1, 0, 2] = torch.nan  # another of the same row
    h[1, 1, 0] = torch.nan
    with pytest.raises(BertftError, match=r"^op: h\[1, 0\] is not finite \(and 1 more\)$"):
        explain_not_finite("op", result, h=h)
    for rows, name in ((h[1], r"h\[0\]"), (h[1, 0], r"h\[1\]")):
        with pytest.raises(BertftError, match=rf"^op: {name} is not finite \(and 1 more\)$"):
            explain_not_finite("op", result, h=rows)
    with pytest.raises(BertftError) as error:
        explain_not_finite("op", result, h=good)
    assert str(error.value) == "op: the result of layer 2 overflows torch.float32 although every input is finite"


GOOD = {
    "h": torch.zeros(2, 5, 4),
    "weight": torch.zeros(2, 4, 1),
    "distances": torch.zeros(13),
    "depths": torch.zeros(5),
    "lengths": torch.tensor([3, 0, 2]),
}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weight": torch.zeros(2, 4, 0)}, "weight must be (L, D, R) with R > 0, found (2, 4, 0)"),
        ({"h": torch.zeros(4)}, "h must be (T, 4) or (2, T, 4) to go with weight, found (4,)"),
        ({"h": torch.zeros(5, 5)}, "h must be (T, 4) or (2, T, 4) to go with weight, found (5, 5)"),
        ({"h": torch.zeros(1, 5, 4)}, "h must be (T, 4) or (2, T, 4) to go with weight, found (1, 5, 4)"),
        ({"h": torch.zeros(1, 2, 5, 4)}, "h must be (T, 4) or (2, T, 4) to go with weight, found (1, 2, 5, 4)"),
        ({"weight": torch.zeros(2, 4, 1).long()}, "h and weight must be floating, found torch.float32 and torch.int64"),
        ({"weight": torch.zeros(2, 4, 1, device="meta")}, "h and weight must be on one device, found cpu and meta"),
        ({"depths": torch.zeros(4)}, "depths must be (5,), one for each word, found (4,)"),
        ({"depths": torch.zeros(6)}, "depths must be (5,), one for each word, found (6,)"),
        ({"depths": torch.zeros(5, 1)}, "depths must be (5,), one for each word, found (5, 1)"),
        ({"distances": torch.zeros(12)}, "distances must have 13 entries (sum n^2), found 12"),
        ({"distances": torch.zeros(14)}, "distances must have 13 entries (sum n^2), found 14"),
        ({"lengths": torch.tensor([3, -1, 3])}, "lengths[1] is negative (-1)"),
        ({"lengths": torch.tensor([-1, 9, -3])}, "lengths[2] is negative (-3)"),
        ({"lengths": torch.tensor([3, 3])}, "lengths sum to 6, but h has 5 words"),
        ({"lengths": torch.tensor([4])}, "lengths sum to 4, but h has 5 words"),
        (
            {"lengths": torch.tensor([[5]])},
            "lengths must be a vector of integers on the CPU, found torch.int64 (1, 1) on cpu",
        ),
        (
            {"lengths": torch.tensor([5], device="meta")},
            "lengths must be a vector of integers on the CPU, found torch.int64 (1,) on meta",
        ),
    ],
)
def test_arguments_of_a_probe_that_do_not_fit_are_named(changed, message):
    with pytest.raises(BertftError) as error:
        check_probe(**(GOOD | changed))
    assert str(error.value) == f"probe_loss: {message}"


def test_arguments_of_a_probe_that_fit_pass():
    for changed in ({}, {"h": torch.zeros(5, 4)}, {"depths": None}, {"distances": None}):
        check_probe(**(GOOD | changed))
    nothing = {"h": torch.zeros(2, 0, 4), "depths": torch.zeros(0), "distances": torch.zeros(0)}
    for lengths in ([], [0, 0]):
        check_probe(**(GOOD | nothing | {"lengths": torch.tensor(lengths, dtype=torch.int64)}))


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ((3, 5, 4), (2, 5, 4), r"y must be \(3, 'M', 4\) to go with x, found \(2, 5, 4\)"),
        ((3, 5, 4), (5, 4), r"y must be \(3, 'M', 4\) to go with x, found \(5, 4\)"),
        ((3, 5, 4), (3, 5, 3), r"y must be \(3, 'M', 4\) to go with x, found \(3, 5, 3\)"),
        ((4,), None, r"x must be floating \(..., N, D\), found torch.float32 \(4,\)"),
        ((5, 4), (4,), r"y must be floating \(..., M, D\), found torch.float32 \(4,\)"),
    ],
)
def test_distances_of_shapes_that_do_not_fit_are_refused(x, y, message):
    with pytest.raises(BertftError, match=f"^pairwise_distance: {message}$"):
        pairwise_distance(torch.zeros(x), None if y is None else torch.zeros(y))
    assert pairwise_distance(torch.zeros(3, 5, 4), torch.zeros(3, 2, 4)).shape == (3, 5, 2)
    words = r"^pairwise_distance: cosine needs rows of at least one number, found x of shape \(5, 0\)$"
    with pytest.raises(BertftError, match=words):
        pairwise_distance(torch.zeros(5, 0), metric="cosine")
    with pytest.raises(BertftError, match=r"^pairwise_distance: condensed needs y=None, the pairs i < j of one set"):
        pairwise_distance(torch.zeros(5, 4), torch.zeros(2, 4), condensed=True)
    with pytest.raises(BertftError, match=r"^pairwise_distance: x and y must be on one device, found cpu and meta$"):
        pairwise_distance(torch.zeros(5, 4), torch.zeros(2, 4, device="meta"))


def test_each_side_is_refused_by_its_own_metric():
    empty, wide = torch.zeros(1, 4, 0), draw(1, 4, 3).float()
    with pytest.raises(BertftError, match=r"rdm_correlation: cosine needs rows of at least one number, found x of"):
        rdm_correlation(empty, wide, metric="cosine", metric_y="sqeuclidean")
    with pytest.raises(BertftError, match=r"rdm_correlation: cosine needs rows of at least one number, found y of"):
        rdm_correlation(wide, empty, metric="sqeuclidean", metric_y="cosine")
