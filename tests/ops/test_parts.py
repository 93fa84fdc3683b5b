"""Products by float16 parts, as a GPU without a compiler takes them.

A library's product with float32 sums is emulated in float32, where products of halves are exact.
"""

from __future__ import annotations

import pytest
import torch

from bertft.errors import BertftError
from bertft.ops import pairwise_distance, parts, rdm_correlation, reference
from bertft.ops.rdm.products import rdm_moments

METRICS = ("dot", "cosine", "correlation", "sqeuclidean", "euclidean")


@pytest.fixture(autouse=True)
def emulated(monkeypatch):
    def times(a, b):
        assert a.dtype == b.dtype == torch.float16
        return a.float() @ b.float()

    monkeypatch.setattr(parts, "times", times)


def rows(layers=1, n=130, d=192, seed=0, *, spread):
    """Return rows with a large mean in two dimensions (rogue), which may also vary 30 and 60 times as much (spread)."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(layers, n, d, generator=draw)
    x[..., 3] = x[..., 3] * (30 if spread else 1) + 40
    x[..., d // 2] = x[..., d // 2] * (60 if spread else 1) - 25
    return x + torch.randn(d, generator=draw)


@pytest.mark.parametrize("spread", [False, True])
@pytest.mark.parametrize("metric", METRICS)
def test_distances(metric, spread):
    """Within 5e-7 of the largest, as the model of the cores has it for columns in ascending order; fast 2e-3."""
    x, y = rows(2, 300, spread=spread), rows(2, 40, seed=1, spread=spread)
    for other in (None, y):
        exact = reference.pairwise_distance(x.double(), None if other is None else other.double(), metric=metric)
        for fast, bound in ((False, 5e-7), (True, 2e-3)):
            found = parts.distance(x, other, metric, condensed=False, fast=fast)
            assert found.dtype == torch.float32
            error = float((found - exact).abs().max() / exact.abs().max())
            assert error <= bound
            assert not fast or error > 1e-6
    condensed = parts.distance(x, None, metric, condensed=True)
    whole = parts.distance(x, None, metric, condensed=False)
    assert torch.equal(whole, whole.mT)
    assert torch.equal(condensed, reference.condense(whole))
    assert metric == "dot" or not whole.diagonal(dim1=1, dim2=2).any()


def test_blocks_of_rows_make_no_difference(monkeypatch):
    x = rows(1, 70, spread=False)
    whole = parts.distance(x, None, "cosine", condensed=False)
    monkeypatch.setattr(parts, "BLOCK", 30)
    torch.testing.assert_close(parts.distance(x, None, "cosine", condensed=False), whole, rtol=0, atol=1e-7)


def test_near_rows_keep_their_digits():
    x = rows(1, 40, spread=True)
    x[0, 20], x[0, 21] = x[0, 3], x[0, 4] + 1e-3
    exact = reference.pairwise_distance(x.double(), metric="sqeuclidean")
    for fast in (False, True):
        found = parts.distance(x, None, "sqeuclidean", condensed=False, fast=fast)
        assert found[0, 3, 20] == found[0, 20, 3] == 0
        assert abs(found[0, 4, 21] / exact[0, 4, 21] - 1) < 1e-5


@pytest.mark.parametrize("factor", [1e-17, 1e17])
def test_any_range_of_values(factor):
    x = rows(1, 40, spread=False) * factor
    exact = reference.pairwise_distance(x.double(), metric="euclidean")
    found = parts.distance(x, None, "euclidean", condensed=False)
    assert (found - exact).abs().max() <= 5e-7 * exact.max()


def test_rows_that_are_not_finite_stay_alone():
    x = rows(1, 20, spread=False)
    x[0, 4, 2], x[0, 7, 1] = float("nan"), float("inf")
    found = parts.distance(x, None, "sqeuclidean", condensed=False)
    good = [i for i in range(20) if i not in (4, 7)]
    exact = reference.pairwise_distance(x[:, good].double(), metric="sqeuclidean")
    assert (found[:, good][:, :, good] - exact).abs().max() <= 5e-7 * exact.max()
    assert not found[0, 4, good].isfinite().any()


@pytest.mark.parametrize("spread", [False, True])
@pytest.mark.parametrize("metric", METRICS)
def test_correlations(metric, spread, monkeypatch):
    """Within 5e-8, the error of products that stay in the cores by their model; fast within 3e-3 / n."""
    n = 150
    x, y = rows(2, n, spread=spread), rows(1, n, 100, seed=1, spread=spread)
    y = y + x[:1, :, :100]
    exact = reference.rdm_correlation(x, y, metric=metric)
    monkeypatch.setattr(parts, "serve", lambda x, y=None: True)
    for fast, bound in ((False, 5e-8), (True, 3e-3 / n)):
        sums, products, _ = rdm_moments(x, y, metric, metric, torch.float32, check=True, size=1 << 18, fast=fast)
        pairs = n * (n - 1) / 2
        covariance = products - torch.outer(sums, sums) / pairs
        found = covariance / torch.outer(covariance.diagonal().sqrt(), covariance.diagonal().sqrt())
        error = (found[:2, 2:] - exact).abs().max()
        assert error <= bound
        assert not fast or error > 1e-9


def test_ops_take_this_way_where_it_serves(monkeypatch):
    """Without a kernel; a gradient goes over the reference."""
    from bertft.ops.native import dispatch

    x, seen = rows(1, 30, spread=False), []
    monkeypatch.setattr(dispatch, "serves", lambda tensor: False)
    monkeypatch.setattr(parts, "serve", lambda x, y=None: seen.append(x.shape) or True)
    found = pairwise_distance(x, metric="cosine", precision="fast")
    assert torch.equal(found, parts.distance(x, None, "cosine", condensed=False, fast=True))
    assert rdm_correlation(x, route="tiles", precision="fast", return_route=True)[1].fast
    asked = len(seen)
    pairwise_distance(x.clone().requires_grad_(), metric="cosine").sum().backward()
    pairwise_distance(x, metric="manhattan")
    assert len(seen) == asked


def test_the_cpu_is_not_served_and_names_are_checked(monkeypatch):
    x = rows(spread=False)
    assert not parts.serve(x)
    fake = torch.empty(1, 300, 128, device="meta")
    monkeypatch.setattr(torch.Tensor, "is_cuda", True, raising=False)
    monkeypatch.setattr(parts.dispatch, "serves", lambda tensor: False)
    monkeypatch.setattr(parts, "rate", lambda device: 8.0)
    monkeypatch.delenv("BERTFT_CORE", raising=False)
    assert parts.serve(fake)
    assert parts.serve(fake, fake)
    for other in (fake.double(), fake[:, :200], fake[..., :32], torch.empty(1, 300, 2048, device="meta")):
        assert not parts.serve(fake, other)
    monkeypatch.setattr(parts, "rate", lambda device: 2.0)
    assert not parts.serve(fake)
    monkeypatch.setenv("BERTFT_CORE", "split")
    assert parts.serve(fake)
    monkeypatch.setenv("BERTFT_CORE", "plain")
    assert not parts.serve(fake)
    monkeypatch.setenv("BERTFT_CORE", "fast")
    with pytest.raises(BertftError, match="BERTFT_CORE must be split or plain, not fast"):
        parts.serve(fake)


def test_columns_ascend_by_variance_and_parts_hold_the_rows():
    u = rows(1, 50, spread=True)[0].double()
    u -= u.mean(0)
    order = parts.ascending(u)
    assert (u[:, order].square().sum(0).diff() >= 0).all()
    w, scale = parts.halves(u, order)
    hi, lo, *again = (part.double() * scale[:, None] for part in w.split(u.shape[1], dim=1))
    assert torch.equal(again[0], hi) and torch.equal(again[1], hi)
    assert ((hi + lo - u[:, order]).abs() <= (2.0**-22 * u[:, order].abs()).clamp(min=2.0**-37 * u.abs().max())).all()


def test_no_layers_have_no_distances():
    nothing = torch.zeros(0, 3, 4)
    assert parts.distance(nothing, None, "sqeuclidean", condensed=False).shape == (0, 3, 3)
    assert parts.distance(nothing, torch.zeros(0, 2, 4), "dot", condensed=False).shape == (0, 3, 2)
