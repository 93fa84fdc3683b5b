"""Gradient of distances by products, as on a GPU.

The reference is autograd in float64.
"""

from __future__ import annotations

import pytest
import torch

from bertft.ops import reference
from bertft.ops.pairwise_gradient import PRODUCTS, by_products
from bertft.ops.rows import metric_rows_backward


@pytest.mark.parametrize("metric", PRODUCTS)
@pytest.mark.parametrize("itself", [True, False])
def test_gradient_equals_autograd(metric, itself):
    random = torch.Generator().manual_seed(0)
    x = torch.randn(2, 19, 7, generator=random, dtype=torch.float64) + 2
    y = None if itself else torch.randn(2, 5, 7, generator=random, dtype=torch.float64) + 2
    leaves = [t.clone().requires_grad_() for t in (x, y) if t is not None]
    out = reference.pairwise_distance(*leaves, metric=metric)
    grad = torch.randn(out.shape, generator=random, dtype=torch.float64)
    wanted = torch.autograd.grad((out * grad).sum(), leaves)
    found = by_products(grad, x, y, out.detach(), metric)
    for rows, own, exact in zip((x, y), found, wanted, strict=False):
        torch.testing.assert_close(metric_rows_backward(rows, own, metric), exact, rtol=1e-9, atol=1e-9)
    assert itself == (found[1].numel() == 0)
