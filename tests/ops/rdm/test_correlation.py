"""rdm_correlation: every comparison and route.

Against brute force: accuracy, gradients, compile and bad input.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist
from scipy.stats import kendalltau, pearsonr, rankdata, spearmanr

from bertft.errors import BertftError
from bertft.ops import rdm_correlation, reference
from bertft.ops.metrics import LINEAR, METRICS
from bertft.ops.native import cpu, dispatch
from bertft.ops.rdm.routes import costs

MOMENTS = ("pearson", "cosine")
RANKS = ("spearman", "rho_a")
FAKE = ("test_schema", "test_faketensor")


@pytest.fixture(autouse=True, scope="module")
def compiled():
    assert cpu.load(), cpu.status()["reason"]


def spaces(n, d=9, e=6, L=3, M=2, seed=0, dtype=torch.float32, shift=2.0):
    """Return two related spaces with a common mean."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(L, n, d, generator=generator) + shift
    y = torch.randn(M, n, e, generator=generator)
    y[..., : min(d, e)] += x[:1, :, :e]
    return x.to(dtype), y.to(dtype)


def rogue(n, d, seed=0):
    """Return vectors like an encoder's, with a large common mean and two huge dimensions."""
    generator = torch.Generator().manual_seed(seed)
    common = 3 * torch.randn(d, generator=generator)
    common[[1, 5]] = torch.tensor([60.0, -90.0])
    x = torch.randn(n, d, generator=generator)
    x[:, [1, 5]] *= 8
    y = x + 0.5 * torch.randn(n, d, generator=generator)
    return (x + common).unsqueeze(0), (y + common).unsqueeze(0)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("compare", [*MOMENTS, *RANKS])
@pytest.mark.parametrize("n", [3, 75])
def test_every_route_equals_brute_force(metric, compare, n):
    x, y = spaces(n)
    for other in (y, None):
        want = reference.rdm_correlation(x, other, metric=metric, compare=compare)
        routes = ["tiles", "exact"] + (["linear"] if compare in MOMENTS and metric in LINEAR else [])
        for route in routes:
            out, how = rdm_correlation(
                x, other, metric=metric, compare=compare, route=route, float64=True, return_route=True
            )
            assert how.name == route and how.dtype == torch.float64 and out.dtype == torch.float64
            assert (out - want).abs().max() <= 1e-11 + (how.error or 0)
            if compare in RANKS and route == "tiles":
                assert (out - want).abs().max() <= 1e-11 + how.bound
            if other is None:
                assert torch.equal(out, out.mT) and (out.diagonal() - 1).abs().max() < 1e-6
        low = rdm_correlation(x, other, metric=metric, compare=compare, route=routes[-1])
        assert (low - want).abs().max() <= (1e-5 if compare in MOMENTS else 1e-3)  # float32 may swap the order of two


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("route", ["linear", "tiles"])
def test_input_types(dtype, route):
    x, y = spaces(60, dtype=dtype)
    out, how = rdm_correlation(x, y, route=route, return_route=True)
    assert how.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert (out - reference.rdm_correlation(x, y)).abs().max() <= (1e-12 if dtype == torch.float64 else 1e-6)


def test_agrees_with_scipy():
    x, y = spaces(30, L=1, M=1, dtype=torch.float64)
    a, b = pdist(x[0], "correlation"), pdist(y[0], "correlation")
    for compare, want in (("pearson", pearsonr(a, b)), ("spearman", spearmanr(a, b)), ("kendall", kendalltau(a, b))):
        got = rdm_correlation(x, y, metric="correlation", compare=compare)
        assert abs(got.item() - want.statistic) < 1e-12


