"""Tensor cores: when they are asked for, and how gradients of distances reach them."""

from __future__ import annotations

import pytest
import torch

from bertft.ops import pairwise_gradient, tensor_cores
from bertft.ops.metrics import METRICS
from bertft.ops.native import cpu


def operands(dtype=torch.float32):
    draw = torch.Generator().manual_seed(0)
    return torch.randn(2, 5, 7, generator=draw, dtype=dtype), torch.randn(2, 3, 7, generator=draw, dtype=dtype)


def test_the_cpu_never_serves():
    x, y = operands()
    assert not tensor_cores.serve(x)
    assert not tensor_cores.serve(x, y)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_of_float32_distances_that_are_products_go_over_halves(metric, dtype, monkeypatch):
    """Here tensor cores are only said to serve. What the op gets is checked, not what it does."""
    assert cpu.load(), cpu.status()["reason"]
    asked, sides = [], []

    def split_gradient(grad, x, y, out, code, condensed, fast):
        asked.append((tuple(grad.shape), y is None, METRICS[code], condensed, fast))
        return torch.zeros_like(x), x.new_zeros(0, 0, 7) if y is None else torch.zeros_like(y)

    monkeypatch.setattr(pairwise_gradient, "serve", lambda x, y=None: sides.append((x.shape[1], y is None)) or True)
    monkeypatch.setattr(torch.ops.bertft, "split_gradient", split_gradient, raising=False)
    x, y = operands(dtype)
    for other, shape, options in ((y, (5, 3), {"fast": True}), (None, (5, 5), {}), (None, (10,), {"condensed": True})):
        grad = torch.ones(2, *shape, dtype=dtype)
        found = pairwise_gradient.gradients(grad, x, other, grad, metric, **options)
        assert [part.shape[1] for part in found] == [5, 0 if other is None else 3]
    served = metric != "manhattan" and dtype == torch.float32
    wanted = [((2, 5, 3), False, metric, False, True), ((2, 5, 5), True, metric, False, False)]
    assert asked == ([*wanted, ((2, 10), True, metric, True, False)] if served else [])
    assert sides == ([(5, False), (3, False), (5, True), (5, True)] if served else [])
