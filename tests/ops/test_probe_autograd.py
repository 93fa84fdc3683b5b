"""Gradients of structural-probe losses in unusual graphs, and their precision."""

from __future__ import annotations

import pytest
import torch
from probe_problems import brute_force, leaves, problem

from bertft.errors import BertftError
from bertft.ops import depth_probe_loss, distance_probe_loss, probe_loss
from bertft.ops.native import cpu


@pytest.fixture(autouse=True, scope="module")
def compiled():
    assert cpu.load(), cpu.status()["reason"]


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_second_backward_pass_over_one_graph_adds_the_same_gradient(factor):
    """The first pass hands over the gradients that the forward pass computed; the second computes them again."""
    h, wd, wp, distances, depths, lengths = problem([9, 4])
    for call in (
        lambda h, w: distance_probe_loss(h, w, distances, lengths),
        lambda h, w: depth_probe_loss(h, w, depths, lengths),
        lambda h, w: probe_loss(h, w, wp, distances, depths, lengths),
    ):
        inputs = leaves(h, wd)
        loss = call(*inputs).sum() * factor
        first = torch.autograd.grad(loss, inputs, retain_graph=True)
        kept = [g.clone() for g in first]
        second = torch.autograd.grad(loss, inputs)
        for a, b, c in zip(first, second, kept, strict=True):
            assert torch.equal(a, b) and torch.equal(a, c) and a.data_ptr() != b.data_ptr()
        with pytest.raises(RuntimeError, match="second time"):
            loss.backward()


@pytest.mark.parametrize("kind", ["distance", "depth"])
def test_backward_scales_each_layer_by_its_upstream_gradient(kind):
    h, wd, wp, distances, depths, lengths = problem([9, 4])
    weight, golds, loss = {
        "distance": (wd, distances, distance_probe_loss),
        "depth": (wp, depths, depth_probe_loss),
    }[kind]
    plain = leaves(h, weight)
    loss(*plain, golds, lengths).sum().backward()
    for upstream in ([1.0, 1.0], [1.0, -2.0]):
        inputs = leaves(h, weight)
        factors = torch.tensor(upstream, dtype=torch.float64)
        loss(*inputs, golds, lengths).backward(factors)
        for a, b in zip(inputs, plain, strict=True):
            torch.testing.assert_close(a.grad, b.grad * factors[:, None, None], rtol=1e-14, atol=0)


def test_gradients_of_several_upstream_gradients_at_once():
    h, wd, _, distances, _, lengths = problem([9, 4])
    h, wd = leaves(h, wd)
    loss = distance_probe_loss(h, wd, distances, lengths)
    (found,) = torch.autograd.grad(
        loss, wd, torch.eye(2, dtype=torch.float64), is_grads_batched=True, retain_graph=True
    )
    for k in range(2):
        (alone,) = torch.autograd.grad(loss[k], wd, retain_graph=True)
        torch.testing.assert_close(found[k], alone)


def test_changing_the_weight_before_backward_is_refused():
    h, wd, _, distances, _, lengths = problem([9, 4])
    weight = wd.clone().requires_grad_()
    loss = distance_probe_loss(h, weight, distances, lengths).sum()
    with torch.no_grad():
        weight += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_losses_may_be_changed_in_place():
    h, wd, _, distances, _, lengths = problem([9, 4])
    weight = wd.clone().requires_grad_()
    loss = distance_probe_loss(h, weight, distances, lengths)
    expected = torch.autograd.grad(loss.sum() * 3, weight)[0]
    again = distance_probe_loss(h, weight, distances, lengths)
    again *= 3
    torch.testing.assert_close(torch.autograd.grad(again.sum(), weight)[0], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_float64_precision_returns_the_type_of_the_input(dtype):
    h, wd, wp, distances, depths, lengths = problem([30, 7, 12], dtype=dtype)
    exact = brute_force(h, wd, wp, distances, depths, lengths)
    for kind, (loss, weight, golds) in enumerate(
        [(distance_probe_loss, wd, distances), (depth_probe_loss, wp, depths)]
    ):
        leaf = weight.clone().requires_grad_()
        found = loss(h, leaf, golds, lengths, precision="float64")
        assert found.dtype == torch.float32
        assert torch.equal(found.double(), exact[:, kind].float().double())
        wide = weight.double().requires_grad_()
        loss(h.double(), wide, golds, lengths).sum().backward()
        found.sum().backward()
        assert leaf.grad.dtype == dtype and torch.equal(leaf.grad, wide.grad.to(dtype))
        plain = loss(h, weight, golds, lengths)
        assert torch.equal(loss(h, weight, golds, lengths, precision="fast"), plain)  # on a CPU


def test_unknown_precision_is_refused():
    h, wd, wp, distances, depths, lengths = problem([9, 4])
    message = "precision must be one of float32, fast, float64, not 'half'"
    with pytest.raises(BertftError, match=message):
        distance_probe_loss(h, wd, distances, lengths, precision="half")
    with pytest.raises(BertftError, match=message):
        depth_probe_loss(h, wp, depths, lengths, precision="half")


def test_second_derivatives_are_refused():
    args = problem([3, 4])
    inputs = leaves(*args[:3])
    (grad,) = torch.autograd.grad(probe_loss(*inputs, *args[3:]).sum(), inputs[1], create_graph=True)
    with pytest.raises(BertftError, match="second derivatives are not implemented"):
        grad.sum().backward()