def test_ties_and_rho_a():
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 3, (1, 40, 3), generator=generator).double()
    y = torch.randint(0, 3, (1, 40, 3), generator=generator).double()
    a, b = pdist(x[0], "cityblock"), pdist(y[0], "cityblock")
    for route in ("tiles", "exact"):
        rho = rdm_correlation(x, y, metric="manhattan", compare="spearman", route=route)
        assert abs(rho.item() - spearmanr(a, b).statistic) < 1e-12
        r, s, n = rankdata(a), rankdata(b), len(a)
        want = 12 * (r @ s) / (n**3 - n) - 3 * (n + 1) / (n - 1)
        got = rdm_correlation(x, y, metric="manhattan", compare="rho_a", route=route)
        assert abs(got.item() - want) < 1e-12
    tau = rdm_correlation(x, y, metric="manhattan", compare="kendall")
    assert abs(tau.item() - kendalltau(a, b).statistic) < 1e-12


@pytest.mark.parametrize("metric", LINEAR)
def test_accuracy_with_a_large_mean_and_huge_dimensions(metric):
    x, y = rogue(1500, 256)
    want = reference.rdm_correlation(x, y, metric=metric)
    assert (rdm_correlation(x, y, metric=metric, route="linear") - want).abs().max() <= 1e-6
    assert (rdm_correlation(x, y, metric=metric, route="linear", float64=True) - want).abs().max() <= 1e-11
    assert (rdm_correlation(x, y, metric=metric, route="tiles") - want).abs().max() <= 1e-6


@pytest.mark.parametrize("metric", LINEAR)
def test_accuracy_on_isotropic_vectors(metric):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(
        1, 2000, 384, generator=generator
    )  # the width of a small encoder; rounding averages out over d^2 sums
    y = x + torch.randn(1, 2000, 384, generator=generator)
    want = reference.rdm_correlation(x, y, metric=metric)
    assert (rdm_correlation(x, y, metric=metric, route="linear") - want).abs().max() <= 1e-8
    assert (rdm_correlation(x, y, metric=metric, route="tiles") - want).abs().max() <= 1e-7


@pytest.mark.parametrize("layers", [1, 2])
def test_ranks_of_bins_stay_within_the_stated_error(layers):
    x, y = rogue(400, 40)
    x, y = x.repeat(layers, 1, 1), y.repeat(layers, 1, 1)
    out, how = rdm_correlation(x, y, compare="spearman", route="tiles", float64=True, return_route=True)
    want = spearmanr(pdist(x[0].double(), "cosine"), pdist(y[0].double(), "cosine")).statistic
    assert (out - want).abs().max() <= how.error <= how.bound
    assert how.bound < (2e-3 if layers == 1 else 3e-4) and how.error < 2e-5


def test_the_worst_case_of_equal_ranks_is_small():
    x, _ = rogue(60, 8)
    out, how = rdm_correlation(x, x.clone(), compare="spearman", route="tiles", return_route=True)
    assert out.item() == pytest.approx(1, abs=1e-9) and how.bound < 1e-5


def test_costs_count_the_products_of_both_routes():
    x, y = spaces(10, d=3, e=5, L=2, M=4)
    assert costs(x, y) == (10 * (2 * 9 + 4 * 25 + 2 * 2 * 4 * 3 * 5), 100 * (2 * 3 + 4 * 5 + 2 * 2 * 4))
    assert costs(x, None) == (10 * 2 * 2 * 9, 100 * (2 * 3 + 2 * 2))


def test_ranks_of_one_matrix_in_every_order_inside_bins():
    """The stated worst case holds if one side depends on the order inside the other's bins."""
    t = torch.linspace(0, 1, 300, dtype=torch.float64)
    x = torch.stack([t, t * t], 1)[None]
    y = torch.stack([torch.sin(800 * t), t], 1)[None]
    out, how = rdm_correlation(x, y, metric="euclidean", compare="spearman", route="tiles", return_route=True)
    want = reference.rdm_correlation(x, y, metric="euclidean", compare="spearman")
    assert (out - want).abs().max() <= how.bound


def test_sampled_kendall_reports_its_pairs_and_error():
    x, y = spaces(200)
    out, how = rdm_correlation(x, y, compare="kendall", samples=5000, seed=3, return_route=True)
    exact, whole = rdm_correlation(x, y, compare="kendall", return_route=True)
    assert (how.name, how.pairs, whole.pairs, whole.error) == ("sampled", 5000, 19900, 0.0)
    assert (out - exact).abs().max() < 5 * how.error
    assert torch.equal(out, rdm_correlation(x, y, compare="kendall", samples=5000, seed=3))
    with pytest.raises(BertftError, match="samples must be at least 2"):
        rdm_correlation(x, y, compare="kendall", samples=1)


