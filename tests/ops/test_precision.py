"""Precisions of the ops: names, what each equals on the CPU, and the errors that docstrings state.

Errors of ``fast`` on tensor cores are those of tests/cuda_on_cpu/test_fast_products.py.
"""

from __future__ import annotations

import pytest
import torch

from bertft.errors import BertftError
from bertft.ops import (
    cross_moments,
    linear_cka,
    pairwise_distance,
    pairwise_gradient,
    provisional_mean,
    rdm_correlation,
    reference,
)
from bertft.ops import tensor_cores as cores
from bertft.ops.metrics import METRICS
from bertft.ops.moments.formulas import cka_from_moments, rsa_from_moments
from bertft.ops.moments.layout import Moments
from bertft.ops.native import cpu
from bertft.ops.precision import PRECISIONS, check_precision, rsa_error
from bertft.ops.rows import metric_rows_backward


@pytest.fixture(autouse=True, scope="module")
def compiled():
    assert cpu.load(), cpu.status()["reason"]


def rows(layers=2, n=90, d=160, seed=0, spread=False):
    """Return rows (layers, n, d) with a common mean, and two dimensions that vary much more where asked."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(layers, n, d, generator=draw)
    if spread:
        x[..., 3], x[..., d // 2] = x[..., 3] * 30, x[..., d // 2] * 60
    return x + 2 * torch.randn(d, generator=draw)


def moments(x, y, **options):
    means = {"mean_x": provisional_mean(x), "mean_y": provisional_mean(y)}
    return cross_moments(x, y, **means, **options)


OPS = {
    "pairwise_distance": lambda x, y, **options: pairwise_distance(x, y, **options),
    "rdm_correlation": lambda x, y, **options: rdm_correlation(x, y, **options),
    "linear_cka": lambda x, y, **options: linear_cka(x, y, **options),
    "cross_moments": lambda x, y, **options: moments(x[0], y[0], **options).cross,
}


@pytest.mark.parametrize("op", OPS)
def test_float32_is_the_default_and_fast_equals_it_on_the_cpu(op):
    x, y = rows(), rows(seed=1)
    default = OPS[op](x, y)
    assert torch.equal(OPS[op](x, y, precision="float32"), default)
    assert torch.equal(OPS[op](x, y, precision="fast"), default)


@pytest.mark.parametrize("op", OPS)
def test_float64_is_that_of_float64_input(op):
    x, y = rows(), rows(seed=1)
    found = OPS[op](x, y, precision="float64")
    assert found.dtype == torch.float64
    wide = OPS[op](x.double(), y.double()) if op != "cross_moments" else OPS[op](x, y, float64=True)
    assert torch.equal(found, wide)


@pytest.mark.parametrize("op", OPS)
def test_unknown_precisions_are_refused(op):
    x, y = rows(), rows(seed=1)
    with pytest.raises(BertftError, match=f"{op}: precision must be one of float32, fast, float64, not 'half'"):
        OPS[op](x, y, precision="half")
    if op != "pairwise_distance":
        with pytest.raises(BertftError, match=f"{op}: float64=True contradicts precision='fast'"):
            OPS[op](x, y, precision="fast", float64=True)


def test_float64_is_an_older_name():
    assert [check_precision(p, op="op") for p in PRECISIONS] == list(PRECISIONS)
    assert check_precision("float32", op="op", float64=True) == "float64"


@pytest.mark.parametrize("spread", [False, True])
@pytest.mark.parametrize(("precision", "distance", "gradient"), [("float32", 1e-6, 1e-6), ("float64", 1e-14, 1e-13)])
def test_distances_and_gradients_err_as_stated(precision, distance, gradient, spread):
    x = rows(spread=spread)
    for metric in METRICS:
        leaf, exact = x.clone().requires_grad_(), x.double().requires_grad_()
        out, want = (
            pairwise_distance(leaf, metric=metric, precision=precision),
            reference.pairwise_distance(exact, metric=metric),
        )
        assert (out - want).abs().max() <= distance * want.abs().max()
        weight = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view(out.shape)
        (got,) = torch.autograd.grad(out, leaf, weight.to(out.dtype))
        (slope,) = torch.autograd.grad(want, exact, weight)
        assert got.dtype == torch.float32
        assert (got - slope).abs().max() <= max(gradient, 6e-8) * slope.abs().max()


@pytest.mark.parametrize("spread", [False, True])
@pytest.mark.parametrize(("precision", "error"), [("float32", 1e-6), ("float64", 1e-11)])
def test_correlations_err_as_stated(precision, error, spread):
    x, y = rows(spread=spread), rows(seed=1, spread=spread)
    for compare in ("pearson", "cosine"):
        want = reference.rdm_correlation(x, y, compare=compare)
        for route, bound in (("tiles", max(error / 10, 1e-11)), ("linear", error)):
            found = rdm_correlation(x, y, compare=compare, route=route, precision=precision)
            assert (found - want).abs().max() <= bound


@pytest.mark.parametrize(("precision", "error"), [("float32", 1e-6), ("float64", 1e-13)])
def test_sums_err_as_stated(precision, error):
    x, y = rows(1, 3000)[0], rows(1, 3000, seed=1)[0]
    found = moments(x, y, precision=precision)
    exact = reference.cross_moments(x.double(), y.double(), provisional_mean(x), provisional_mean(y), *["cosine"] * 2)
    for name in ("gram_x", "cross", "gram_y"):
        want = exact[found._fields.index(name)]
        assert (getattr(found, name) - want).abs().max() <= error * want.abs().max()


def test_a_fast_route_states_its_error(monkeypatch):
    """Where tensor cores serve: here they are only said to."""
    x, y = rows(), rows(seed=1)
    call = {"precision": "fast", "return_route": True}
    assert rdm_correlation(x, y, **call)[1].error is None
    monkeypatch.setattr(cores, "serve", lambda x, y=None: True)
    for route in ("tiles", "linear"):
        how = rdm_correlation(x, y, route=route, **call)[1]
        assert (how.fast, how.error) == (True, 3e-3 / 90 if route == "tiles" else 5e-4 / 90**0.5)
    for others in ({"metric": "manhattan"}, {"precision": "float32"}, {"compare": "kendall", "samples": 10}):
        how = rdm_correlation(x, y, **(call | others))[1]
        assert not how.fast
    assert not rdm_correlation(x.double(), y, **call)[1].fast


@pytest.mark.parametrize("spread", [False, True])
def test_statistics_of_fast_sums_err_as_stated(spread):
    """Rows rounded as csrc/cuda/split_moments.cu has it (a test of the CUDA sources: to the bit); other sums exact."""

    def rounded(u):
        power = 2.0 ** (13 - u.abs().max().log2().floor())
        return (u.float().double() * power).half().double() / power

    n, metric = 200, "cosine"
    x, y = (side[0].double() for side in (rows(1, n, 64, spread=spread), rows(1, n, 64, seed=1, spread=spread)))
    y = x + y
    means = provisional_mean(x), provisional_mean(y)
    exact = Moments(*reference.cross_moments(x, y, *means, metric, metric))
    u, v = (rounded(reference.prepared_rows(t, m, metric)[0]) for t, m in zip((x, y), means, strict=True))
    fast = exact._replace(gram_x=u.mT @ u, cross=u.mT @ v, gram_y=v.mT @ v)
    for name in ("gram_x", "cross", "gram_y"):
        want = getattr(exact, name)
        assert (getattr(fast, name) - want).abs().max() <= 4e-3 / n**0.5 * want.abs().max()
    for statistic in (rsa_from_moments, cka_from_moments):
        assert 1e-9 < (statistic(fast) - statistic(exact)).abs() <= rsa_error(n, linear=True)


@pytest.mark.parametrize("spread", [False, True])
@pytest.mark.parametrize("metric", ["dot", "cosine", "correlation", "sqeuclidean", "euclidean"])
def test_gradients_of_fast_distances_err_as_stated(metric, spread, monkeypatch):
    """Weights and columns rounded as csrc/cuda/split_gradient.cu has it (to the bit: a test of the CUDA sources)."""
    asked = []

    def rounded(t, dim):
        power = 2.0 ** (13 - t.abs().amax(dim, keepdim=True).log2().floor())
        return (t * power).half().double() / power

    def split_gradient(grad, x, y, out, code, condensed, fast):
        asked.append(fast)
        u = reference.metric_rows(x.double(), metric)
        slope = grad.double() * {"sqeuclidean": 2, "euclidean": 1 / out.double().clamp(min=1e-30)}.get(metric, 1)
        w = slope + slope.mT
        if metric == "dot":
            return (rounded(w, 2) @ rounded(u, 1)).float(), None
        u, w = u - u.mean(1, keepdim=True), w * (1 - torch.eye(w.shape[1]))
        return (w.sum(2, keepdim=True) * u - rounded(w, 2) @ rounded(u, 1)).float(), None

    monkeypatch.setattr(pairwise_gradient, "serve", lambda x, y=None: True)
    monkeypatch.setattr(torch.ops.bertft, "split_gradient", split_gradient, raising=False)
    x = rows(1, 200, 192, spread=spread)
    out = reference.pairwise_distance(x, metric=metric)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(3))
    exact = x.double().requires_grad_()
    (want,) = torch.autograd.grad(reference.pairwise_distance(exact, metric=metric), exact, weight.double())
    found, _ = pairwise_gradient.gradients(weight, x, None, out, metric, fast=True)
    error = (metric_rows_backward(x, found, metric) - want).abs().max() / want.abs().max()
    assert asked == [True]
    assert 1e-6 < error <= 1e-3
