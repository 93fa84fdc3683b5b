"""Ops inside ``torch.autocast``.

Values and gradients equal those outside, by kernel and by reference.
"""

from __future__ import annotations

import pytest
import torch

from bertft import ops
from bertft.ops.native import dispatch


def draw(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def moments(x, y):
    means = ops.provisional_mean(x[0]), ops.provisional_mean(y[0])
    return tuple(ops.cross_moments(x[0], y[0], mean_x=means[0], mean_y=means[1]))


def probe(name):
    lengths = torch.tensor([9, 0, 31])
    golds = {"distance_probe_loss": torch.arange(9 * 9 + 31 * 31) % 7, "depth_probe_loss": torch.arange(40) % 5}
    return lambda h, weight: getattr(ops, name)(h, weight.mT[..., :11], golds[name], lengths)


OPS = {
    "pairwise_distance of one": lambda x, y: ops.pairwise_distance(x, metric="euclidean"),
    "pairwise_distance of two": lambda x, y: ops.pairwise_distance(x, y, metric="cosine"),
    "rdm_correlation": lambda x, y: ops.rdm_correlation(x, y, route="linear"),
    "linear_cka": lambda x, y: ops.linear_cka(x, y),
    "cross_moments": moments,
    "distance_probe_loss": probe("distance_probe_loss"),
    "depth_probe_loss": probe("depth_probe_loss"),
}


def run(op, x, y, cast_backward):
    """Return (outputs, gradients) of an op whose backward pass runs inside or outside of autocast."""
    x, y = x.clone().requires_grad_(), y.clone().requires_grad_()
    out = op(x, y)
    out = out if isinstance(out, tuple) else (out,)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=cast_backward):
        slopes = [draw(*t.shape, seed=5).to(t.dtype) for t in out]
        return [t.detach() for t in out], torch.autograd.grad(out, (x, y), slopes, allow_unused=True)


@pytest.mark.parametrize("served", [True, False], ids=["kernel", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("name", OPS)
def test_autocast_changes_no_value_and_no_gradient(name, dtype, served, monkeypatch):
    if not served:
        monkeypatch.setattr(dispatch, "serves", lambda tensor: False)
    x, y = draw(2, 40, 24, dtype=dtype), draw(2, 40, 24, seed=1, dtype=dtype)
    out, grads = run(OPS[name], x, y, cast_backward=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (x.float() @ y.float().mT).dtype == torch.bfloat16  # autocast rounds products of plain PyTorch
        inside, inside_grads = run(OPS[name], x, y, cast_backward=True)
    _, later_grads = run(OPS[name], x, y, cast_backward=True)
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(inside, out, strict=True))
    assert all(t.dtype in (torch.float32, torch.float64) for t in out)
    assert any(g is not None and g.abs().max() > 0 for g in grads)
    for some in (inside_grads, later_grads):
        for got, want in zip(some, grads, strict=True):
            assert got is want is None or (torch.equal(got, want) and got.dtype == dtype)


@pytest.mark.parametrize("served", [True, False], ids=["kernel", "reference"])
@pytest.mark.parametrize("compare", ["pearson", "spearman", "kendall"])
def test_comparisons_without_gradient(compare, served, monkeypatch):
    if not served:
        monkeypatch.setattr(dispatch, "serves", lambda tensor: False)
    x, y = draw(2, 30, 12), draw(2, 30, 12, seed=1)
    call = {"metric": "euclidean", "compare": compare, "samples": 300}
    outside = ops.rdm_correlation(x, y, **call)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(ops.rdm_correlation(x, y, **call), outside)


@pytest.mark.parametrize("served", [True, False], ids=["kernel", "reference"])
def test_probe_step_without_autograd(served, monkeypatch):
    if not served:
        monkeypatch.setattr(dispatch, "serves", lambda tensor: False)
    h, weight, lengths = draw(2, 40, 24), draw(2, 24, 7, seed=1), torch.tensor([9, 31])
    distances = torch.arange(9 * 9 + 31 * 31) % 7
    outside = ops.probe_loss_and_gradient(h, weight, distances, None, lengths)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = ops.probe_loss_and_gradient(h, weight, distances, None, lengths)
    assert all(torch.equal(a, b) for a, b in zip(inside, outside, strict=True))


def test_inputs_rounded_by_autocast_are_used_unchanged():
    lengths, weight = torch.tensor([9, 4]), draw(2, 19, 7, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        h = draw(2, 13, 19) @ torch.eye(19)
        found = ops.distance_probe_loss(h, weight, torch.arange(97) % 7, lengths)
    assert h.dtype == torch.bfloat16 and found.dtype == torch.float32
    exact = ops.distance_probe_loss(h.double(), weight, torch.arange(97) % 7, lengths)
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=1e-6)