def test_route_by_cost():
    x, y = spaces(50, d=300, e=300)
    assert rdm_correlation(x, y, return_route=True)[1].name == "tiles"
    x, y = spaces(400, d=4, e=4)
    how = rdm_correlation(x, y, return_route=True)[1]
    assert how.name == "linear" and how.linear < how.tiles and "operations" in how.reason
    assert rdm_correlation(x, y, metric="euclidean", return_route=True)[1].reason == "no linear form"
    assert rdm_correlation(x, y, compare="spearman", return_route=True)[1].name == "exact"
    assert rdm_correlation(x, y, compare="spearman", route="tiles", return_route=True)[1].error is not None


@pytest.mark.parametrize("metric", LINEAR)
@pytest.mark.parametrize("compare", MOMENTS)
def test_gradcheck(metric, compare):
    x, y = spaces(6, d=3, e=4, L=2, M=1, dtype=torch.float64)
    x, y = x.requires_grad_(), y.requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: rdm_correlation(x, y, metric=metric, compare=compare), (x, y))
    assert torch.autograd.gradcheck(lambda x: rdm_correlation(x, metric=metric, compare=compare), x)


def test_gradient_in_float32():
    x, y = rogue(200, 24)
    exact = x.double().requires_grad_()
    (want,) = torch.autograd.grad(reference.rdm_correlation(exact, y.double()).sum(), exact)
    x = x.requires_grad_()
    (got,) = torch.autograd.grad(rdm_correlation(x, y).sum(), x)
    assert (got - want).abs().max() <= 1e-4 * want.abs().max()


def test_opcheck_and_compile():
    x, y = spaces(30)
    for args in ((x, y, 1, 4, False, False, True), (x, None, 0, 0, True, True, False)):
        torch.library.opcheck(torch.ops.bertft.rdm_moments, args)
    for metric in range(len(METRICS)):
        torch.library.opcheck(torch.ops.bertft.rdm_moments, (x, y, metric, metric, False, False, True), test_utils=FAKE)
    for route in ("linear", "tiles"):
        graph = torch.compile(lambda x, y, r=route: rdm_correlation(x, y, route=r), fullgraph=True, backend="aot_eager")
        assert torch.allclose(graph(x, y), rdm_correlation(x, y, route=route), rtol=1e-12)


def test_compiled_gradient_of_the_linear_route():
    x, y = spaces(30, L=1, M=1, dtype=torch.float64)
    x.requires_grad_()
    loss = lambda x: rdm_correlation(x, y, route="linear").sum()
    graph = torch.compile(loss, fullgraph=True, backend="aot_eager")
    got, want = (torch.autograd.grad(f(x), x)[0] for f in (graph, loss))
    assert torch.allclose(got, want, rtol=1e-11, atol=1e-14)


def test_strides_small_inputs_and_threads():
    x, y = spaces(90)
    assert torch.equal(rdm_correlation(x.mT.contiguous().mT, y), rdm_correlation(x, y))
    assert torch.equal(rdm_correlation(x[:, ::3], y[:, ::3]), rdm_correlation(x[:, ::3].clone(), y[:, ::3].clone()))
    for route in ("linear", "tiles"):
        assert rdm_correlation(x[:0], y, route=route).shape == (0, 2)
        assert rdm_correlation(x[:, :1], y[:, :1], route=route).isnan().all()
        assert rdm_correlation(torch.ones(1, 5, 3), route=route, metric="sqeuclidean").isnan().all()
    before = torch.get_num_threads()
    try:
        results = {}
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            now = [rdm_correlation(x, y, metric="euclidean"), rdm_correlation(x, y, compare="spearman", route="tiles")]
            if threads in results:
                assert all(torch.equal(a, b) for a, b in zip(now, results[threads], strict=True))
            results[threads] = now
    finally:
        torch.set_num_threads(before)


