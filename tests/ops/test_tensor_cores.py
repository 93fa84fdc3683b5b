"""Products that a GPU forms from halves.

When they are asked for, and how the operands are passed.
"""

from __future__ import annotations

import pytest
import torch

from bertft.ops import tensor_cores


def operands(dtype=torch.float32):
    draw = torch.Generator().manual_seed(0)
    return torch.randn(2, 5, 7, generator=draw, dtype=dtype), torch.randn(2, 7, 3, generator=draw, dtype=dtype)


def test_the_cpu_never_serves():
    a, b = operands()
    assert not tensor_cores.serve(a)
    assert not tensor_cores.serve(a, b)
    assert torch.equal(tensor_cores.product(a, b), torch.bmm(a, b))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_only_float32_goes_over_rows_of_both(monkeypatch, dtype):
    """The op takes two sets of rows: the second operand turned over. What it gets is checked, not what it does."""
    asked = []

    def split_product(a, b):
        asked.append((a.shape, b.shape))
        return a @ b.mT

    monkeypatch.setattr(tensor_cores, "serve", lambda x, y=None: True)
    monkeypatch.setattr(torch.ops.bertft, "split_product", split_product, raising=False)
    a, b = operands(dtype)
    torch.testing.assert_close(tensor_cores.product(a, b), torch.bmm(a, b))
    assert asked == ([((2, 5, 7), (2, 3, 7))] if dtype == torch.float32 else [])