def test_invariances():
    x, y = spaces(50, L=1, M=1, dtype=torch.float64)
    turn, _ = torch.linalg.qr(torch.randn(9, 9, generator=torch.Generator().manual_seed(4), dtype=torch.float64))
    base = rdm_correlation(x, y)
    assert torch.allclose(rdm_correlation(5 * x @ turn, y), base, atol=1e-12)  # cosine: rotation and scale
    order = torch.randperm(50, generator=torch.Generator().manual_seed(5))
    assert torch.allclose(rdm_correlation(x[:, order], y[:, order]), base, atol=1e-12)
    moved = rdm_correlation(x + 7, y, metric="sqeuclidean")
    assert torch.allclose(moved, rdm_correlation(x, y, metric="sqeuclidean"), atol=1e-12)
    mixed = rdm_correlation(x, x, metric="dot", metric_y="cosine")
    assert mixed.item() < 0  # a similarity beside a distance keeps its sign
    assert torch.allclose(rdm_correlation(x, y).mT, rdm_correlation(y, x), atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(2, 30),
    layers=st.tuples(st.integers(1, 4), st.one_of(st.none(), st.integers(1, 4))),
    dims=st.tuples(st.integers(2, 12), st.integers(2, 12)),
    metric=st.sampled_from(METRICS),
    compare=st.sampled_from([*MOMENTS, *RANKS]),
    bad=st.sampled_from([None, None, float("nan"), float("inf"), 0.0]),
    seed=st.integers(0, 99),
)
def test_fuzz_tiles_against_reference(n, layers, dims, metric, compare, bad, seed):
    x, y = spaces(n, *dims, L=layers[0], M=layers[1] or 1, seed=seed, dtype=torch.float64)
    y = None if layers[1] is None else y
    call = {"metric": metric, "compare": compare}
    if bad is not None:
        x[-1, n // 2] = bad
        if bad != 0 or metric in ("cosine", "correlation"):
            with pytest.raises(BertftError, match=f"row {n // 2} of x in layer {layers[0] - 1}"):
                rdm_correlation(x, y, route="tiles", **call)
            return
    got, how = rdm_correlation(x, y, route="tiles", return_route=True, **call)
    want = reference.rdm_correlation(x, y, **call)
    assert got.shape == want.shape
    defined = ~want.isnan() & (n > 3)  # one or three pairs may be constant up to rounding
    assert ((got - want).abs()[defined] <= 1e-9 + (how.bound or 0)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "l1"}, "metric must be one of"),
        ({"compare": "tau"}, "compare must be one of pearson, cosine, spearman, rho_a, kendall, not 'tau'"),
        ({"route": "fast"}, "route must be one of auto, linear, tiles, exact, sampled"),
        ({"route": "linear", "metric": "euclidean"}, "route='linear' does not support pearson of euclidean"),
        ({"route": "sampled"}, "route='sampled' does not support pearson"),
        ({"x": torch.zeros(4, 3)}, r"x must be floating \(L, N, D\)"),
        ({"y": torch.ones(1, 5, 3)}, "found 4 on cpu and 5 on cpu"),
        ({"y": None, "metric_y": "dot"}, "metric_y needs y"),
        ({"y": torch.zeros(1, 4, 3)}, "rdm_correlation: row 0 of y in layer 0 has norm 0"),
        (
            {"x": torch.full((2, 4, 3), float("nan")), "metric": "dot"},
            "rdm_correlation: row 0 of x in layer 0 holds NaN",
        ),
        ({"nan": "x"}, "nan must be"),
    ],
)
@pytest.mark.parametrize("compare", ["pearson", "spearman", "kendall"])
def test_bad_input(change, message, compare):
    generator = torch.Generator().manual_seed(0)
    good = {"x": torch.randn(2, 4, 3, generator=generator), "y": torch.randn(1, 4, 3, generator=generator)}
    call = good | {"compare": compare} | change
    if compare != "pearson" and "route" in change:
        pytest.skip("the message is about pearson")
    with pytest.raises(BertftError, match=message):
        rdm_correlation(call.pop("x"), call.pop("y"), **call)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("compare", [*MOMENTS, *RANKS])
def test_without_a_kernel(metric, compare, monkeypatch):
    """Moments take strips of rows and ranks two matrices at a time; all matrices are never in memory."""
    monkeypatch.setattr(dispatch, "serves", lambda tensor: False)
    held = []
    made = "pairwise_distance" if compare in RANKS else "between_rows"
    plain = getattr(reference, made)
    monkeypatch.setattr(reference, made, lambda *a, **k: held.append(plain(*a, **k)) or held[-1])
    monkeypatch.setattr(reference.rdm_moments, "__kwdefaults__", {"numbers": 5 * 60 * 7})
    x, y = spaces(60)
    for other in (y, None):
        call = {"metric": metric, "compare": compare}
        held.clear()
        out, how = rdm_correlation(x, other, route="tiles", return_route=True, **call)
        assert how.name == ("exact" if compare in RANKS else "tiles")
        largest = 60 * 59 // 2 if compare in RANKS else 2 * 5 * 60 * 7
        assert 0 < max(t.numel() for t in held) <= largest
        if compare in RANKS:
            assert len(held) == (3 + 3 * 2 if other is not None else 3 + 3)  # L + L M; the diagonal reuses a matrix
            held.clear()
            rdm_correlation(x, other, route="exact", **call)
            assert len(held) == (3 + 2 if other is not None else 3)
        want = reference.rdm_correlation(x, other, **call)
        assert (out - want).abs().max() <= (1e-4 if compare in RANKS else 1e-12)  # float32 may swap the order of two
        if other is None:
            assert torch.equal(out, out.mT)
    assert rdm_correlation(x[:0], y, route="tiles", **call).shape == (0, 2)
    assert rdm_correlation(x[:, :1], y[:, :1], route="tiles", **call).isnan().all()
    bad = y.clone()
    bad[1, 7, 2] = torch.nan
    out = rdm_correlation(x, bad, route="tiles", nan="propagate", **call)
    assert out[:, 1].isnan().all() and not out[:, 0].isnan().any()
    with pytest.raises(BertftError, match="rdm_correlation: row 7 of y in layer 1 holds NaN"):
        rdm_correlation(x, bad, route="tiles", **call)


def test_routes_without_a_gradient_refuse_one():
    x, y = spaces(10)
    with pytest.raises(BertftError, match="has no gradient"):
        rdm_correlation(x.requires_grad_(), y, metric="euclidean")
    with torch.no_grad():
        rdm_correlation(x, y, metric="euclidean")


def test_nan_may_pass():
    x, y = spaces(20)
    x[1, 3, 2] = float("nan")
    for compare in ("pearson", "spearman", "kendall"):
        for route in ("auto", *(("linear", "tiles") if compare == "pearson" else ())):
            out = rdm_correlation(x, y, compare=compare, route=route, nan="propagate")
            assert out[1].isnan().all() and not out[[0, 2]].isnan().any()


@pytest.mark.parametrize(("compare", "route"), [("pearson", "linear"), ("cosine", "tiles"), ("spearman", "tiles")])
def test_vectors_without_dimensions_have_constant_matrices(compare, route):
    x, y = torch.empty(2, 20, 0), torch.empty(3, 20, 0)
    assert rdm_correlation(x, y, metric="sqeuclidean", compare=compare, route=route).isnan().all()
    with pytest.raises(BertftError, match=r"cosine needs rows of at least one number, found x of shape \(2, 20, 0\)"):
        rdm_correlation(x, y, metric="cosine", compare=compare, route=route)


@pytest.mark.parametrize("stimuli", [0, 1])
@pytest.mark.parametrize("compare", [*MOMENTS, *RANKS])
def test_fewer_than_two_stimuli_have_no_correlation(compare, stimuli):
    out = rdm_correlation(torch.ones(2, stimuli, 4), torch.ones(3, stimuli, 4), compare=compare, route="tiles")
    assert out.shape == (2, 3)
    assert out.isnan().all()
